#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace visavis {

/// What a model can do with a picture.
enum class Task { kClassification = 1, kDetection = 2 };

/// Facts to compare models by; `sources` has the origin of each. An empty string is unknown.
struct ModelFacts {
  std::string architecture;           ///< Such as ResNet-50.
  std::string organization;           ///< Publisher of the model.
  std::string category;               ///< Availability: open, if weights and code are published.
  std::string modality;               ///< Kind of input, such as vision.
  std::string release_date;           ///< Date of first publication: YYYY, YYYY-MM or YYYY-MM-DD.
  std::optional<int> context_window;  ///< Longest input in tokens. Absent: does not apply.
  std::int64_t parameter_count = 0;   ///< Number of trained parameters. 0: unknown.
  std::string code_license;           ///< Licence of the original's code.
  std::string weights_license;        ///< Licence of the weights.
  /// True if its authors present it as a real-time model. Absent: unknown.
  std::optional<bool> real_time;
  std::map<std::string, std::string> sources;  ///< Source of each fact, by field name.
};

/// A named list of classes. Lists of models leave `labels` empty.
struct LabelSet {
  std::string name;                 ///< Name of the set, such as imagenet-1k.
  int size = 0;                     ///< Number of labels.
  std::vector<std::string> labels;  ///< Labels, by class id. Empty in lists.
};

/// The size of a model's input in pixels, and how a picture is resized to it.
struct ModelInput {
  int width = 0;       ///< In pixels; the largest, if it depends on the picture.
  int height = 0;      ///< In pixels; the largest, if it depends on the picture.
  std::string resize;  ///< The rule, as a sentence.
};

/// Values for requests that set none.
struct DetectionDefaults {
  float score_threshold = 0;  ///< Detections with a score above this are returned.
  float iou_threshold = 0;    ///< IoU above which non-maximum suppression drops a box.
  int max_detections = 0;     ///< Maximum number of detections.
};

/// Origin of a model file. An empty string is unknown.
struct Provenance {
  /// File or address of the weights.
  std::string weights_source;
  /// Digest of the weights.
  std::string weights_sha256;
  /// Program that made the file, with its version.
  std::string exporter;
  /// Time in UTC, as in RFC 3339.
  std::string exported_at;
  /// Versions of the libraries used, by name.
  std::map<std::string, std::string> libraries;
  /// How the weights were converted to another precision.
  std::string conversion;
};

/// Checks that passed when the model was loaded.
struct Verification {
  bool digest = false;  ///< True if the file has a digest, and it matched.
  /// True if the file has a golden sample, and it gave the expected output.
  bool golden_sample = false;
};

/// A detector's candidates before suppression, compared row by row.
struct RowComparison {
  std::int64_t count = 0;           ///< Number of candidates compared.
  double max_score_difference = 0;  ///< Largest difference of two scores.
  /// Largest difference of two box edges, in pixels of the input.
  double max_box_difference_px = 0;
};

/// The differences on one picture of a receipt.
struct ReceiptPicture {
  std::string name;  ///< Name of the picture.
  int width = 0;     ///< In pixels.
  int height = 0;    ///< In pixels.
  /// At which detections were compared. Absent for classifiers.
  std::optional<double> score_threshold;
  int compared = 0;                 ///< Number of labels or detections compared.
  int excused = 0;                  ///< Number of differences excused near a tie or a threshold.
  double max_score_difference = 0;  ///< Largest difference of two scores.
  /// Largest difference of two box edges. Absent for classifiers.
  std::optional<double> max_box_difference_px;
  /// Largest difference of two heat maps. Absent: none were compared.
  std::optional<double> max_heat_map_difference;
  /// True if the best label equals the original's. Absent for detectors.
  std::optional<bool> same_top1;
  /// Number of detections without a counterpart in the original's answer.
  int only_here = 0;
  /// Number of the original's detections without a counterpart.
  int only_in_original = 0;
};

/// The differences between a file and its PyTorch original; a tolerance of 0 is no limit.
struct Receipt {
  std::string made_at;              ///< Time in UTC, as in RFC 3339.
  double score_tolerance = 0;       ///< Largest allowed difference of two scores.
  double box_tolerance_px = 0;      ///< Largest allowed difference of two box edges.
  double heat_map_tolerance = 0;    ///< Largest allowed difference of two heat maps.
  double max_score_difference = 0;  ///< Largest measured difference of two scores.
  /// Largest measured difference of two box edges. Absent for classifiers.
  std::optional<double> max_box_difference_px;
  /// Largest measured difference of two heat maps. Absent: none were compared.
  std::optional<double> max_heat_map_difference;
  /// Comparison of the candidates before suppression. Absent for classifiers.
  std::optional<RowComparison> rows;
  std::vector<ReceiptPicture> pictures;  ///< One entry for each picture.
};

/// Accuracy on labelled pictures, and that of the PyTorch original.
struct Accuracy {
  std::string metric;     ///< top-1 or mAP50-95.
  double value = 0;       ///< Accuracy of the file. Range [0, 1].
  double original = 0;    ///< Accuracy of the PyTorch original. Range [0, 1].
  int pictures = 0;       ///< Number of pictures.
  std::string source;     ///< Description of the pictures.
  bool held_out = false;  ///< True if none of the pictures was used to convert the weights.
  double error = 0;       ///< Standard error of the difference between the two.
};

/// A model's card. protos/visavis/v1/vision.proto documents each field.
struct Model {
  std::string name;           ///< Name in the repository.
  int version = 0;            ///< The version that this card describes.
  std::vector<int> versions;  ///< All versions that can be requested, ascending.
  std::vector<Task> tasks;    ///< What the model can do.
  std::string precision;      ///< Number format of the weights: fp32, fp16 or int8.
  /// Name of the model whose weights this model has in another precision. Empty: none.
  std::string variant_of;
  std::string execution_provider;  ///< ONNX Runtime's name of what runs the model.
  /// True if the weights are random, which makes the answers meaningless.
  bool random_weights = false;
  /// Facts to compare models by.
  ModelFacts facts;
  /// The classes that the model knows.
  LabelSet label_set;
  /// How a picture is converted to the model's input.
  ModelInput input;
  /// Absent for classifiers.
  std::optional<DetectionDefaults> detection_defaults;
  /// Origin of the file.
  Provenance provenance;
  /// Checks that passed when the model was loaded.
  Verification verification;
  /// Absent in lists.
  std::optional<Receipt> receipt;
  /// Absent if it was not measured.
  std::optional<Accuracy> accuracy;
};

}  // namespace visavis
