#pragma once

#include <memory>
#include <string>

namespace visavis {

/// The memory layout of raw pixels. Rows are stored without padding.
enum class PixelFormat {
  kRgb = 1,   ///< 3 bytes per pixel.
  kBgr = 2,   ///< 3 bytes per pixel, as in OpenCV. Sent as kRgb, they give wrong scores.
  kGray = 3,  ///< One byte per pixel; 0 is black.
  kNv12 = 4,  ///< A Y plane, then interleaved U and V at half resolution: BT.601, limited range.
};

/// A picture to send. Copies share its bytes.
class Image {
 public:
  /// Reads a JPEG, PNG or WebP file. Throws std::system_error, or InvalidRequest for a URL.
  static Image File(const std::string& path);

  /// The content of a JPEG, PNG or WebP file. Throws InvalidRequest if it is empty or too large.
  static Image Encoded(std::string content);

  /// Decoded pixels in upright orientation, top row first. Throws InvalidRequest.
  static Image Raw(PixelFormat format, int width, int height, std::string pixels);

 private:
  friend class Client;
  struct Content;
  explicit Image(std::shared_ptr<const Content> content);
  std::shared_ptr<const Content> content_;
};

}  // namespace visavis
