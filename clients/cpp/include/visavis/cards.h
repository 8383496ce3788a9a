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
  std::string architecture;
  std::string organization;
  std::string category;
  std::string modality;
  std::string release_date;
  std::optional<int> context_window;
  std::int64_t parameter_count = 0;  ///< 0: unknown.
  std::string code_license;
  std::string weights_license;
  std::optional<bool> real_time;
  std::map<std::string, std::string> sources;
};

/// A named list of classes. Lists of models leave `labels` empty.
struct LabelSet {
  std::string name;
  int size = 0;
  std::vector<std::string> labels;
};

/// The size of a model's input in pixels, and how a picture is resized to it.
struct ModelInput {
  int width = 0;
  int height = 0;
  std::string resize;
};

/// Values for requests that set none.
struct DetectionDefaults {
  float score_threshold = 0;
  float iou_threshold = 0;
  int max_detections = 0;
};

/// Origin of a model file. An empty string is unknown.
struct Provenance {
  std::string weights_source;
  std::string weights_sha256;
  std::string exporter;
  std::string exported_at;
  std::map<std::string, std::string> libraries;
  std::string conversion;
};

/// Checks that passed when the model was loaded.
struct Verification {
  bool digest = false;
  bool golden_sample = false;
};

/// A detector's candidates before suppression, compared row by row.
struct RowComparison {
  std::int64_t count = 0;
  double max_score_difference = 0;
  double max_box_difference_px = 0;
};

/// The differences on one picture of a receipt.
struct ReceiptPicture {
  std::string name;
  int width = 0;
  int height = 0;
  std::optional<double> score_threshold;
  int compared = 0;
  int excused = 0;
  double max_score_difference = 0;
  std::optional<double> max_box_difference_px;
  std::optional<double> max_heat_map_difference;  ///< Absent: none were compared.
  std::optional<bool> same_top1;
  int only_here = 0;
  int only_in_original = 0;
};

/// The differences between a file and its PyTorch original; a tolerance of 0 is no limit.
struct Receipt {
  std::string made_at;
  double score_tolerance = 0;
  double box_tolerance_px = 0;
  double heat_map_tolerance = 0;
  double max_score_difference = 0;
  std::optional<double> max_box_difference_px;
  std::optional<double> max_heat_map_difference;  ///< Absent: none were compared.
  std::optional<RowComparison> rows;
  std::vector<ReceiptPicture> pictures;
};

/// Accuracy on labelled pictures, and that of the PyTorch original.
struct Accuracy {
  std::string metric;
  double value = 0;
  double original = 0;
  int pictures = 0;
  std::string source;
  bool held_out = false;
  double error = 0;  ///< Standard error of the difference between the two.
};

/// A model's card. protos/visavis/v1/vision.proto documents each field.
struct Model {
  std::string name;
  int version = 0;
  std::vector<int> versions;
  std::vector<Task> tasks;
  std::string precision;
  std::string variant_of;  ///< Empty: not a variant.
  std::string execution_provider;
  bool random_weights = false;
  ModelFacts facts;
  LabelSet label_set;
  ModelInput input;
  std::optional<DetectionDefaults> detection_defaults;
  Provenance provenance;
  Verification verification;
  std::optional<Receipt> receipt;  ///< Absent in lists.
  std::optional<Accuracy> accuracy;
};

}  // namespace visavis
