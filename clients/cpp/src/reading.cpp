#include "reading.h"

namespace visavis {
namespace {

ServedBy ReadServedBy(const v1::ServedBy& message) {
  ServedBy served_by;
  served_by.model = message.model();
  served_by.version = message.version();
  served_by.precision = message.precision();
  served_by.execution_provider = message.execution_provider();
  served_by.random_weights = message.random_weights();
  return served_by;
}

Timings ReadTimings(const v1::Timings& message) {
  Timings timings;
  timings.queue_ms = message.queue_ms();
  timings.decode_ms = message.decode_ms();
  timings.preprocess_ms = message.preprocess_ms();
  timings.inference_ms = message.inference_ms();
  timings.postprocess_ms = message.postprocess_ms();
  timings.total_ms = message.total_ms();
  return timings;
}

ImageSize ReadImageSize(const v1::ImageSize& message) {
  return {message.width(), message.height()};
}

// The drawn picture of a response; absent if it has none.
template <typename Response>
std::optional<AnnotatedImage> ReadAnnotatedImage(const Response& response) {
  if (!response.has_annotated_image()) return std::nullopt;
  const v1::AnnotatedImage& image = response.annotated_image();
  return AnnotatedImage{image.encoded(), image.media_type(), ReadImageSize(image.size())};
}

// The heat map of a response or an answer; absent if it has none.
template <typename Message>
std::optional<HeatMap> ReadHeatMap(const Message& message) {
  if (!message.has_heat_map()) return std::nullopt;
  const v1::HeatMap& map = message.heat_map();
  const v1::HeatMapArea& area = map.area();
  return HeatMap{map.class_id(),
                 map.label(),
                 map.width(),
                 map.height(),
                 {map.values().begin(), map.values().end()},
                 map.min(),
                 map.max(),
                 {area.x_min(), area.y_min(), area.x_max(), area.y_max()}};
}

// Sets what the responses of both single-model calls have in common.
template <typename Response, typename Result>
void ReadCommon(const Response& response, Result* result) {
  result->served_by = ReadServedBy(response.served_by());
  result->timings = ReadTimings(response.timings());
  result->image_size = ReadImageSize(response.image_size());
  result->annotated_image = ReadAnnotatedImage(response);
  result->heat_map = ReadHeatMap(response);
}

template <typename Message>
std::vector<Classification> ReadClassifications(const Message& message) {
  std::vector<Classification> found;
  for (const v1::Classification& item : message.classifications()) {
    found.push_back({item.class_id(), item.label(), item.score()});
  }
  return found;
}

template <typename Message>
std::vector<Detection> ReadDetections(const Message& message) {
  std::vector<Detection> found;
  for (const v1::Detection& item : message.detections()) {
    const v1::BoundingBox& box = item.box();
    found.push_back({{box.x_min(), box.y_min(), box.x_max(), box.y_max()},
                     item.class_id(),
                     item.label(),
                     item.score()});
  }
  return found;
}

ClassificationAgreement ReadAgreement(const v1::ClassificationAgreement& message) {
  ClassificationAgreement agreement;
  agreement.same_top1 = message.same_top1();
  agreement.top_k_overlap = message.top_k_overlap();
  if (message.has_jensen_shannon_divergence()) {
    agreement.jensen_shannon_divergence = message.jensen_shannon_divergence();
  }
  agreement.unknown_here = message.unknown_here();
  agreement.unknown_in_baseline = message.unknown_in_baseline();
  return agreement;
}

DetectionAgreement ReadAgreement(const v1::DetectionAgreement& message) {
  DetectionAgreement agreement;
  agreement.matched = message.matched();
  agreement.only_here = message.only_here();
  agreement.only_in_baseline = message.only_in_baseline();
  if (message.has_mean_iou()) agreement.mean_iou = message.mean_iou();
  if (message.has_mean_score_difference()) {
    agreement.mean_score_difference = message.mean_score_difference();
  }
  agreement.f1 = message.f1();
  for (const v1::DetectionMatch& match : message.matches()) {
    agreement.matches.push_back({match.index(), match.baseline_index(), match.iou()});
  }
  agreement.unknown_here = message.unknown_here();
  agreement.unknown_in_baseline = message.unknown_in_baseline();
  return agreement;
}

}  // namespace

std::optional<Task> ReadTask(v1::Task task) {
  switch (task) {
    case v1::TASK_CLASSIFICATION:
      return Task::kClassification;
    case v1::TASK_OBJECT_DETECTION:
      return Task::kDetection;
    default:
      return std::nullopt;
  }
}

ClassifyResult ReadClassifyResult(const v1::ClassifyResponse& message) {
  ClassifyResult result;
  result.classifications = ReadClassifications(message);
  ReadCommon(message, &result);
  return result;
}

DetectResult ReadDetectResult(const v1::DetectResponse& message) {
  DetectResult result;
  result.detections = ReadDetections(message);
  ReadCommon(message, &result);
  return result;
}

ModelAnswer ReadAnswer(const v1::ModelAnswer& message) {
  ModelAnswer answer;
  answer.served_by = ReadServedBy(message.served_by());
  answer.code = static_cast<Code>(message.status().code());
  answer.message = message.status().message();
  answer.classifications = ReadClassifications(message);
  answer.detections = ReadDetections(message);
  if (message.has_timings()) answer.timings = ReadTimings(message.timings());
  if (message.has_classification_agreement()) {
    answer.classification_agreement = ReadAgreement(message.classification_agreement());
  }
  if (message.has_detection_agreement()) {
    answer.detection_agreement = ReadAgreement(message.detection_agreement());
  }
  answer.heat_map = ReadHeatMap(message);
  return answer;
}

Comparison ReadComparison(const v1::CompareResponse& message) {
  Comparison comparison;
  for (const v1::TaskComparison& compared : message.comparisons()) {
    const std::optional<Task> task = ReadTask(compared.task());
    if (!task) continue;
    TaskComparison& read = comparison.tasks.emplace_back();
    read.task = *task;
    read.baseline = compared.baseline();
    read.nothing_to_compare = compared.nothing_to_compare();
    for (const v1::ModelAnswer& answer : compared.answers()) {
      read.answers.push_back(ReadAnswer(answer));
    }
  }
  for (const v1::LeftOutModel& left : message.left_out()) {
    comparison.left_out.push_back({left.model(), left.reason()});
  }
  for (const v1::Model& model : message.models()) comparison.models.push_back(ReadModel(model));
  comparison.image_size = ReadImageSize(message.image_size());
  comparison.timings = ReadTimings(message.timings());
  comparison.annotated_image = ReadAnnotatedImage(message);
  return comparison;
}

}  // namespace visavis
