package visavis;

import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import visavis.VisavisException.FieldViolation;

/** What is known of an error. */
record Details(
    String message, Status.Code code, List<FieldViolation> violations, Optional<String> requestId,
    Optional<Duration> retryDelay, Throwable cause) {
  /** Returns the details of an error that was found before any call. */
  static Details of(String message, List<FieldViolation> violations) {
    return new Details(
        message, Status.Code.INVALID_ARGUMENT, violations, Optional.empty(), Optional.empty(), null);
  }
}
