package scenario;

import java.nio.file.Path;
import java.time.Duration;
import scenario.Lines.Arrived;
import scenario.Lines.Boxes;
import scenario.Lines.Card;
import scenario.Lines.Cards;
import scenario.Lines.Compared;
import scenario.Lines.Health;
import scenario.Lines.Label;
import scenario.Lines.LabelledBox;
import scenario.Lines.Labels;
import scenario.Lines.Late;
import scenario.Lines.Refused;
import scenario.Lines.Tls;
import visavis.ClassifyOptions;
import visavis.Comparison;
import visavis.Comparison.TaskComparison;
import visavis.DetectOptions;
import visavis.ModelAnswer;
import visavis.Picture;
import visavis.VisavisClient;
import visavis.VisavisException;

/** Runs the scenario of clients/README.md against a server, with one picture. */
public record Scenario(VisavisClient client, Picture picture) {
  /** The program: SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]. */
  public static void main(String[] args) {
    try {
      if (args.length != 2 && args.length != 5) {
        throw new IllegalArgumentException(
            "usage: scenario SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]");
      }
      try (var client = VisavisClient.connect(args[0])) {
        new Scenario(client, Picture.file(Path.of(args[1]))).run();
      }
      if (args.length == 5) {
        listOverTls(args[2], Path.of(args[3]), args[4]);
      }
    } catch (Exception error) {
      System.err.println("scenario: " + error.toString().lines().findFirst().orElseThrow());
      System.exit(1);
    }
  }

  private void run() throws InterruptedException {
    client.waitUntilReady();
    print(new Health("health", "SERVING"));
    print(new Cards("list", client.models().stream().map(Card::of).toList()));
    classify();
    detect();
    compare();
    missDeadline();
    beRefused();
  }

  private void classify() {
    var answer = client.classify(picture, "resnet50", ClassifyOptions.builder().topK(3).build());
    var labels = answer.classifications().stream().map(Label::of).toList();
    print(new Labels("classify", answer.servedBy().model(), labels));
  }

  private void detect() {
    var options = DetectOptions.builder().scoreThreshold(0.4).build();
    var answer = client.detect(picture, "yolov5n", options);
    var boxes = answer.detections().stream().map(LabelledBox::of).toList();
    print(new Boxes("detect", answer.servedBy().model(), boxes));
  }

  private void compare() {
    Comparison comparison =
        client.compareStream(picture, streamed -> print(Arrived.of(streamed.answer())));
    for (TaskComparison compared : comparison.tasks()) {
      for (ModelAnswer answer : compared.answers()) {
        print(Compared.of(compared.task(), answer));
      }
    }
  }

  private void missDeadline() {
    var options = ClassifyOptions.builder().timeout(Duration.ofMillis(1)).build();
    var error = refusal(() -> client.classify(picture, "resnet50", options));
    print(new Late("deadline", error.code()));
  }

  private void beRefused() {
    var options = ClassifyOptions.builder().topK(0).metadata("x-request-id", "scenario").build();
    var error = refusal(() -> client.classify(picture, "resnet50", options));
    print(new Refused(
        "error", error.code(), error.field().orElse(""), error.requestId().orElse("")));
  }

  private static void listOverTls(String server, Path ca, String token) {
    try (var known = VisavisClient.builder(server).tls(ca).token(token).build();
        var stranger = VisavisClient.builder(server).tls(ca).build()) {
      int models = known.models().size();
      var error = refusal(stranger::models);
      print(new Tls("tls", models, error.code()));
    }
  }

  /** Returns the error of a call that must fail; throws if it succeeds. */
  private static VisavisException refusal(Runnable call) {
    try {
      call.run();
    } catch (VisavisException error) {
      return error;
    }
    throw new IllegalStateException("a call that must fail did not");
  }

  private static void print(Record line) {
    System.out.println(Json.of(line));
  }
}
