package visavis;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import visavis.VisavisException.FieldViolation;

/** Translates gRPC statuses and their google.rpc details into this package's exceptions. */
final class Statuses {
  /** How the server, and grpc-java, report a message that is too large: as an overloaded server. */
  private static final Pattern REQUEST_TOO_LARGE =
      Pattern.compile("Received message larger than max \\((\\d+) vs\\. (\\d+)\\)");
  private static final Pattern RESPONSE_TOO_LARGE =
      Pattern.compile("gRPC message exceeds maximum size (\\d+): (\\d+)");

  private Statuses() {}

  /** Returns the exception for a failed call. */
  static VisavisException translated(
      StatusRuntimeException error, String address, Duration timeout) {
    Details details = details(error);
    Status status = error.getStatus();
    if (hasDetails(error)) {
      return switch (status.getCode()) {
        case INTERNAL, UNKNOWN, DATA_LOSS, ABORTED -> exception(withRequestId(details));
        default -> exception(details);
      };
    }
    Optional<String> tooLarge = tooLarge(status);
    if (tooLarge.isPresent()) {
      return new VisavisException.InvalidRequest(withMessage(details, tooLarge.get()));
    }
    return exception(withMessage(details, explained(status, address, timeout)));
  }

  static VisavisException exception(Details details) {
    return switch (details.code()) {
      case INVALID_ARGUMENT, OUT_OF_RANGE, FAILED_PRECONDITION ->
          new VisavisException.InvalidRequest(details);
      case NOT_FOUND -> new VisavisException.ModelNotFound(details);
      case UNAUTHENTICATED, PERMISSION_DENIED -> new VisavisException.AccessDenied(details);
      case UNIMPLEMENTED -> new VisavisException.Unsupported(details);
      case RESOURCE_EXHAUSTED -> new VisavisException.Overloaded(details);
      case DEADLINE_EXCEEDED -> new VisavisException.DeadlineExceeded(details);
      case UNAVAILABLE -> new VisavisException.Unavailable(details);
      case CANCELLED -> new VisavisException.Cancelled(details);
      default -> new VisavisException.ServerFailed(details);
    };
  }

  private static boolean hasDetails(StatusRuntimeException error) {
    return StatusProto.fromThrowable(error).getDetailsCount() > 0;
  }

  private static Details details(StatusRuntimeException error) {
    List<FieldViolation> violations = new ArrayList<>();
    Optional<String> requestId = Optional.empty();
    Optional<Duration> retryDelay = Optional.empty();
    try {
      for (Any any : StatusProto.fromThrowable(error).getDetailsList()) {
        if (any.is(BadRequest.class)) {
          for (var violation : any.unpack(BadRequest.class).getFieldViolationsList()) {
            violations.add(new FieldViolation(violation.getField(), violation.getDescription()));
          }
        } else if (any.is(RequestInfo.class)) {
          requestId = Optional.of(any.unpack(RequestInfo.class).getRequestId());
        } else if (any.is(RetryInfo.class)) {
          var delay = any.unpack(RetryInfo.class).getRetryDelay();
          retryDelay = Optional.of(Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
        }
      }
    } catch (InvalidProtocolBufferException broken) {
      // The status still holds without its details.
      error.addSuppressed(broken);
    }
    Status status = error.getStatus();
    String message = Optional.ofNullable(status.getDescription()).orElse(status.getCode().name());
    return new Details(
        message, status.getCode(), List.copyOf(violations), requestId, retryDelay, error);
  }

  private static Details withMessage(Details details, String message) {
    return new Details(
        message, details.code(), details.violations(), details.requestId(), details.retryDelay(),
        details.cause());
  }

  private static Details withRequestId(Details details) {
    return details.requestId().filter(id -> !details.message().contains(id)).map(id -> withMessage(
        details, details.message() + " (request id " + id + "; see the server's log)"))
        .orElse(details);
  }

  private static Optional<String> tooLarge(Status status) {
    String description = Optional.ofNullable(status.getDescription()).orElse("");
    Matcher request = REQUEST_TOO_LARGE.matcher(description);
    if (request.find()) {
      return Optional.of(String.format(
          "the request is %s bytes; the server's limit (max_message_bytes) is %s; send a smaller "
          + "picture", request.group(1), request.group(2)));
    }
    Matcher response = RESPONSE_TOO_LARGE.matcher(description);
    if (response.find()) {
      return Optional.of(String.format(
          "the response is %s bytes; this client's limit is %s; request fewer models or no "
          + "annotated picture", response.group(2), response.group(1)));
    }
    return Optional.empty();
  }

  /** Returns the message for a status without details, which usually comes from gRPC itself. */
  private static String explained(Status status, String address, Duration timeout) {
    String message = firstLine(status.getDescription());
    return switch (status.getCode()) {
      case UNAVAILABLE -> {
        Throwable cause = status.getCause();
        String reason = cause == null ? "" : ": " + firstLine(cause.getMessage());
        yield "no answer from " + address + ": " + message + reason;
      }
      case DEADLINE_EXCEEDED -> "no answer from " + address + " within "
          + timeout.toMillis() / 1000.0 + " s; try a longer timeout";
      case UNIMPLEMENTED ->
          "the server at " + address + " doesn't support this call: " + message;
      default -> message.isEmpty() ? status.getCode().name() : message;
    };
  }

  private static String firstLine(String text) {
    return text == null ? "" : text.lines().findFirst().orElse("");
  }
}
