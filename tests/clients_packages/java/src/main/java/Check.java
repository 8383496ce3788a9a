import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.stream.Collectors;
import visavis.ClassifyOptions;
import visavis.CompareOptions;
import visavis.Comparison;
import visavis.DetectOptions;
import visavis.Detection;
import visavis.HeatMap;
import visavis.Model;
import visavis.ModelAnswer.BoxAgreement;
import visavis.ModelAnswer.LabelAgreement;
import visavis.Picture;
import visavis.PixelFormat;
import visavis.Task;
import visavis.VisavisClient;
import visavis.VisavisException;

/** Uses the library as another project would; takes the Arguments of test_packages.py. */
public final class Check {
  public static void main(String[] args) throws Exception {
    Picture picture = Picture.file(Path.of(args[8]));
    try (var client = VisavisClient.connect(args[0])) {
      client.waitUntilReady();
      results(client, picture);
      comparison(client, picture);
      var none = ClassifyOptions.builder().topK(0).metadata("x-request-id", "mine").build();
      failed("rejected", () -> client.classify(picture, "colors", none));
      failed("unknown", () -> client.detect(picture, "nothing"));
    }
    secure(args[1], Path.of(args[2]), Path.of(args[3]), Path.of(args[4]), args[5]);
    try (var client = VisavisClient.connect(args[6])) {
      print("unix %s", names(client.models()));
      var receipt = client.model("yolov5n").receipt().orElseThrow();
      print("receipt %.3f %.6f %.6f", receipt.heatMapTolerance(),
          receipt.maxHeatMapDifference().orElseThrow(),
          receipt.pictures().get(0).maxHeatMapDifference().orElseThrow());
    }
    try (var client = VisavisClient.builder(args[7]).timeout(Duration.ofMillis(200))
        .token("secret").metadata("x-team", "vision").build()) {
      failed("overloaded", () -> client.classify(picture, "any"));
      failed("late", () -> client.detect(picture, "any"));
    }
    try (var client = VisavisClient.connect(args[7])) {
      print("again %d", client.compare(picture).tasks().size());
    }
  }

  private static void results(VisavisClient client, Picture picture) {
    print("models %s", names(client.models()));
    Model card = client.model("colors", 1, ClassifyOptions.builder().build());
    print("card %s %d %s %s %b %b", card.name(), card.version(), taskName(card.tasks().get(0)),
        String.join(",", card.labelSet().labels()), card.verification().goldenSample(),
        card.receipt().isPresent());
    var labels = client.classify(
        picture, "colors", ClassifyOptions.builder().topK(2).annotate().build());
    labels.classifications().forEach(
        found -> print("label %s %d %.3f", found.label(), found.classId(), found.score()));
    var drawn = labels.annotatedImage().orElseThrow();
    print("drawn %s %d %d %b", drawn.mediaType(), drawn.size().width(), drawn.size().height(),
        drawn.encoded()[0] == (byte) 0xff && drawn.encoded()[1] == (byte) 0xd8);
    var cats = DetectOptions.builder().iouThreshold(0.9).labels("cat").build();
    for (Detection found : client.detect(picture, "boxes", cats).detections()) {
      var box = found.box();
      print("box %s %.3f %.1f %.1f %.1f %.1f", found.label(), found.score(), box.xMin(), box.yMin(),
          box.xMax(), box.yMax());
    }
    var best = ClassifyOptions.builder().explain().build();
    print(map(client.classify(picture, "paints", best).heatMap()));
    var green = ClassifyOptions.builder().explain("green").build();
    print(map(client.classify(picture, "paints", green).heatMap()));
    var first = DetectOptions.builder().explain().build();
    print(map(client.detect(picture, "heads", first).heatMap()));
    var bird = DetectOptions.builder().explain("bird").build();
    print(map(client.detect(picture, "heads", bird).heatMap()));
    byte[] pixels = new byte[3 * 64];
    for (int i = 0; i < pixels.length; i += 3) {
      pixels[i] = (byte) 255;
    }
    var raw = client.classify(Picture.raw(PixelFormat.BGR, 8, 8, pixels), "colors");
    print("raw %s %s %d %d %b", raw.classifications().get(0).label(), raw.servedBy().model(),
        raw.servedBy().version(), raw.imageSize().width(), raw.annotatedImage().isEmpty());
  }

