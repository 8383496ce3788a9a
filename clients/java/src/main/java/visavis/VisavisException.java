package visavis;

import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/** The failure of a call, or unusable settings. The subclasses say who must act. */
public class VisavisException extends RuntimeException {
  private static final long serialVersionUID = 1;

  private final transient Details details;

  VisavisException(Details details) {
    super(details.message(), details.cause());
    this.details = details;
  }

  /** Returns the gRPC status. */
  public Status.Code code() {
    return details.code();
  }

  /** Returns all invalid fields of the request. */
  public List<FieldViolation> violations() {
    return details.violations();
  }

  /** Returns the path of the first invalid field, such as {@code image} or {@code top_k}. */
  public Optional<String> field() {
    return details.violations().stream().map(FieldViolation::field).findFirst();
  }

  /** Returns the id of the call in the server's log, if the server gave one. */
  public Optional<String> requestId() {
    return details.requestId();
  }

  /** Returns how long to wait before a retry, if the server said so. */
  public Optional<Duration> retryDelay() {
    return details.retryDelay();
  }

  /**
   * One invalid field of a request.
   *
   * @param field its path in the message
   * @param description why it is invalid
   */
  public record FieldViolation(String field, String description) {}

  /** The address, a TLS file or the token is unusable. */
  public static final class InvalidSettings extends VisavisException {
    private static final long serialVersionUID = 1;

    InvalidSettings(String message) {
      super(Details.of(message, List.of()));
    }
  }

  /** The request is invalid; {@link #violations} names the fields. */
  public static final class InvalidRequest extends VisavisException {
    private static final long serialVersionUID = 1;

    InvalidRequest(Details details) {
      super(details);
    }
  }

  /** The server has no such model, or no such version of it. */
  public static final class ModelNotFound extends VisavisException {
    private static final long serialVersionUID = 1;

    ModelNotFound(Details details) {
      super(details);
    }
  }

  /** The token is missing or wrong, or does not allow this call. */
  public static final class AccessDenied extends VisavisException {
    private static final long serialVersionUID = 1;

    AccessDenied(Details details) {
      super(details);
    }
  }

  /** The server lacks the method: it is older, or not a visavis server. */
  public static final class Unsupported extends VisavisException {
    private static final long serialVersionUID = 1;

    Unsupported(Details details) {
      super(details);
    }
  }

  /** The server is overloaded; {@link #retryDelay} says how long to wait. */
  public static final class Overloaded extends VisavisException {
    private static final long serialVersionUID = 1;

    Overloaded(Details details) {
      super(details);
    }
  }

  /** The timeout ran out before the answer arrived. */
  public static final class DeadlineExceeded extends VisavisException {
    private static final long serialVersionUID = 1;

    DeadlineExceeded(Details details) {
      super(details);
    }
  }

  /** No server answers, or it is starting or stopping. */
  public static final class Unavailable extends VisavisException {
    private static final long serialVersionUID = 1;

    Unavailable(Details details) {
      super(details);
    }
  }

  /** The thread was interrupted, or a proxy or a stopping server cut the call off. */
  public static final class Cancelled extends VisavisException {
    private static final long serialVersionUID = 1;

    Cancelled(Details details) {
      super(details);
    }
  }

  /** The server failed; its log has more under {@link #requestId}. */
  public static final class ServerFailed extends VisavisException {
    private static final long serialVersionUID = 1;

    ServerFailed(Details details) {
      super(details);
    }
  }
}
