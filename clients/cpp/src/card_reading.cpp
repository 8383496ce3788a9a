#include "reading.h"

namespace visavis {
namespace {

ModelFacts ReadFacts(const v1::ModelFacts& message) {
  ModelFacts facts;
  facts.architecture = message.architecture();
  facts.organization = message.organization();
  facts.category = message.category();
  facts.modality = message.modality();
  facts.release_date = message.release_date();
  if (message.has_context_window()) facts.context_window = message.context_window();
  facts.parameter_count = message.parameter_count();
  facts.code_license = message.code_license();
  facts.weights_license = message.weights_license();
  if (message.has_real_time()) facts.real_time = message.real_time();
  facts.sources = {message.sources().begin(), message.sources().end()};
  return facts;
}

Provenance ReadProvenance(const v1::Provenance& message) {
  Provenance provenance;
  provenance.weights_source = message.weights_source();
  provenance.weights_sha256 = message.weights_sha256();
  provenance.exporter = message.exporter();
  provenance.exported_at = message.exported_at();
  provenance.libraries = {message.libraries().begin(), message.libraries().end()};
  provenance.conversion = message.conversion();
  return provenance;
}

ReceiptPicture ReadReceiptPicture(const v1::ReceiptPicture& message) {
  ReceiptPicture picture;
  picture.name = message.name();
  picture.width = message.width();
  picture.height = message.height();
  if (message.has_score_threshold()) picture.score_threshold = message.score_threshold();
  picture.compared = message.compared();
  picture.excused = message.excused();
  picture.max_score_difference = message.max_score_difference();
  if (message.has_max_box_difference_px()) {
    picture.max_box_difference_px = message.max_box_difference_px();
  }
  if (message.has_max_heat_map_difference()) {
    picture.max_heat_map_difference = message.max_heat_map_difference();
  }
  if (message.has_same_top1()) picture.same_top1 = message.same_top1();
  picture.only_here = message.only_here();
  picture.only_in_original = message.only_in_original();
  return picture;
}

Receipt ReadReceipt(const v1::Receipt& message) {
  Receipt receipt;
  receipt.made_at = message.made_at();
  receipt.score_tolerance = message.score_tolerance();
  receipt.box_tolerance_px = message.box_tolerance_px();
  receipt.heat_map_tolerance = message.heat_map_tolerance();
  receipt.max_score_difference = message.max_score_difference();
  if (message.has_max_box_difference_px()) {
    receipt.max_box_difference_px = message.max_box_difference_px();
  }
  if (message.has_max_heat_map_difference()) {
    receipt.max_heat_map_difference = message.max_heat_map_difference();
  }
  if (message.has_rows()) {
    const v1::RowComparison& rows = message.rows();
    receipt.rows = RowComparison{rows.count(), rows.max_score_difference(),
                                 rows.max_box_difference_px()};
  }
  for (const v1::ReceiptPicture& picture : message.pictures()) {
    receipt.pictures.push_back(ReadReceiptPicture(picture));
  }
  return receipt;
}

Accuracy ReadAccuracy(const v1::Accuracy& message) {
  Accuracy accuracy;
  accuracy.metric = message.metric();
  accuracy.value = message.value();
  accuracy.original = message.original();
  accuracy.pictures = message.pictures();
  accuracy.source = message.source();
  accuracy.held_out = message.held_out();
  accuracy.error = message.error();
  return accuracy;
}

}  // namespace

Model ReadModel(const v1::Model& message) {
  Model model;
  model.name = message.name();
  model.version = message.version();
  model.versions = {message.versions().begin(), message.versions().end()};
  for (const int value : message.tasks()) {
    if (const auto task = ReadTask(static_cast<v1::Task>(value))) model.tasks.push_back(*task);
  }
  model.precision = message.precision();
  model.variant_of = message.variant_of();
  model.execution_provider = message.execution_provider();
  model.random_weights = message.random_weights();
  model.facts = ReadFacts(message.facts());
  const v1::LabelSet& label_set = message.label_set();
  model.label_set = {
      label_set.name(), label_set.size(), {label_set.labels().begin(), label_set.labels().end()}};
  const v1::ModelInput& input = message.input();
  model.input = {input.width(), input.height(), input.resize()};
  if (message.has_detection_defaults()) {
    const v1::DetectionDefaults& defaults = message.detection_defaults();
    model.detection_defaults = DetectionDefaults{
        defaults.score_threshold(), defaults.iou_threshold(), defaults.max_detections()};
  }
  model.provenance = ReadProvenance(message.provenance());
  model.verification = {message.verification().digest(), message.verification().golden_sample()};
  if (message.has_receipt()) model.receipt = ReadReceipt(message.receipt());
  if (message.has_accuracy()) model.accuracy = ReadAccuracy(message.accuracy());
  return model;
}

}  // namespace visavis
