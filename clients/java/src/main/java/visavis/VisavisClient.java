package visavis;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

import grpc.health.v1.HealthGrpc;
import grpc.health.v1.HealthOuterClass.HealthCheckRequest;
import grpc.health.v1.HealthOuterClass.HealthCheckResponse.ServingStatus;
import io.grpc.Channel;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Function;
import visavis.VisavisException.InvalidSettings;
import visavis.v1.Vision.CompareStreamResponse;
import visavis.v1.Vision.GetModelRequest;
import visavis.v1.Vision.ListModelsRequest;
import visavis.v1.VisionServiceGrpc;
import visavis.v1.VisionServiceGrpc.VisionServiceBlockingStub;

/**
 * A connection to one server, which is opened by the first call and again whenever it breaks. Its
 * methods may be called from several threads, which share the connection.
 *
 * <p>Every call throws a {@link VisavisException} if it fails. Calls that fail because no server
 * answers, or because they are cut off on the way, are tried up to four times within their timeout:
 * every method only reads. An overloaded server is not asked again.
 */
public final class VisavisClient implements AutoCloseable {
  /** Where a server listens unless its settings say otherwise. */
  public static final String DEFAULT_ADDRESS = "127.0.0.1:8001";

  /** The timeout of calls that set none. */
  public static final Duration DEFAULT_TIMEOUT = Duration.ofSeconds(30);

  private static final RequestOptions NO_OPTIONS = RequestOptions.builder().build();
  private static final long READY_POLL_MS = 100;
  private static final Duration RECONNECT = Duration.ofSeconds(1);

  private final String address;
  private final Duration timeout;
  private final Connections.Connection connection;
  private final Channel channel;

  VisavisClient(ClientBuilder builder) {
    this.address = builder.address;
    this.timeout = builder.timeout;
    boolean local = Addresses.isLocal(address);
    var interceptors = new ArrayList<>(builder.interceptors);
    interceptors.add(headers(builder.headers(local)));
    this.connection = Connections.open(address, local, builder.credentials());
    this.channel = ClientInterceptors.intercept(connection.channel(), interceptors);
  }

  /**
   * Returns a builder for a client.
   *
   * @param address HOST:PORT, unix:PATH, or a target of gRPC such as dns:///HOST:PORT
   */
  public static ClientBuilder builder(String address) {
    return new ClientBuilder(address);
  }

  /**
   * Returns a client that connects in plaintext, with the first call.
   *
   * @throws InvalidSettings if the address is unusable
   */
  public static VisavisClient connect(String address) {
    return builder(address).build();
  }

  /** Closes the connection; calls in progress fail. */
  @Override
  public void close() {
    connection.close().run();
  }

  /** Returns the channel, for stubs of other services. It sends the token and the metadata. */
  public Channel channel() {
    return channel;
  }

  /** Returns one model's labels for the whole picture, highest score first. */
  public ClassifyResult classify(Picture picture, String model, ClassifyOptions options) {
    var request = options.request(picture, model);
    return call(options, stub -> Reading.classifyResult(stub.classify(request)));
  }

  /** Returns one model's labels for the whole picture, highest score first. */
  public ClassifyResult classify(Picture picture, String model) {
    return classify(picture, model, ClassifyOptions.builder().build());
  }

  /** Returns the objects that one model finds in the picture, highest score first. */
  public DetectResult detect(Picture picture, String model, DetectOptions options) {
    var request = options.request(picture, model);
    return call(options, stub -> Reading.detectResult(stub.detect(request)));
  }

  /** Returns the objects that one model finds in the picture, highest score first. */
  public DetectResult detect(Picture picture, String model) {
    return detect(picture, model, DetectOptions.builder().build());
  }

  /** Returns the answers of all capable models for one picture, side by side. */
  public Comparison compare(Picture picture, CompareOptions options) {
    var request = options.request(picture);
    return call(options, stub -> Reading.comparison(stub.compare(request)));
  }

  /** Returns the answers of all capable models for one picture, side by side. */
  public Comparison compare(Picture picture) {
    return compare(picture, CompareOptions.builder().build());
  }

