package visavis;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.RequestInfo;
import grpc.health.v1.HealthGrpc;
import grpc.health.v1.HealthOuterClass.HealthCheckRequest;
import grpc.health.v1.HealthOuterClass.HealthCheckResponse.ServingStatus;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import visavis.Lines.*;
import visavis.v1.Vision.*;
import visavis.v1.VisionServiceGrpc;
import visavis.v1.VisionServiceGrpc.VisionServiceBlockingStub;

/** Runs the scenario of clients/README.md against a server, with one picture. */
public record Scenario(Channel channel, Image picture) {
  private static final int PATIENCE_S = 30;
  private static final int READY_POLL_MS = 100;

  /** The largest accepted response; gRPC's default is 4 MiB. */
  private static final int MAX_ANSWER_BYTES = 96 << 20;

  /**
   * All methods are read-only, so calls that fail as UNAVAILABLE or are cut off are retried, up to
   * four attempts within their deadline. RESOURCE_EXHAUSTED is not: the server is overloaded.
   */
  private static final Map<String, ?> SERVICE_CONFIG = Map.of(
      "methodConfig", List.of(Map.of(
          "name", List.of(Map.of("service", "visavis.v1.VisionService")),
          "maxResponseMessageBytes", (double) MAX_ANSWER_BYTES,
          "retryPolicy", Map.of(
              "maxAttempts", 4.0,
              "initialBackoff", "0.1s",
              "maxBackoff", "1s",
              "backoffMultiplier", 2.0,
              "retryableStatusCodes", List.of("UNAVAILABLE", "CANCELLED")))));

  public static void main(String[] args) {
    try {
      if (args.length != 2 && args.length != 5) {
        throw new IllegalArgumentException(
            "usage: scenario SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]");
      }
      ask(args[0], Path.of(args[1]));
      if (args.length == 5) {
        askOverTls(args[2], new File(args[3]), args[4]);
      }
    } catch (Exception error) {
      // gRPC may add a second line with internal details.
      System.err.println("scenario: " + error.toString().lines().findFirst().orElseThrow());
      System.exit(1);
    }
  }

  private static void ask(String server, Path file) throws IOException, InterruptedException {
    ByteString encoded = ByteString.copyFrom(Files.readAllBytes(file));
    Image picture = Image.newBuilder().setEncoded(encoded).build();
    ManagedChannel channel = connect(server, InsecureChannelCredentials.create());
    try {
      Scenario scenario = new Scenario(channel, picture);
      scenario.waitUntilServing();
      scenario.list();
      scenario.classify();
      scenario.detect();
      scenario.compare();
      scenario.missDeadline();
      scenario.beRefused();
    } finally {
      channel.shutdownNow();
    }
  }

  private static void askOverTls(String server, File ca, String token) throws IOException {
    var trusted = TlsChannelCredentials.newBuilder().trustManager(ca).build();
    ManagedChannel channel = connect(server, trusted);
    try {
      var request = ListModelsRequest.getDefaultInstance();
      var stranger = vision(channel);
      var known = stranger.withInterceptors(header("authorization", "Bearer " + token));
      int models = known.listModels(request).getModelsCount();
      var error = refusal(() -> stranger.listModels(request));
      print(new Tls("tls", models, error.getStatus().getCode()));
    } finally {
      channel.shutdownNow();
    }
  }

  private void waitUntilServing() throws InterruptedException {
    // If the server is not listening yet, gRPC retries until the deadline.
    var health = HealthGrpc.newBlockingStub(channel).withWaitForReady()
        .withDeadlineAfter(PATIENCE_S, SECONDS);
    var request = HealthCheckRequest.getDefaultInstance();
    var status = health.check(request).getStatus();
    while (status != ServingStatus.SERVING) {
      Thread.sleep(READY_POLL_MS);
      status = health.check(request).getStatus();
    }
    print(new Health("health", status));
  }

  private void list() {
    var answer = vision(channel).listModels(ListModelsRequest.getDefaultInstance());
    List<Card> cards = answer.getModelsList().stream().map(Card::of).toList();
    print(new Cards("list", cards));
  }

  private void classify() {
    var answer = vision(channel).classify(classification().setTopK(3).build());
    List<Label> labels = answer.getClassificationsList().stream().map(Label::of).toList();
    print(new Labels("classify", answer.getServedBy().getModel(), labels));
  }

  private void detect() {
    var request = DetectRequest.newBuilder()
        .setImage(picture).setModel("yolov5n").setScoreThreshold(0.4f).build();
    var answer = vision(channel).detect(request);
    List<Box> boxes = answer.getDetectionsList().stream().map(Box::of).toList();
    print(new Boxes("detect", answer.getServedBy().getModel(), boxes));
  }

  private void compare() {
    var request = CompareStreamRequest.newBuilder().setImage(picture).build();
    vision(channel).compareStream(request).forEachRemaining(event -> {
      if (event.hasAnswer()) {
        print(Arrived.of(event.getAnswer().getAnswer()));
      }
      for (TaskComparison comparison : event.getSummary().getComparisonsList()) {
        for (ModelAnswer answer : comparison.getAnswersList()) {
          print(Compared.of(comparison.getTask(), answer));
        }
      }
    });
  }

  private void missDeadline() {
    var impatient = vision(channel).withDeadlineAfter(1, MILLISECONDS);
    var error = refusal(() -> impatient.classify(classification().build()));
    print(new Late("deadline", error.getStatus().getCode()));
  }

  private void beRefused() throws InvalidProtocolBufferException {
    var named = vision(channel).withInterceptors(header("x-request-id", "scenario"));
    var error = refusal(() -> named.classify(classification().setTopK(0).build()));
    var field = detail(error, BadRequest.class).getFieldViolations(0).getField();
    var requestId = detail(error, RequestInfo.class).getRequestId();
    print(new Refused("error", error.getStatus().getCode(), field, requestId));
  }

  private ClassifyRequest.Builder classification() {
    return ClassifyRequest.newBuilder().setImage(picture).setModel("resnet50");
  }

  /** Returns a channel to a server that reconnects whenever its connection breaks. */
  private static ManagedChannel connect(String server, ChannelCredentials credentials) {
    return Grpc.newChannelBuilder(server, credentials)
        .maxInboundMessageSize(MAX_ANSWER_BYTES)
        .defaultServiceConfig(SERVICE_CONFIG)
        .enableRetry()
        // gRPC retries only requests that fit into this buffer; the default is 1 MiB.
        .perRpcBufferLimit(MAX_ANSWER_BYTES)
        .retryBufferSize(2L * MAX_ANSWER_BYTES)
        .build();
  }

  private static VisionServiceBlockingStub vision(Channel channel) {
    return VisionServiceGrpc.newBlockingStub(channel).withDeadlineAfter(PATIENCE_S, SECONDS);
  }

  private static ClientInterceptor header(String name, String value) {
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value);
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  /** Returns the status of a call that must fail; throws if it succeeds. */
  private static StatusRuntimeException refusal(Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      return error;
    }
    throw new IllegalStateException("a call that must fail did not");
  }

  private static <T extends Message> T detail(StatusRuntimeException error, Class<T> type)
      throws InvalidProtocolBufferException {
    for (Any any : StatusProto.fromThrowable(error).getDetailsList()) {
      if (any.is(type)) {
        return any.unpack(type);
      }
    }
    throw new IllegalStateException("no " + type.getSimpleName() + " in " + error);
  }

  private static void print(Record line) {
    System.out.println(Json.of(line));
  }
}
