#pragma once

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace visavis {

/// gRPC's status codes.
enum class Code {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

/// The name of a code in gRPC's specification, such as INVALID_ARGUMENT.
std::string Name(Code code);

/// One invalid field of a request: its path in the message, and the reason.
struct FieldViolation {
  std::string field;        ///< Path of the field in the message, such as top_k.
  std::string description;  ///< The reason.
};

/// What is known of an error besides its message.
struct ErrorDetails {
  /// The gRPC status.
  Code code = Code::kInternal;
  /// Invalid fields of the request.
  std::vector<FieldViolation> violations;
  /// Identifies the call in the server's log.
  std::string request_id;
  /// How long to wait before a retry.
  std::optional<std::chrono::milliseconds> retry_delay;
};

/// The failure of a call, or unusable settings. what() is a message for people.
class Error : public std::runtime_error {
 public:
  /// message: for people.
  Error(const std::string& message, ErrorDetails details)
      : std::runtime_error(message), details_(std::move(details)) {}

  /// The gRPC status.
  Code code() const { return details_.code; }

  /// All invalid fields.
  const std::vector<FieldViolation>& violations() const { return details_.violations; }

  /// Path of the first invalid field, such as "image" or "top_k"; empty if there is none.
  std::string field() const {
    return details_.violations.empty() ? "" : details_.violations.front().field;
  }

  /// Identifies the call in the server's log; empty if the server did not say.
  const std::string& request_id() const { return details_.request_id; }

  /// How long to wait before a retry, as the server requests.
  std::optional<std::chrono::milliseconds> retry_delay() const { return details_.retry_delay; }

 private:
  ErrorDetails details_;
};

/// The address, a TLS file or the token is unusable.
class InvalidSettings : public Error {
  using Error::Error;
};

/// The request is invalid; violations() names the fields.
class InvalidRequest : public Error {
  using Error::Error;
};

/// The server has no such model, or no such version of it.
class ModelNotFound : public Error {
  using Error::Error;
};

/// The token is missing or wrong, or does not allow this call.
class AccessDenied : public Error {
  using Error::Error;
};

/// The server lacks the method: it is older, or not a visavis server.
class Unsupported : public Error {
  using Error::Error;
};

/// The server is overloaded; retry_delay() says how long to wait.
class Overloaded : public Error {
  using Error::Error;
};

/// The timeout ran out before the answer arrived.
class DeadlineExceeded : public Error {
  using Error::Error;
};

/// No server answers, or it is starting or stopping.
class Unavailable : public Error {
  using Error::Error;
};

/// A proxy or a stopping server cut the call off.
class Cancelled : public Error {
  using Error::Error;
};

/// The server failed; its log has details under request_id().
class ServerFailed : public Error {
  using Error::Error;
};

}  // namespace visavis
