package visavis;

import visavis.v1.Vision.DetectRequest;

/** Options of {@link VisavisClient#detect}. */
public final class DetectOptions extends DetectorOptions {
  private final Integer version;

  private DetectOptions(Builder builder) {
    super(builder);
    this.version = builder.version;
  }

  /** Returns a builder without any option. */
  public static Builder builder() {
    return new Builder();
  }

  DetectRequest request(Picture picture, String model) {
    var request = DetectRequest.newBuilder()
        .setImage(picture.message)
        .setModel(model)
        .addAllLabels(labels)
        .setClassAgnostic(classAgnostic)
        .setAnnotate(annotate);
    if (version != null) {
      request.setVersion(version);
    }
    if (scoreThreshold != null) {
      request.setScoreThreshold(scoreThreshold);
    }
    if (iouThreshold != null) {
      request.setIouThreshold(iouThreshold);
    }
    if (maxDetections != null) {
      request.setMaxDetections(maxDetections);
    }
    if (explain != null) {
      request.setExplain(explain);
    }
    return request.build();
  }

  /** Builds options. */
  public static final class Builder extends DetectorOptions.Builder<Builder> {
    private Integer version;

    private Builder() {}

    /** Selects a version of the model, 1 or above. By default the highest answers. */
    public Builder version(int version) {
      this.version = version;
      return this;
    }

    @Override
    public DetectOptions build() {
      return new DetectOptions(this);
    }
  }
}
