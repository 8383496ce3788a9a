package visavis;

import java.time.Duration;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.TreeMap;

/** Options that every call takes. */
public class RequestOptions {
  final Optional<Duration> timeout;
  final Map<String, String> metadata;

  RequestOptions(Builder<?> builder) {
    this.timeout = Optional.ofNullable(builder.timeout);
    this.metadata = Map.copyOf(builder.metadata);
  }

  /** Returns a builder without any option. */
  public static Builder<?> builder() {
    return new PlainBuilder();
  }

  /**
   * Builds options.
   *
   * @param <B> the builder itself
   */
  public abstract static class Builder<B extends Builder<B>> {
    private Duration timeout;
    private final Map<String, String> metadata = new TreeMap<>();

    Builder() {}

    /** Sets the timeout of the whole call, retries included. By default it is the client's. */
    public B timeout(Duration timeout) {
      this.timeout = VisavisClient.checked(timeout);
      return self();
    }

    /** Sends a key and its value. The server logs a call under its {@code x-request-id}. */
    public B metadata(String key, String value) {
      metadata.put(Objects.requireNonNull(key), Objects.requireNonNull(value));
      return self();
    }

    /** Returns the options. */
    public RequestOptions build() {
      return new RequestOptions(this);
    }

    @SuppressWarnings("unchecked")
    B self() {
      return (B) this;
    }
  }

  private static final class PlainBuilder extends Builder<PlainBuilder> {}
}
