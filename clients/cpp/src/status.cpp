#include "status.h"

#include <array>
#include <regex>
#include <sstream>

#include "visavis/client/wire.pb.h"
#include "visavis/errors.h"

namespace visavis {
namespace {

constexpr std::array kNames = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

// Reads a message from an Any of the published type. False if it has another type.
template <typename Message>
bool Read(const google::protobuf::Any& any, const char* published, Message* message) {
  return any.type_url() == std::string("type.googleapis.com/google.rpc.") + published &&
         message->ParseFromString(any.value());
}

ErrorDetails ReadDetails(const client::Status& status) {
  ErrorDetails details;
  for (const auto& any : status.details()) {
    client::BadRequest bad_request;
    client::RequestInfo request_info;
    client::RetryInfo retry_info;
    if (Read(any, "BadRequest", &bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        details.violations.push_back({violation.field(), violation.description()});
      }
    } else if (Read(any, "RequestInfo", &request_info)) {
      details.request_id = request_info.request_id();
    } else if (Read(any, "RetryInfo", &retry_info)) {
      const auto& delay = retry_info.retry_delay();
      details.retry_delay = std::chrono::seconds(delay.seconds()) +
                            std::chrono::milliseconds(delay.nanos() / 1'000'000);
    }
  }
  return details;
}

// gRPC reports a message that is too large with the code of an overloaded server. Newer versions
// prefix "CLIENT: " or "SERVER: ". Returns an empty string for other messages.
std::string ExplainTooLarge(const std::string& message) {
  static const std::regex too_large(
      R"((SERVER: )?Received message larger than max \((\d+) vs\. (\d+)\))");
  std::smatch found;
  if (!std::regex_search(message, found, too_large)) return "";
  if (found[1].matched) {
    return "the request is " + found[2].str() +
           " bytes; the server's limit (max_message_bytes) is " + found[3].str() +
           "; send a smaller picture";
  }
  return "the response is " + found[2].str() + " bytes; this client's limit is " +
         found[3].str() + "; request fewer models or no annotated picture";
}

// The message for a status without details, which usually comes from gRPC itself.
std::string Explained(const grpc::Status& status, const std::string& address,
                      std::chrono::milliseconds timeout) {
  const std::string& message = status.error_message();
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      return "no answer from " + address + ": " + message;
    case grpc::StatusCode::DEADLINE_EXCEEDED: {
      std::ostringstream text;
      text << "no answer from " << address << " within " << timeout.count() / 1000.0
           << " s; try a longer timeout";
      return text.str();
    }
    case grpc::StatusCode::UNIMPLEMENTED:
      return "the server at " + address + " doesn't support this call: " + message;
    default:
      return message.empty() ? Name(static_cast<Code>(status.error_code())) : message;
  }
}

}  // namespace

std::string Name(Code code) {
  const auto number = static_cast<std::size_t>(code);
  return number < kNames.size() ? kNames[number] : "status " + std::to_string(number);
}

void Check(const grpc::Status& status, const std::string& address,
           std::chrono::milliseconds timeout) {
  if (status.ok()) return;
  client::Status rpc;
  rpc.ParseFromString(status.error_details());
  ErrorDetails details = ReadDetails(rpc);
  details.code = static_cast<Code>(status.error_code());
  const bool from_server = rpc.details_size() > 0;
  std::string message =
      from_server ? status.error_message() : Explained(status, address, timeout);
  switch (details.code) {
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
    case Code::kFailedPrecondition:
      throw InvalidRequest(message, details);
    case Code::kNotFound:
      throw ModelNotFound(message, details);
    case Code::kUnauthenticated:
    case Code::kPermissionDenied:
      throw AccessDenied(message, details);
    case Code::kUnimplemented:
      throw Unsupported(message, details);
    case Code::kResourceExhausted:
      if (const std::string why = ExplainTooLarge(message); !from_server && !why.empty()) {
        throw InvalidRequest(why, details);
      }
      throw Overloaded(message, details);
    case Code::kDeadlineExceeded:
      throw DeadlineExceeded(message, details);
    case Code::kUnavailable:
      throw Unavailable(message, details);
    case Code::kCancelled:
      throw Cancelled(message, details);
    default:  // The server's fault: INTERNAL, UNKNOWN, DATA_LOSS, ABORTED.
      if (message.find(details.request_id) == std::string::npos) {
        message += " (request id " + details.request_id + "; see the server's log)";
      }
      throw ServerFailed(message, details);
  }
}

}  // namespace visavis
