package visavis;

import java.util.List;
import visavis.v1.Vision.Explain;

/** Options of detectors. The server chooses the value of any that is not set. */
public abstract class DetectorOptions extends RequestOptions {
  final Float scoreThreshold;
  final Float iouThreshold;
  final Integer maxDetections;
  final List<String> labels;
  final boolean classAgnostic;
  final boolean annotate;
  final Explain explain;

  DetectorOptions(Builder<?> builder) {
    super(builder);
    this.scoreThreshold = builder.scoreThreshold;
    this.iouThreshold = builder.iouThreshold;
    this.maxDetections = builder.maxDetections;
    this.labels = builder.labels;
    this.classAgnostic = builder.classAgnostic;
    this.annotate = builder.annotate;
    this.explain = builder.explain;
  }

  /**
   * Builds options.
   *
   * @param <B> the builder itself
   */
  public abstract static class Builder<B extends Builder<B>> extends RequestOptions.Builder<B> {
    private Float scoreThreshold;
    private Float iouThreshold;
    private Integer maxDetections;
    private List<String> labels = List.of();
    private boolean classAgnostic;
    private boolean annotate;
    private Explain explain;

    Builder() {}

    /** Keeps detections with a score above this. Range [0, 1]. */
    public B scoreThreshold(double score) {
      this.scoreThreshold = (float) score;
      return self();
    }

    /** Drops the lower-scored of two boxes whose IoU exceeds this. Range [0, 1]. */
    public B iouThreshold(double iou) {
      this.iouThreshold = (float) iou;
      return self();
    }

    /** Limits the number of detections. Range [1, 1000]. */
    public B maxDetections(int most) {
      this.maxDetections = most;
      return self();
    }

    /** Keeps detections with one of these labels. */
    public B labels(String... labels) {
      this.labels = List.of(labels);
      return self();
    }

    /** Lets boxes of different labels suppress each other. */
    public B classAgnostic() {
      this.classAgnostic = true;
      return self();
    }

    /** Asks for the picture with the boxes drawn on it. */
    public B annotate() {
      this.annotate = true;
      return self();
    }

    /** Asks for a heat map of the best label. A model that can't give one refuses. */
    public B explain() {
      this.explain = Explain.getDefaultInstance();
      return self();
    }

    /** Asks for a heat map of a label, which the model must have. */
    public B explain(String label) {
      this.explain = Explain.newBuilder().setLabel(label).build();
      return self();
    }

    @Override
    public abstract DetectorOptions build();
  }
}