  private static void comparison(VisavisClient client, Picture picture) {
    int[] arrived = {0};
    var options = CompareOptions.builder().baseline("colors").topK(2).build();
    Comparison comparison = client.compareStream(picture, options, streamed -> {
      if (streamed.answer().agreement().isPresent()) {
        throw new IllegalStateException("a streamed answer has an agreement");
      }
      arrived[0]++;
    });
    print("arrived %d", arrived[0]);
    comparison.tasks().forEach(compared -> compared.answers().forEach(answer -> {
      String agreement = answer.agreement().map(with -> {
        if (with instanceof LabelAgreement of) {
          var divergence = of.jensenShannonDivergence();
          return String.format(Locale.ROOT, " %b %.3f %s %d %d", of.sameTop1(), of.topKOverlap(),
              divergence.isPresent()
                  ? String.format(Locale.ROOT, "%.3f", divergence.getAsDouble()) : "none",
              of.unknownHere(), of.unknownInBaseline());
        }
        var of = (BoxAgreement) with;
        return String.format(Locale.ROOT, " %d %d %d %.3f %d %d", of.matched(), of.onlyHere(),
            of.onlyInBaseline(), of.f1(), of.unknownHere(), of.unknownInBaseline());
      }).orElse("");
      print("compared %s %s %s%s", taskName(compared.task()), compared.baseline(),
          answer.servedBy().model(), agreement);
    }));
    var one = client.compare(picture, CompareOptions.builder()
        .tasks(Task.DETECTION).models("boxes").maxDetections(1).build()).tasks().get(0);
    print("alone %d %b", one.answers().get(0).detections().size(),
        !one.nothingToCompare().isEmpty());
    var cat = CompareOptions.builder().models("boxes", "heads").explain("cat").build();
    var answers = client.compare(picture, cat).tasks().get(0).answers();
    print("boxes %b", answers.get(0).heatMap().isPresent());
    print("heads %s", map(answers.get(1).heatMap()));
    var heads = CompareOptions.builder().models("heads").explain().build();
    client.compareStream(picture, heads,
        streamed -> print("streamed %b", streamed.answer().heatMap().isPresent()));
    var sides = CompareOptions.builder().models("boxes", "heads").annotate().build();
    print("side by side %s", size(client.compare(picture, sides)));
    var difference = CompareOptions.builder().models("boxes", "heads").annotateDifference().build();
    print("difference %s %s", size(client.compare(picture, difference)),
        size(client.compareStream(picture, difference, streamed -> {})));
  }

  private static String size(Comparison comparison) {
    var size = comparison.annotatedImage().orElseThrow().size();
    return size.width() + " " + size.height();
  }

  /** Returns a map as a line: its second value tells rows from columns. */
  private static String map(Optional<HeatMap> map) {
    HeatMap of = map.orElseThrow();
    return String.format(Locale.ROOT, "map %s %d %d %d %d %.3f %.3f %.3f %.1f %.1f %.1f %.1f",
        of.label(), of.classId(), of.width(), of.height(), of.values().length, of.values()[1],
        of.min(), of.max(), of.area().xMin(), of.area().yMin(), of.area().xMax(), of.area().yMax());
  }

  private static void secure(String server, Path ca, Path certificate, Path key, String token) {
    try (var known = VisavisClient.builder(server).tls(ca).clientCertificate(certificate, key)
            .token(token).build();
        var stranger =
            VisavisClient.builder(server).tls(ca).clientCertificate(certificate, key).build();
        var nobody = VisavisClient.builder(server).tls(ca).token(token).build()) {
      print("tls %s", names(known.models()));
      failed("stranger", stranger::models);
      failed("nobody", nobody::models);
    }
    failed("clear", () -> VisavisClient.builder("192.0.2.1:8001").token(token).build());
  }

  /** Prints the type of the exception that a call throws, and its details. */
  private static void failed(String what, Runnable call) {
    try {
      call.run();
    } catch (VisavisException error) {
      // The ids that the server makes are hidden.
      String id = error.requestId().map(given -> given.equals("mine") ? given : "some").orElse("");
      print("%s %s field=%s id=%s retry=%d", what, error.getClass().getSimpleName(),
          error.field().orElse(""), id, error.retryDelay().map(Duration::toMillis).orElse(0L));
      return;
    }
    throw new IllegalStateException(what + ": a call that must fail did not");
  }

  private static String names(List<Model> models) {
    return models.stream().map(Model::name).collect(Collectors.joining(","));
  }

  private static String taskName(Task task) {
    return task.name().toLowerCase(Locale.ROOT);
  }

  private static void print(String format, Object... values) {
    System.out.println(String.format(Locale.ROOT, format, values));
  }
}
