package visavis;

import com.google.protobuf.InvalidProtocolBufferException;
import java.util.List;
import visavis.v1.Vision;
import visavis.v1.Vision.CompareRequest;
import visavis.v1.Vision.CompareStreamRequest;

/** Options of {@link VisavisClient#compare} and {@link VisavisClient#compareStream}. */
public final class CompareOptions extends DetectorOptions {
  private final List<Task> tasks;
  private final List<String> models;
  private final String baseline;
  private final Integer topK;
  private final boolean annotateDifference;

  private CompareOptions(Builder builder) {
    super(builder);
    this.tasks = builder.tasks;
    this.models = builder.models;
    this.baseline = builder.baseline;
    this.topK = builder.topK;
    this.annotateDifference = builder.annotateDifference;
  }

  /** Returns a builder without any option. */
  public static Builder builder() {
    return new Builder();
  }

  CompareRequest request(Picture picture) {
    return options().setImage(picture.message).build();
  }

  CompareStreamRequest streamRequest(Picture picture) {
    try {
      // Both requests have the same fields, as the contract says.
      return CompareStreamRequest.newBuilder()
          .mergeFrom(options().build().toByteString()).setImage(picture.message).build();
    } catch (InvalidProtocolBufferException error) {
      throw new AssertionError(error);
    }
  }

  private CompareRequest.Builder options() {
    var request = CompareRequest.newBuilder()
        .addAllModels(models)
        .addAllLabels(labels)
        .setClassAgnostic(classAgnostic)
        .setAnnotate(annotate)
        .setAnnotateDifference(annotateDifference);
    for (Task task : tasks) {
      request.addTasks(switch (task) {
        case CLASSIFICATION -> Vision.Task.TASK_CLASSIFICATION;
        case DETECTION -> Vision.Task.TASK_OBJECT_DETECTION;
      });
    }
    if (baseline != null) {
      request.setBaseline(baseline);
    }
    if (topK != null) {
      request.setTopK(topK);
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
    return request;
  }

  /** Builds options. */
  public static final class Builder extends DetectorOptions.Builder<Builder> {
    private List<Task> tasks = List.of();
    private List<String> models = List.of();
    private String baseline;
    private Integer topK;
    private boolean annotateDifference;

    private Builder() {}

    /** Limits the comparison to these tasks. */
    public Builder tasks(Task... tasks) {
      this.tasks = List.of(tasks);
      return this;
    }

    /** Limits the comparison to these models, each in its highest version. */
    public Builder models(String... names) {
      this.models = List.of(names);
      return this;
    }

    /** Names the model that the others are compared with. */
    public Builder baseline(String model) {
      this.baseline = model;
      return this;
    }

    /** Sets the number of labels that each classifier returns, 1 or above. */
    public Builder topK(int labels) {
      this.topK = labels;
      return this;
    }

    /**
     * Asks for the picture with all answers side by side, as {@link #annotate} does, with the boxes
     * in three colours: in both answers, only here, only in the baseline.
     */
    public Builder annotateDifference() {
      this.annotateDifference = true;
      return this;
    }

    @Override
    public CompareOptions build() {
      return new CompareOptions(this);
    }
  }
}
