#include "image.h"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <regex>
#include <system_error>
#include <utility>

#include "visavis/errors.h"

namespace visavis {
namespace {

// Leaves room for the rest of the request.
constexpr std::size_t kMaxImageBytes = kMaxMessageBytes - (64 << 10);

InvalidRequest InvalidImage(const std::string& message) {
  return {message, {Code::kInvalidArgument, {{"image", message}}, {}, {}}};
}

void CheckSize(const std::string& bytes) {
  if (bytes.empty()) throw InvalidImage("image is empty");
  if (bytes.size() > kMaxImageBytes) {
    throw InvalidImage("image is " + std::to_string(bytes.size()) + " bytes; the limit is " +
                       std::to_string(kMaxImageBytes));
  }
}

}  // namespace

Image::Image(std::shared_ptr<const Content> content) : content_(std::move(content)) {}

Image Image::File(const std::string& path) {
  // A colon alone does not make a path a URL.
  static const std::regex url("([a-z][a-z0-9+.-]*://|data:[^/]*/)");
  if (std::regex_search(path, url, std::regex_constants::match_continuous)) {
    throw InvalidImage("image is a URL, " + path.substr(0, 60) +
                       "; download it and pass its bytes");
  }
  std::ifstream file(path, std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw std::system_error(errno, std::generic_category(), "can't read " + path);
  return Encoded(std::move(content));
}

Image Image::Encoded(std::string content) {
  CheckSize(content);
  auto image = std::make_shared<Content>();
  image->message.set_encoded(std::move(content));
  return Image(std::move(image));
}

Image Image::Raw(PixelFormat format, int width, int height, std::string pixels) {
  CheckSize(pixels);
  auto image = std::make_shared<Content>();
  v1::RawImage& raw = *image->message.mutable_raw();
  raw.set_format(static_cast<v1::PixelFormat>(format));
  raw.set_width(width);
  raw.set_height(height);
  raw.set_data(std::move(pixels));
  return Image(std::move(image));
}

}  // namespace visavis
