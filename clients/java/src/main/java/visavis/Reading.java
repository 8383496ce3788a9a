package visavis;

import io.grpc.Status;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import visavis.v1.Vision;

/** Reads responses into this package's records. */
final class Reading {
  private Reading() {}

  static ClassifyResult classifyResult(Vision.ClassifyResponse message) {
    return new ClassifyResult(
        classifications(message.getClassificationsList()),
        servedBy(message.getServedBy()),
        timings(message.getTimings()),
        imageSize(message.getImageSize()),
        annotatedImage(message.hasAnnotatedImage(), message.getAnnotatedImage()),
        heatMap(message.hasHeatMap(), message.getHeatMap()));
  }

  static DetectResult detectResult(Vision.DetectResponse message) {
    return new DetectResult(
        detections(message.getDetectionsList()),
        servedBy(message.getServedBy()),
        timings(message.getTimings()),
        imageSize(message.getImageSize()),
        annotatedImage(message.hasAnnotatedImage(), message.getAnnotatedImage()),
        heatMap(message.hasHeatMap(), message.getHeatMap()));
  }

  static Comparison comparison(Vision.CompareResponse message) {
    return new Comparison(
        message.getComparisonsList().stream().flatMap(
            compared -> task(compared.getTask()).map(task -> comparison(task, compared)).stream())
            .toList(),
        message.getLeftOutList().stream()
            .map(left -> new Comparison.LeftOutModel(left.getModel(), left.getReason())).toList(),
        message.getModelsList().stream().map(CardReading::model).toList(),
        imageSize(message.getImageSize()),
        timings(message.getTimings()),
        annotatedImage(message.hasAnnotatedImage(), message.getAnnotatedImage()));
  }

  /** Returns an answer of a stream; empty for its summary. */
  static Optional<StreamedAnswer> streamedAnswer(Vision.CompareStreamResponse event) {
    if (!event.hasAnswer()) {
      return Optional.empty();
    }
    return task(event.getAnswer().getTask())
        .map(task -> new StreamedAnswer(task, answer(event.getAnswer().getAnswer())));
  }

  /** Returns a task; empty for one that is newer than this client. */
  static Optional<Task> task(Vision.Task value) {
    return switch (value) {
      case TASK_CLASSIFICATION -> Optional.of(Task.CLASSIFICATION);
      case TASK_OBJECT_DETECTION -> Optional.of(Task.DETECTION);
      default -> Optional.empty();
    };
  }

  private static Comparison.TaskComparison comparison(Task task, Vision.TaskComparison message) {
    return new Comparison.TaskComparison(
        task,
        message.getBaseline(),
        message.getAnswersList().stream().map(Reading::answer).toList(),
        message.getNothingToCompare());
  }

  private static ModelAnswer answer(Vision.ModelAnswer message) {
    return new ModelAnswer(
        servedBy(message.getServedBy()),
        Status.fromCodeValue(message.getStatus().getCode()).getCode(),
        message.getStatus().getMessage(),
        classifications(message.getClassificationsList()),
        detections(message.getDetectionsList()),
        message.hasTimings() ? Optional.of(timings(message.getTimings())) : Optional.empty(),
        switch (message.getAgreementCase()) {
          case CLASSIFICATION_AGREEMENT ->
              Optional.of(agreement(message.getClassificationAgreement()));
          case DETECTION_AGREEMENT -> Optional.of(agreement(message.getDetectionAgreement()));
          case AGREEMENT_NOT_SET -> Optional.empty();
        },
        heatMap(message.hasHeatMap(), message.getHeatMap()));
  }

  private static ModelAnswer.LabelAgreement agreement(Vision.ClassificationAgreement message) {
    return new ModelAnswer.LabelAgreement(
        message.getSameTop1(),
        message.getTopKOverlap(),
        number(message.hasJensenShannonDivergence(), message.getJensenShannonDivergence()),
        message.getUnknownHere(),
        message.getUnknownInBaseline());
  }

  private static ModelAnswer.BoxAgreement agreement(Vision.DetectionAgreement message) {
    return new ModelAnswer.BoxAgreement(
        message.getMatched(),
        message.getOnlyHere(),
        message.getOnlyInBaseline(),
        number(message.hasMeanIou(), message.getMeanIou()),
        number(message.hasMeanScoreDifference(), message.getMeanScoreDifference()),
        message.getF1(),
        message.getMatchesList().stream()
            .map(m -> new ModelAnswer.Match(m.getIndex(), m.getBaselineIndex(), m.getIou()))
            .toList(),
        message.getUnknownHere(),
        message.getUnknownInBaseline());
  }

  private static List<Classification> classifications(List<Vision.Classification> messages) {
    return messages.stream()
        .map(item -> new Classification(item.getClassId(), item.getLabel(), item.getScore()))
        .toList();
  }

  private static List<Detection> detections(List<Vision.Detection> messages) {
    return messages.stream().map(item -> {
      Vision.BoundingBox box = item.getBox();
      return new Detection(
          new Box(box.getXMin(), box.getYMin(), box.getXMax(), box.getYMax()),
          item.getClassId(), item.getLabel(), item.getScore());
    }).toList();
  }

  private static ServedBy servedBy(Vision.ServedBy message) {
    return new ServedBy(
        message.getModel(), message.getVersion(), message.getPrecision(),
        message.getExecutionProvider(), message.getRandomWeights());
  }

  private static Timings timings(Vision.Timings message) {
    return new Timings(
        message.getQueueMs(), message.getDecodeMs(), message.getPreprocessMs(),
        message.getInferenceMs(), message.getPostprocessMs(), message.getTotalMs());
  }

  private static ImageSize imageSize(Vision.ImageSize message) {
    return new ImageSize(message.getWidth(), message.getHeight());
  }

  private static Optional<AnnotatedImage> annotatedImage(
      boolean present, Vision.AnnotatedImage message) {
    return present
        ? Optional.of(new AnnotatedImage(
            message.getEncoded().toByteArray(), message.getMediaType(),
            imageSize(message.getSize())))
        : Optional.empty();
  }

  private static Optional<HeatMap> heatMap(boolean present, Vision.HeatMap message) {
    if (!present) {
      return Optional.empty();
    }
    float[] values = new float[message.getValuesCount()];
    for (int i = 0; i < values.length; i++) {
      values[i] = message.getValues(i);
    }
    Vision.HeatMapArea area = message.getArea();
    return Optional.of(new HeatMap(
        message.getClassId(), message.getLabel(), message.getWidth(), message.getHeight(), values,
        message.getMin(), message.getMax(),
        new Box(area.getXMin(), area.getYMin(), area.getXMax(), area.getYMax())));
  }

  static OptionalDouble number(boolean present, double value) {
    return present ? OptionalDouble.of(value) : OptionalDouble.empty();
  }
}
