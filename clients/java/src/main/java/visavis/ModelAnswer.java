package visavis;

import io.grpc.Status;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;

/**
 * One model's answer, or the reason that it has none.
 *
 * @param servedBy the model
 * @param code OK if the model answered
 * @param message why it did not; empty if it did
 * @param classifications labels, highest score first; empty for detectors
 * @param detections objects, highest score first; empty for classifiers
 * @param timings time spent in each stage, if the model answered
 * @param agreement agreement with the baseline's answer; empty for the baseline itself, if one of the
 *     two has no answer, and in a stream, whose summary has it
 * @param heatMap the heat map, if it was asked for and the model answered
 */
public record ModelAnswer(
    ServedBy servedBy, Status.Code code, String message, List<Classification> classifications,
    List<Detection> detections, Optional<Timings> timings, Optional<Agreement> agreement,
    Optional<HeatMap> heatMap) {
  /** How far two models agree: a {@link LabelAgreement} or a {@link BoxAgreement}. */
  public sealed interface Agreement permits LabelAgreement, BoxAgreement {}

  /**
   * How far two classifiers agree.
   *
   * @param sameTop1 true if both rank the same label first
   * @param topKOverlap fraction of the top k labels that both share; range [0, 1]
   * @param jensenShannonDivergence of the two distributions, in bits; empty if the label sets differ
   * @param unknownHere number of this model's top k labels that the baseline lacks; they are left out
   * @param unknownInBaseline number of the baseline's that this model lacks; they are left out
   */
  public record LabelAgreement(
      boolean sameTop1, double topKOverlap, OptionalDouble jensenShannonDivergence,
      int unknownHere, int unknownInBaseline)
      implements Agreement {}

  /**
   * How far two detectors agree.
   *
   * @param matched number of pairs
   * @param onlyHere number of this model's other detections
   * @param onlyInBaseline number of the baseline's other detections
   * @param meanIou mean IoU of the pairs, if there are any
   * @param meanScoreDifference mean difference of their scores, if there are any
   * @param f1 range [0, 1]; 1 if neither has detections
   * @param matches the pairs, highest IoU first
   * @param unknownHere number of this model's detections whose label the baseline lacks; they are
   *     left out
   * @param unknownInBaseline number of the baseline's whose label this model lacks; they are left out
   */
  public record BoxAgreement(
      int matched, int onlyHere, int onlyInBaseline, OptionalDouble meanIou,
      OptionalDouble meanScoreDifference, double f1, List<Match> matches,
      int unknownHere, int unknownInBaseline)
      implements Agreement {}

  /**
   * A pair of detections.
   *
   * @param index index in this answer
   * @param baselineIndex index in the baseline's answer
   * @param iou intersection over union of the two boxes
   */
  public record Match(int index, int baselineIndex, double iou) {}
}
