#include "address.h"

#include <regex>

#include "visavis/errors.h"

namespace visavis {

bool IsLocal(const std::string& address) {
  static const std::regex target("(dns|ipv4|ipv6|xds):.*");
  static const std::regex host_port(R"((\[[^\]]+\]|[^:/\s]+):(\d{1,5}))");
  static const std::regex loopback(R"(localhost|127(\.\d{1,3}){3}|\[(::1|0*(:0*){6}:0*1)\])");
  if (address.rfind("unix:", 0) == 0) return true;
  if (std::regex_match(address, target)) return false;
  const ErrorDetails invalid{Code::kInvalidArgument, {}, {}, {}};
  if (address.find("://") != std::string::npos) {
    throw InvalidSettings("address \"" + address + "\" is a URL; write HOST:PORT or unix:PATH",
                          invalid);
  }
  std::smatch parts;
  const bool matched = std::regex_match(address, parts, host_port);
  const int port = matched ? std::stoi(parts[2]) : 0;
  if (port < 1 || port > 65535) {
    throw InvalidSettings("invalid address \"" + address +
                              "\"; write HOST:PORT, such as 127.0.0.1:8001, or unix:PATH",
                          invalid);
  }
  return std::regex_match(parts[1].str(), loopback);
}

}  // namespace visavis
