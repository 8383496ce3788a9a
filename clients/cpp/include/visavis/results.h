#pragma once

#include <optional>
#include <string>
#include <vector>

#include "visavis/cards.h"
#include "visavis/errors.h"

namespace visavis {

/// Size of an upright picture in pixels.
struct ImageSize {
  int width = 0;
  int height = 0;
};

/// A rectangle in pixels of the upright picture; (0, 0) is its top left corner.
struct Box {
  float x_min = 0;
  float y_min = 0;
  float x_max = 0;
  float y_max = 0;
};

/// One label for the whole picture.
struct Classification {
  int class_id = 0;
  std::string label;
  float score = 0;  ///< Probability. Range [0, 1].
};

/// One object found in a picture.
struct Detection {
  Box box;
  int class_id = 0;
  std::string label;
  float score = 0;  ///< Probability. Range [0, 1].
};

/// The model and the session that answered.
struct ServedBy {
  std::string model;
  int version = 0;
  std::string precision;
  std::string execution_provider;
  bool random_weights = false;  ///< True if the answer is meaningless.
};

/// Durations of the stages of a request, in milliseconds.
struct Timings {
  double queue_ms = 0;
  double decode_ms = 0;
  double preprocess_ms = 0;
  double inference_ms = 0;
  double postprocess_ms = 0;
  double total_ms = 0;
};

/// A file with the answer drawn on the picture, which the server shrinks to its limit.
struct AnnotatedImage {
  std::string encoded;
  std::string media_type;
  ImageSize size;
};

/// How much each cell of a grid over a part of the picture speaks for a label.
struct HeatMap {
  int class_id = 0;
  std::string label;
  int width = 0;   ///< Number of columns.
  int height = 0;  ///< Number of rows.
  /// One value for each cell, row by row, from the top. Classifiers: the class activation map, of
  /// any range. Detectors: scores in [0, 1].
  std::vector<float> values;
  float min = 0;  ///< The smallest value.
  float max = 0;  ///< The largest value.
  /// The part of the picture that the cells cover; may exceed the picture by a part of a cell.
  Box area;
};

/// One model's labels, highest score first.
struct ClassifyResult {
  std::vector<Classification> classifications;
  ServedBy served_by;
  Timings timings;
  ImageSize image_size;
  std::optional<AnnotatedImage> annotated_image;
  std::optional<HeatMap> heat_map;  ///< Absent unless it was asked for.
};

/// The objects that one model found, highest score first.
struct DetectResult {
  std::vector<Detection> detections;
  ServedBy served_by;
  Timings timings;
  ImageSize image_size;
  std::optional<AnnotatedImage> annotated_image;
  std::optional<HeatMap> heat_map;  ///< Absent unless it was asked for.
};

/// How far two classifiers agree.
struct ClassificationAgreement {
  bool same_top1 = false;
  double top_k_overlap = 0;                         ///< Range [0, 1].
  std::optional<double> jensen_shannon_divergence;  ///< Absent if the label sets differ.
  /// Number of this model's top k labels that the baseline lacks; they are left out.
  int unknown_here = 0;
  /// Number of the baseline's top k labels that this model lacks; they are left out.
  int unknown_in_baseline = 0;
};

/// A pair of detections: their indexes in this answer and in the baseline's.
struct DetectionMatch {
  int index = 0;
  int baseline_index = 0;
  double iou = 0;
};

/// How far two detectors agree. The means are absent if there are no pairs.
struct DetectionAgreement {
  int matched = 0;
  int only_here = 0;
  int only_in_baseline = 0;
  std::optional<double> mean_iou;
  std::optional<double> mean_score_difference;
  double f1 = 0;  ///< Range [0, 1].
  std::vector<DetectionMatch> matches;
  /// Number of this model's detections whose label the baseline lacks; they are left out.
  int unknown_here = 0;
  /// Number of the baseline's detections whose label this model lacks; they are left out.
  int unknown_in_baseline = 0;
};

/// One model's answer, or the reason that it has none.
struct ModelAnswer {
  ServedBy served_by;
  Code code = Code::kOk;
  std::string message;  ///< Why the model did not answer; empty if code is kOk.
  std::vector<Classification> classifications;
  std::vector<Detection> detections;
  std::optional<Timings> timings;
  /// Agreement with the baseline's answer. Absent for the baseline itself, if one of the two has no
  /// answer, and in a stream, whose summary has it.
  std::optional<ClassificationAgreement> classification_agreement;
  std::optional<DetectionAgreement> detection_agreement;
  /// Absent unless it was asked for, and if code is not kOk.
  std::optional<HeatMap> heat_map;
};

/// The answers for one task.
struct TaskComparison {
  Task task = Task::kClassification;
  std::string baseline;
  std::vector<ModelAnswer> answers;
  std::string nothing_to_compare;  ///< Why nothing is compared; empty if something is.
};

/// A model that a comparison did not run, and the reason.
struct LeftOutModel {
  std::string model;
  std::string reason;
};

/// The answers of all models, side by side.
struct Comparison {
  std::vector<TaskComparison> tasks;
  std::vector<LeftOutModel> left_out;
  std::vector<Model> models;
  ImageSize image_size;
  Timings timings;
  /// The answers side by side. Absent unless annotate or annotate_difference was true.
  std::optional<AnnotatedImage> annotated_image;
};

/// One model's answer in a stream.
struct StreamedAnswer {
  Task task = Task::kClassification;
  ModelAnswer answer;
};

}  // namespace visavis
