#pragma once

#include <string>

namespace visavis {

// Returns whether an address is on this machine. Throws InvalidSettings if it is no address.
bool IsLocal(const std::string& address);

}  // namespace visavis
