#pragma once

#include <optional>
#include <string>
#include <vector>

#include "visavis/cards.h"
#include "visavis/errors.h"

namespace visavis {

/// Size of an upright picture in pixels.
struct ImageSize {
  int width = 0;   ///< Number of columns.
  int height = 0;  ///< Number of rows.
};

/// A rectangle in pixels of the upright picture; (0, 0) is its top left corner.
struct Box {
  float x_min = 0;  ///< Left edge.
  float y_min = 0;  ///< Top edge.
  float x_max = 0;  ///< Right edge.
  float y_max = 0;  ///< Bottom edge.
};

/// One label for the whole picture.
struct Classification {
  int class_id = 0;   ///< Index in the model's label set.
  std::string label;  ///< Name of the label.
  float score = 0;    ///< Probability. Range [0, 1].
};

/// One object found in a picture.
struct Detection {
  Box box;            ///< Where the object is.
  int class_id = 0;   ///< Index in the model's label set.
  std::string label;  ///< Name of the label.
  float score = 0;    ///< Probability. Range [0, 1].
};

/// The model and the session that answered.
struct ServedBy {
  std::string model;               ///< Name of the model.
  int version = 0;                 ///< Version of the model.
  std::string precision;           ///< Number format of the weights: fp32, fp16 or int8.
  std::string execution_provider;  ///< ONNX Runtime's name, such as CPUExecutionProvider.
  bool random_weights = false;     ///< True if the answer is meaningless.
};

/// Durations of the stages of a request, in milliseconds.
struct Timings {
  double queue_ms = 0;  ///< Waiting in the queue.
  /// Decoding the picture; 0 in the answers of a comparison, which decodes once.
  double decode_ms = 0;
  double preprocess_ms = 0;   ///< Converting pixels to the model's input.
  double inference_ms = 0;    ///< Running the session.
  double postprocess_ms = 0;  ///< Converting the model's output to labels or boxes.
  double total_ms = 0;        ///< The whole time, from the arrival of the request to the answer.
};

/// A file with the answer drawn on the picture, which the server shrinks to its limit.
struct AnnotatedImage {
  /// The content of the file.
  std::string encoded;
  /// Such as image/jpeg.
  std::string media_type;
  /// Smaller than the picture if the file would exceed the server's limit.
  ImageSize size;
};

/// How much each cell of a grid over a part of the picture speaks for a label.
struct HeatMap {
  int class_id = 0;   ///< Index of the label in the model's label set.
  std::string label;  ///< Name of the label.
  int width = 0;      ///< Number of columns.
  int height = 0;     ///< Number of rows.
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
  std::vector<Classification> classifications;    ///< Highest score first.
  ServedBy served_by;                             ///< The model that answered.
  Timings timings;                                ///< Time spent in each stage.
  ImageSize image_size;                           ///< Size of the upright picture.
  std::optional<AnnotatedImage> annotated_image;  ///< Absent unless annotate was true.
  std::optional<HeatMap> heat_map;                ///< Absent unless it was asked for.
};

/// The objects that one model found, highest score first.
struct DetectResult {
  std::vector<Detection> detections;              ///< Highest score first.
  ServedBy served_by;                             ///< The model that answered.
  Timings timings;                                ///< Time spent in each stage.
  ImageSize image_size;                           ///< Size of the upright picture.
  std::optional<AnnotatedImage> annotated_image;  ///< Absent unless annotate was true.
  std::optional<HeatMap> heat_map;                ///< Absent unless it was asked for.
};

/// How far two classifiers agree.
struct ClassificationAgreement {
  bool same_top1 = false;  ///< True if both rank the same label first.
  /// Fraction of the top k labels that both share, in any order. Range [0, 1].
  double top_k_overlap = 0;
  /// That of the two distributions, in bits. Range [0, 1]; absent if the label sets differ.
  std::optional<double> jensen_shannon_divergence;
  /// Number of this model's top k labels that the baseline lacks; they are left out.
  int unknown_here = 0;
  /// Number of the baseline's top k labels that this model lacks; they are left out.
  int unknown_in_baseline = 0;
};

/// A pair of detections: their indexes in this answer and in the baseline's.
struct DetectionMatch {
  int index = 0;           ///< Index in this answer's detections.
  int baseline_index = 0;  ///< Index in the baseline's detections.
  double iou = 0;          ///< Intersection over union of the two boxes. Range [0.5, 1].
};

/// How far two detectors agree. The means are absent if there are no pairs.
struct DetectionAgreement {
  /// Number of matched pairs.
  int matched = 0;
  /// Number of this model's detections without a match.
  int only_here = 0;
  /// Number of the baseline's detections without a match.
  int only_in_baseline = 0;
  /// Mean IoU of the pairs.
  std::optional<double> mean_iou;
  /// Mean absolute difference of the pairs' scores.
  std::optional<double> mean_score_difference;
  /// 2 * matched / (detections of both). Range [0, 1]; 1 if neither has detections.
  double f1 = 0;
  std::vector<DetectionMatch> matches;  ///< The pairs, highest IoU first.
  /// Number of this model's detections whose label the baseline lacks; they are left out.
  int unknown_here = 0;
  /// Number of the baseline's detections whose label this model lacks; they are left out.
  int unknown_in_baseline = 0;
};

/// One model's answer, or the reason that it has none.
struct ModelAnswer {
  /// The model that answered.
  ServedBy served_by;
  /// kOk if the model answered.
  Code code = Code::kOk;
  /// Why the model did not answer; empty if code is kOk.
  std::string message;
  /// Highest score first. Empty for detectors.
  std::vector<Classification> classifications;
  /// Highest score first. Empty for classifiers.
  std::vector<Detection> detections;
  /// Absent if code is not kOk.
  std::optional<Timings> timings;
  /// Agreement with the baseline's answer. Absent for the baseline itself, if one of the two has no
  /// answer, and in a stream, whose summary has it.
  std::optional<ClassificationAgreement> classification_agreement;
  std::optional<DetectionAgreement> detection_agreement;  ///< As for classifiers.
  /// Absent unless it was asked for, and if code is not kOk.
  std::optional<HeatMap> heat_map;
};

/// The answers for one task.
struct TaskComparison {
  Task task = Task::kClassification;  ///< The task.
  std::string baseline;               ///< Name of the model that the others are compared with.
  std::vector<ModelAnswer> answers;   ///< One for each model.
  std::string nothing_to_compare;     ///< Why nothing is compared; empty if something is.
};

/// A model that a comparison did not run, and the reason.
struct LeftOutModel {
  std::string model;   ///< Its name.
  std::string reason;  ///< The reason, as a sentence.
};

/// The answers of all models, side by side.
struct Comparison {
  /// One for each task that has a capable model.
  std::vector<TaskComparison> tasks;
  /// Models that were not run.
  std::vector<LeftOutModel> left_out;
  /// Cards of those that were run, without labels and receipts.
  std::vector<Model> models;
  /// Size of the upright picture.
  ImageSize image_size;
  /// Time spent in each stage.
  Timings timings;
  /// The answers side by side. Absent unless annotate or annotate_difference was true.
  std::optional<AnnotatedImage> annotated_image;
};

/// One model's answer in a stream.
struct StreamedAnswer {
  Task task = Task::kClassification;  ///< The task.
  ModelAnswer answer;                 ///< The answer, without its agreement.
};

}  // namespace visavis
