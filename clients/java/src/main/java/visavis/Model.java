package visavis;

import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;

/**
 * A model's card. The contract, {@code protos/visavis/v1/vision.proto}, documents each field. An empty
 * string is unknown.
 *
 * @param name name in the repository
 * @param version the version that this card describes
 * @param versions all versions that can be requested, ascending
 * @param tasks what the model can do
 * @param precision number format of the weights: fp32, fp16 or int8
 * @param variantOf the model whose weights this model has in another precision
 * @param executionProvider ONNX Runtime's name of what runs the model
 * @param randomWeights true if the weights are random, which makes the answers meaningless
 * @param facts facts to compare models by
 * @param labelSet the classes that the model knows
 * @param input how a picture is converted to the model's input
 * @param detectionDefaults values for requests that set none; empty for classifiers
 * @param provenance origin of the file
 * @param verification checks that passed when the model was loaded
 * @param receipt differences to the PyTorch original; empty in lists
 * @param accuracy accuracy on labelled pictures, if it was measured
 */
public record Model(
    String name, int version, List<Integer> versions, List<Task> tasks, String precision,
    String variantOf, String executionProvider, boolean randomWeights, Facts facts,
    LabelSet labelSet, Input input, Optional<DetectionDefaults> detectionDefaults,
    Provenance provenance, Verification verification, Optional<Receipt> receipt,
    Optional<Accuracy> accuracy) {
  /**
   * Facts to compare models by.
   *
   * @param architecture such as ResNet-50
   * @param organization publisher
   * @param category field of application
   * @param modality input and output
   * @param releaseDate YYYY, YYYY-MM or YYYY-MM-DD
   * @param contextWindow longest input in tokens, if that applies
   * @param parameterCount number of trained parameters; 0: unknown
   * @param codeLicense licence of the architecture's code
   * @param weightsLicense licence of the weights
   * @param realTime whether its authors present it as a real-time model, if known
   * @param sources source of each fact, by field name
   */
  public record Facts(
      String architecture, String organization, String category, String modality,
      String releaseDate, OptionalInt contextWindow, long parameterCount, String codeLicense,
      String weightsLicense, Optional<Boolean> realTime, Map<String, String> sources) {}

  /**
   * A named list of classes.
   *
   * @param name such as imagenet-1k
   * @param size number of labels
   * @param labels labels by class id; empty in lists
   */
  public record LabelSet(String name, int size, List<String> labels) {}

  /**
   * How a picture is converted to a model's input.
   *
   * @param width in pixels
   * @param height in pixels
   * @param resize the resize rule, as a sentence
   */
  public record Input(int width, int height, String resize) {}

  /**
   * Values for requests that set none.
   *
   * @param scoreThreshold range [0, 1]
   * @param iouThreshold range [0, 1]
   * @param maxDetections maximum number of detections
   */
  public record DetectionDefaults(float scoreThreshold, float iouThreshold, int maxDetections) {}

  /**
   * Origin of a model file.
   *
   * @param weightsSource a URL, a file name, or "random"
   * @param weightsSha256 of the weights file
   * @param exporter program that wrote the file
   * @param exportedAt time in UTC, as in RFC 3339
   * @param libraries versions of the libraries used, by name
   * @param conversion how the weights were converted, as a sentence
   */
  public record Provenance(
      String weightsSource, String weightsSha256, String exporter, String exportedAt,
      Map<String, String> libraries, String conversion) {}

  /**
   * Checks that passed when the model was loaded.
   *
   * @param digest true if the file has a digest, and it matched
   * @param goldenSample true if the file has a golden sample, and it gave the expected output
   */
  public record Verification(boolean digest, boolean goldenSample) {}

  /**
   * The differences between a file and its PyTorch original.
   *
   * @param madeAt time in UTC, as in RFC 3339
   * @param scoreTolerance largest allowed difference of two scores; 0: no limit
   * @param boxTolerancePx largest allowed difference of two box edges; 0: no limit
   * @param heatMapTolerance largest allowed difference of two heat maps; 0: no limit, or none were
   *     compared
   * @param maxScoreDifference largest measured difference of two scores
   * @param maxBoxDifferencePx largest measured difference of two box edges; empty for classifiers
   * @param maxHeatMapDifference largest measured difference of two heat maps; empty: none were
   *     compared
   * @param rows comparison of the candidates before suppression; empty for classifiers
   * @param pictures one entry per picture
   */
  public record Receipt(
      String madeAt, double scoreTolerance, double boxTolerancePx, double heatMapTolerance,
      double maxScoreDifference, OptionalDouble maxBoxDifferencePx,
      OptionalDouble maxHeatMapDifference, Optional<RowComparison> rows,
      List<ReceiptPicture> pictures) {}

  /**
   * A detector's candidates before suppression, compared row by row.
   *
   * @param count number of candidates compared
   * @param maxScoreDifference largest difference of two scores
   * @param maxBoxDifferencePx largest difference of two box edges, in pixels of the input
   */
  public record RowComparison(long count, double maxScoreDifference, double maxBoxDifferencePx) {}

  /**
   * The comparison on one picture.
   *
   * @param name name of the picture
   * @param width in pixels
   * @param height in pixels
   * @param scoreThreshold at which the detections were compared; empty for classifiers
   * @param compared number of labels or detections compared
   * @param excused number of differences excused near a tie or a threshold
   * @param maxScoreDifference largest difference of two scores
   * @param maxBoxDifferencePx largest difference of two box edges; empty for classifiers
   * @param maxHeatMapDifference largest difference of the heat maps; empty: none were compared
   * @param sameTop1 whether the best label equals the original's; empty for detectors
   * @param onlyHere number of detections without a counterpart in the original's answer
   * @param onlyInOriginal number of the original's detections without a counterpart
   */
  public record ReceiptPicture(
      String name, int width, int height, OptionalDouble scoreThreshold, int compared, int excused,
      double maxScoreDifference, OptionalDouble maxBoxDifferencePx,
      OptionalDouble maxHeatMapDifference, Optional<Boolean> sameTop1, int onlyHere,
      int onlyInOriginal) {}

  /**
   * Accuracy on labelled pictures.
   *
   * @param metric "top-1" or "mAP50-95"
   * @param value accuracy of the file; range [0, 1]
   * @param original accuracy of the PyTorch original; range [0, 1]
   * @param pictures number of pictures
   * @param source description of the pictures
   * @param heldOut true if none of the pictures was used to convert the weights
   * @param error standard error of the difference between the two
   */
  public record Accuracy(
      String metric, double value, double original, int pictures, String source, boolean heldOut,
      double error) {}
}
