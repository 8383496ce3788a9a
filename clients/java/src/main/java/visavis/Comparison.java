package visavis;

import java.util.List;
import java.util.Optional;

/**
 * The answers of all models, side by side.
 *
 * @param tasks one entry for each task that has a capable model
 * @param leftOut models that were not run
 * @param models cards of those that were run, without labels and receipts
 * @param imageSize size of the upright picture, in whose pixels the boxes are
 * @param timings time spent on the whole comparison
 * @param annotatedImage the answers drawn side by side, if that was requested
 */
public record Comparison(
    List<TaskComparison> tasks, List<LeftOutModel> leftOut, List<Model> models, ImageSize imageSize,
    Timings timings, Optional<AnnotatedImage> annotatedImage) {
  /**
   * The answers for one task.
   *
   * @param task the task
   * @param baseline name of the model that the others are compared with
   * @param answers one per model
   * @param nothingToCompare why nothing is compared; empty if something is
   */
  public record TaskComparison(
      Task task, String baseline, List<ModelAnswer> answers, String nothingToCompare) {}

  /**
   * A model that was not run.
   *
   * @param model its name
   * @param reason why
   */
  public record LeftOutModel(String model, String reason) {}
}
