package visavis;

import grpc.health.v1.HealthOuterClass.HealthCheckResponse.ServingStatus;
import io.grpc.Status;
import java.util.List;
import visavis.v1.Vision.*;

/** The scenario's output: a record for each line and for the objects in it. */
final class Lines {
  private Lines() {}

  record Health(String step, ServingStatus status) {}

  record Cards(String step, List<Card> models) {}

  record Card(String name, String task, String precision, boolean randomWeights) {
    static Card of(Model model) {
      String task = taskName(model.getTasks(0));
      return new Card(model.getName(), task, model.getPrecision(), model.getRandomWeights());
    }
  }

  record Labels(String step, String model, List<Label> labels) {}

  record Label(String label, double score) {
    static Label of(Classification found) {
      return new Label(found.getLabel(), rounded(found.getScore(), 4));
    }
  }

  record Boxes(String step, String model, List<Box> detections) {}

  record Box(String label, double score, List<Double> box) {
    static Box of(Detection found) {
      BoundingBox box = found.getBox();
      List<Double> edges = List.of(
          rounded(box.getXMin(), 1), rounded(box.getYMin(), 1),
          rounded(box.getXMax(), 1), rounded(box.getYMax(), 1));
      return new Box(found.getLabel(), rounded(found.getScore(), 4), edges);
    }
  }

  record Arrived(String step, String arrived, int answers) {
    static Arrived of(ModelAnswer answer) {
      int answers = answer.getClassificationsCount() + answer.getDetectionsCount();
      return new Arrived("compare", answer.getServedBy().getModel(), answers);
    }
  }

  /** agreement: null for the baseline itself, and if there is no agreement. */
  record Compared(String step, String task, String model, Record agreement) {
    static Compared of(Task task, ModelAnswer answer) {
      Record agreement = switch (answer.getAgreementCase()) {
        case CLASSIFICATION_AGREEMENT -> SameLabels.of(answer.getClassificationAgreement());
        case DETECTION_AGREEMENT -> SameBoxes.of(answer.getDetectionAgreement());
        case AGREEMENT_NOT_SET -> null;
      };
      return new Compared("compare", taskName(task), answer.getServedBy().getModel(), agreement);
    }
  }

  record SameLabels(boolean sameTop1, double topKOverlap) {
    static SameLabels of(ClassificationAgreement with) {
      return new SameLabels(with.getSameTop1(), rounded(with.getTopKOverlap(), 4));
    }
  }

  record SameBoxes(int matched, int onlyHere, int onlyInBaseline, double f1) {
    static SameBoxes of(DetectionAgreement with) {
      return new SameBoxes(
          with.getMatched(), with.getOnlyHere(), with.getOnlyInBaseline(),
          rounded(with.getF1(), 4));
    }
  }

  record Late(String step, Status.Code code) {}

  record Refused(String step, Status.Code code, String field, String requestId) {}

  record Tls(String step, int models, Status.Code withoutToken) {}

  private static String taskName(Task task) {
    return switch (task) {
      case TASK_CLASSIFICATION -> "classification";
      case TASK_OBJECT_DETECTION -> "object detection";
      default -> task.name();
    };
  }

  private static double rounded(double value, int decimals) {
    double scale = Math.pow(10, decimals);
    return Math.round(value * scale) / scale;
  }
}
