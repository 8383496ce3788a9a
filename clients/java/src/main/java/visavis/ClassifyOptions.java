package visavis;

import visavis.v1.Vision.ClassifyRequest;
import visavis.v1.Vision.Explain;

/** Options of {@link VisavisClient#classify}. The server chooses the value of any that is not set. */
public final class ClassifyOptions extends RequestOptions {
  private final Integer version;
  private final Integer topK;
  private final boolean annotate;
  private final Explain explain;

  private ClassifyOptions(Builder builder) {
    super(builder);
    this.version = builder.version;
    this.topK = builder.topK;
    this.annotate = builder.annotate;
    this.explain = builder.explain;
  }

  /** Returns a builder without any option. */
  public static Builder builder() {
    return new Builder();
  }

  ClassifyRequest request(Picture picture, String model) {
    var request = ClassifyRequest.newBuilder()
        .setImage(picture.message).setModel(model).setAnnotate(annotate);
    if (version != null) {
      request.setVersion(version);
    }
    if (topK != null) {
      request.setTopK(topK);
    }
    if (explain != null) {
      request.setExplain(explain);
    }
    return request.build();
  }

  /** Builds options. */
  public static final class Builder extends RequestOptions.Builder<Builder> {
    private Integer version;
    private Integer topK;
    private boolean annotate;
    private Explain explain;

    private Builder() {}

    /** Selects a version of the model, 1 or above. By default the highest answers. */
    public Builder version(int version) {
      this.version = version;
      return this;
    }

    /** Sets the number of labels, 1 or above. */
    public Builder topK(int labels) {
      this.topK = labels;
      return this;
    }

    /** Asks for the picture with the labels drawn on it. */
    public Builder annotate() {
      this.annotate = true;
      return this;
    }

    /** Asks for a heat map of the best label. A model that can't give one refuses. */
    public Builder explain() {
      this.explain = Explain.getDefaultInstance();
      return this;
    }

    /** Asks for a heat map of a label, which the model must have. */
    public Builder explain(String label) {
      this.explain = Explain.newBuilder().setLabel(label).build();
      return this;
    }

    @Override
    public ClassifyOptions build() {
      return new ClassifyOptions(this);
    }
  }
}
