package scenario;

import io.grpc.Status;
import java.util.List;
import visavis.Box;
import visavis.Classification;
import visavis.Detection;
import visavis.Model;
import visavis.ModelAnswer;
import visavis.ModelAnswer.BoxAgreement;
import visavis.ModelAnswer.LabelAgreement;
import visavis.Task;

/** The scenario's output: a record for each line and for the objects in it. */
final class Lines {
  private Lines() {}

  record Health(String step, String status) {}

  record Cards(String step, List<Card> models) {}

  record Card(String name, String task, String precision, boolean randomWeights) {
    static Card of(Model model) {
      String task = taskName(model.tasks().get(0));
      return new Card(model.name(), task, model.precision(), model.randomWeights());
    }
  }

  record Labels(String step, String model, List<Label> labels) {}

  record Label(String label, double score) {
    static Label of(Classification found) {
      return new Label(found.label(), rounded(found.score(), 4));
    }
  }

  record Boxes(String step, String model, List<LabelledBox> detections) {}

  record LabelledBox(String label, double score, List<Double> box) {
    static LabelledBox of(Detection found) {
      Box box = found.box();
      List<Double> edges = List.of(
          rounded(box.xMin(), 1), rounded(box.yMin(), 1),
          rounded(box.xMax(), 1), rounded(box.yMax(), 1));
      return new LabelledBox(found.label(), rounded(found.score(), 4), edges);
    }
  }

  record Arrived(String step, String arrived, int answers) {
    static Arrived of(ModelAnswer answer) {
      int answers = answer.classifications().size() + answer.detections().size();
      return new Arrived("compare", answer.servedBy().model(), answers);
    }
  }

  /** agreement: null for the baseline itself, and if there is no agreement. */
  record Compared(String step, String task, String model, Record agreement) {
    static Compared of(Task task, ModelAnswer answer) {
      Record agreement = answer.agreement().map(with ->
          with instanceof LabelAgreement labels ? SameLabels.of(labels)
              : SameBoxes.of((BoxAgreement) with)).orElse(null);
      return new Compared("compare", taskName(task), answer.servedBy().model(), agreement);
    }
  }

  record SameLabels(boolean sameTop1, double topKOverlap) {
    static Record of(LabelAgreement with) {
      return new SameLabels(with.sameTop1(), rounded(with.topKOverlap(), 4));
    }
  }

  record SameBoxes(int matched, int onlyHere, int onlyInBaseline, double f1) {
    static Record of(BoxAgreement with) {
      return new SameBoxes(
          with.matched(), with.onlyHere(), with.onlyInBaseline(), rounded(with.f1(), 4));
    }
  }

  record Late(String step, Status.Code code) {}

  record Refused(String step, Status.Code code, String field, String requestId) {}

  record Tls(String step, int models, Status.Code withoutToken) {}

  private static String taskName(Task task) {
    return switch (task) {
      case CLASSIFICATION -> "classification";
      case DETECTION -> "object detection";
    };
  }

  private static double rounded(double value, int decimals) {
    double scale = Math.pow(10, decimals);
    return Math.round(value * scale) / scale;
  }
}