  /**
   * Like {@link #compare}, but passes on each model's answer as soon as it arrives.
   *
   * @param onAnswer is called in this thread; if it throws, the rest is cancelled
   */
  public Comparison compareStream(
      Picture picture, CompareOptions options, Consumer<StreamedAnswer> onAnswer) {
    var request = options.streamRequest(picture);
    Context.CancellableContext context = Context.current().withCancellation();
    Context previous = context.attach();
    try {
      return call(options, stub -> {
        Optional<Comparison> comparison = Optional.empty();
        var events = stub.compareStream(request);
        while (events.hasNext()) {
          CompareStreamResponse event = events.next();
          Reading.streamedAnswer(event).ifPresent(onAnswer);
          if (event.hasSummary()) {
            comparison = Optional.of(Reading.comparison(event.getSummary()));
          }
        }
        return comparison.orElseThrow(() -> Status.INTERNAL
            .withDescription("the stream ended without a summary").asRuntimeException());
      });
    } finally {
      context.detach(previous);
      context.cancel(null);
    }
  }

  /** Like {@link #compare}, but passes on each model's answer as soon as it arrives. */
  public Comparison compareStream(Picture picture, Consumer<StreamedAnswer> onAnswer) {
    return compareStream(picture, CompareOptions.builder().build(), onAnswer);
  }

  /** Returns the cards of all models, ordered by name, without labels and receipts. */
  public List<Model> models() {
    return models(NO_OPTIONS);
  }

  /** Returns the cards of all models, ordered by name, without labels and receipts. */
  public List<Model> models(RequestOptions options) {
    var request = ListModelsRequest.getDefaultInstance();
    return call(options, stub -> stub.listModels(request).getModelsList().stream()
        .map(CardReading::model).toList());
  }

  /** Returns one model's card in its highest version, with its labels and its receipt. */
  public Model model(String name) {
    return model(GetModelRequest.newBuilder().setModel(name).build(), NO_OPTIONS);
  }

  /** Returns the card of one version of a model, with its labels and its receipt. */
  public Model model(String name, int version, RequestOptions options) {
    return model(GetModelRequest.newBuilder().setModel(name).setVersion(version).build(), options);
  }

  private Model model(GetModelRequest request, RequestOptions options) {
    return call(options, stub -> CardReading.model(stub.getModel(request).getModel()));
  }

  /** Returns once the server has loaded its models. */
  public void waitUntilReady() throws InterruptedException {
    waitUntilReady(timeout);
  }

  /**
   * Returns once the server has loaded its models.
   *
   * @throws VisavisException.DeadlineExceeded if the timeout ends first
   */
  public void waitUntilReady(Duration timeout) throws InterruptedException {
    long giveUpAt = System.nanoTime() + checked(timeout).toNanos();
    var health = HealthGrpc.newBlockingStub(channel).withWaitForReady();
    while (true) {
      long left = Math.max(0, giveUpAt - System.nanoTime());
      try {
        var status = health.withDeadlineAfter(Math.min(left, RECONNECT.toNanos()), NANOSECONDS)
            .check(HealthCheckRequest.getDefaultInstance()).getStatus();
        if (status == ServingStatus.SERVING) {
          return;
        }
      } catch (StatusRuntimeException error) {
        boolean late = error.getStatus().getCode() == Status.Code.DEADLINE_EXCEEDED;
        if (!late || left <= RECONNECT.toNanos()) {
          throw Statuses.translated(error, address, timeout);
        }
        // By default gRPC waits for up to two minutes before it connects again.
        connection.channel().resetConnectBackoff();
      }
      Thread.sleep(READY_POLL_MS);
    }
  }

  private <T> T call(RequestOptions options, Function<VisionServiceBlockingStub, T> call) {
    Duration limit = options.timeout.orElse(timeout);
    var stub = with(options.metadata, VisionServiceGrpc.newBlockingStub(channel))
        .withDeadlineAfter(limit.toNanos(), NANOSECONDS);
    try {
      return call.apply(stub);
    } catch (StatusRuntimeException error) {
      if (error.getStatus().getCode() == Status.Code.UNAVAILABLE) {
        connection.channel().resetConnectBackoff();
      }
      throw Statuses.translated(error, address, limit);
    }
  }

  private static <S extends AbstractStub<S>> S with(Map<String, String> metadata, S stub) {
    return metadata.isEmpty() ? stub : stub.withInterceptors(headers(metadata));
  }

  private static ClientInterceptor headers(Map<String, String> metadata) {
    Metadata headers = new Metadata();
    metadata.forEach((key, value) ->
        headers.put(Metadata.Key.of(key, Metadata.ASCII_STRING_MARSHALLER), value));
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  static Duration checked(Duration timeout) {
    if (timeout.isNegative() || timeout.isZero()) {
      throw new InvalidSettings("timeout is " + timeout + "; it must be above 0");
    }
    return timeout;
  }
}
