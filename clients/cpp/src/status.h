#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <string>

namespace visavis {

// Throws the error of a call that failed. address, timeout: of the call, for the message.
void Check(const grpc::Status& status, const std::string& address,
           std::chrono::milliseconds timeout);

}  // namespace visavis
