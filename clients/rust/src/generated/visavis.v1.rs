/// A picture: encoded or raw, never a URL.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Image {
    /// The pixels. Exactly one is required.
    #[prost(oneof="image::Source", tags="1, 2")]
    pub source: ::core::option::Option<image::Source>,
}
/// Nested message and enum types in `Image`.
pub mod image {
    /// The pixels. Exactly one is required.
    #[non_exhaustive]
    #[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Oneof)]
    pub enum Source {
        /// The bytes of a JPEG, PNG or WebP file. EXIF orientation is applied, alpha is dropped.
        #[prost(bytes, tag="1")]
        Encoded(::prost::bytes::Bytes),
        /// Decoded pixels.
        #[prost(message, tag="2")]
        Raw(super::RawImage),
    }
}
/// Decoded pixels in upright orientation.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct RawImage {
    /// Layout of `data`. Required.
    #[prost(enumeration="PixelFormat", tag="1")]
    pub format: i32,
    /// Width in pixels. Range [1, 65535].
    #[prost(int32, tag="2")]
    pub width: i32,
    /// Height in pixels. Range [1, 65535].
    #[prost(int32, tag="3")]
    pub height: i32,
    /// The pixels, top row first. The size must match format, width and height exactly.
    #[prost(bytes="bytes", tag="4")]
    pub data: ::prost::bytes::Bytes,
}
/// Request to classify an image with one model.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ClassifyRequest {
    /// The picture. Required.
    #[prost(message, optional, tag="1")]
    pub image: ::core::option::Option<Image>,
    /// Name of a model that is capable of classification. Required.
    #[prost(string, tag="2")]
    pub model: ::prost::alloc::string::String,
    /// Version of the model. Range [1, 2147483647]. Absent: the highest.
    #[prost(int32, optional, tag="3")]
    pub version: ::core::option::Option<i32>,
    /// Number of labels to return. Range [1, number of labels]; a larger value returns all.
    /// Absent: 5.
    #[prost(int32, optional, tag="4")]
    pub top_k: ::core::option::Option<i32>,
    /// True to return the picture with the labels drawn on it.
    #[prost(bool, tag="5")]
    pub annotate: bool,
    /// Asks for a heat map. Absent: none.
    #[prost(message, optional, tag="30")]
    pub explain: ::core::option::Option<Explain>,
}
/// One model's labels for an image.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ClassifyResponse {
    /// Labels, highest score first.
    #[prost(message, repeated, tag="1")]
    pub classifications: ::prost::alloc::vec::Vec<Classification>,
    /// The model that answered.
    #[prost(message, optional, tag="2")]
    pub served_by: ::core::option::Option<ServedBy>,
    /// Time spent in each stage.
    #[prost(message, optional, tag="3")]
    pub timings: ::core::option::Option<Timings>,
    /// Size of the upright picture.
    #[prost(message, optional, tag="4")]
    pub image_size: ::core::option::Option<ImageSize>,
    /// The picture with the labels drawn on it. Absent unless `annotate` is true.
    #[prost(message, optional, tag="5")]
    pub annotated_image: ::core::option::Option<AnnotatedImage>,
    /// The heat map. Absent unless `explain` is set.
    #[prost(message, optional, tag="30")]
    pub heat_map: ::core::option::Option<HeatMap>,
}
/// One label for the whole image.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Classification {
    /// Index of the label in the model's label set. Range [0, number of labels - 1].
    #[prost(int32, tag="1")]
    pub class_id: i32,
    /// Name of the label.
    #[prost(string, tag="2")]
    pub label: ::prost::alloc::string::String,
    /// Probability of this label. Range [0, 1].
    #[prost(float, tag="3")]
    pub score: f32,
}
/// Request to detect the objects in an image with one model.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct DetectRequest {
    /// The picture. Required.
    #[prost(message, optional, tag="1")]
    pub image: ::core::option::Option<Image>,
    /// Name of a model that is capable of object detection. Required.
    #[prost(string, tag="2")]
    pub model: ::prost::alloc::string::String,
    /// Version of the model. Range [1, 2147483647]. Absent: the highest.
    #[prost(int32, optional, tag="3")]
    pub version: ::core::option::Option<i32>,
    /// Detections with a score above this are returned. Range [0, 1]. Absent: the model's default
    /// (YOLOv5: 0.25).
    #[prost(float, optional, tag="4")]
    pub score_threshold: ::core::option::Option<f32>,
    /// Non-maximum suppression drops the lower-scored of two boxes whose IoU exceeds this. Range
    /// [0, 1]. Absent: the model's default (YOLOv5: 0.45). Models whose graph contains the
    /// suppression ignore it.
    #[prost(float, optional, tag="5")]
    pub iou_threshold: ::core::option::Option<f32>,
    /// Maximum number of detections. Range [1, 1000]. Absent: 300.
    #[prost(int32, optional, tag="6")]
    pub max_detections: ::core::option::Option<i32>,
    /// Labels to keep; each must be one of the model's. Empty: all labels.
    #[prost(string, repeated, tag="7")]
    pub labels: ::prost::alloc::vec::Vec<::prost::alloc::string::String>,
    /// True to suppress overlapping boxes across labels, not only within each label.
    #[prost(bool, tag="8")]
    pub class_agnostic: bool,
    /// True to return the picture with the boxes drawn on it.
    #[prost(bool, tag="9")]
    pub annotate: bool,
    /// Asks for a heat map. Absent: none.
    #[prost(message, optional, tag="30")]
    pub explain: ::core::option::Option<Explain>,
}
/// One model's detections in an image.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct DetectResponse {
    /// Detections, highest score first.
    #[prost(message, repeated, tag="1")]
    pub detections: ::prost::alloc::vec::Vec<Detection>,
    /// The model that answered.
    #[prost(message, optional, tag="2")]
    pub served_by: ::core::option::Option<ServedBy>,
    /// Time spent in each stage.
    #[prost(message, optional, tag="3")]
    pub timings: ::core::option::Option<Timings>,
    /// Size of the upright picture; boxes are in its pixels.
    #[prost(message, optional, tag="4")]
    pub image_size: ::core::option::Option<ImageSize>,
    /// The picture with the boxes drawn on it. Absent unless `annotate` is true.
    #[prost(message, optional, tag="5")]
    pub annotated_image: ::core::option::Option<AnnotatedImage>,
    /// The heat map. Absent unless `explain` is set.
    #[prost(message, optional, tag="30")]
    pub heat_map: ::core::option::Option<HeatMap>,
}
/// One object found in the image.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Detection {
    /// Location in the upright picture.
    #[prost(message, optional, tag="1")]
    pub r#box: ::core::option::Option<BoundingBox>,
    /// Index of the label in the model's label set. Range [0, number of labels - 1].
    #[prost(int32, tag="2")]
    pub class_id: i32,
    /// Name of the label.
    #[prost(string, tag="3")]
    pub label: ::prost::alloc::string::String,
    /// Probability of this label. Range [0, 1].
    #[prost(float, tag="4")]
    pub score: f32,
}
/// A rectangle in pixels of the upright picture; (0, 0) is the top left corner.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct BoundingBox {
    /// Left edge. Range [0, width].
    #[prost(float, tag="1")]
    pub x_min: f32,
    /// Top edge. Range [0, height].
    #[prost(float, tag="2")]
    pub y_min: f32,
    /// Right edge. Range [x_min, width].
    #[prost(float, tag="3")]
    pub x_max: f32,
    /// Bottom edge. Range [y_min, height].
    #[prost(float, tag="4")]
    pub y_max: f32,
}
/// Asks for a heat map: how much each part of the picture speaks for a label.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Explain {
    /// The label; must be one of the model's. Absent: the first of the answer, or the best candidate
    /// below the threshold if a detector finds nothing.
    #[prost(string, optional, tag="1")]
    pub label: ::core::option::Option<::prost::alloc::string::String>,
}
/// How much each cell of a grid over a part of the picture speaks for a label. Annotated pictures
/// show it in colours from the smallest value to the largest.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct HeatMap {
    /// Index of the label in the model's label set. Range [0, number of labels - 1].
    #[prost(int32, tag="1")]
    pub class_id: i32,
    /// Name of the label.
    #[prost(string, tag="2")]
    pub label: ::prost::alloc::string::String,
    /// Number of columns. Range [1, 4096].
    #[prost(int32, tag="3")]
    pub width: i32,
    /// Number of rows. Range [1, 4096].
    #[prost(int32, tag="4")]
    pub height: i32,
    /// One value for each cell, top row first. Classifiers: the class activation map, of any range;
    /// its mean is the label's logit less the bias of the last layer. Detectors: the best score of the
    /// label in the cell, range [0, 1].
    #[prost(float, repeated, tag="5")]
    pub values: ::prost::alloc::vec::Vec<f32>,
    /// The smallest value.
    #[prost(float, tag="6")]
    pub min: f32,
    /// The largest value.
    #[prost(float, tag="7")]
    pub max: f32,
    /// The part of the picture that the cells cover; all have the same size.
    #[prost(message, optional, tag="8")]
    pub area: ::core::option::Option<HeatMapArea>,
}
/// A rectangle in pixels of the upright picture; (0, 0) is the top left corner. A classifier sees
/// only a part of the picture. A detector sees padding too, so its area may exceed the picture by a
/// part of a cell.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct HeatMapArea {
    /// Left edge.
    #[prost(float, tag="1")]
    pub x_min: f32,
    /// Top edge.
    #[prost(float, tag="2")]
    pub y_min: f32,
    /// Right edge.
    #[prost(float, tag="3")]
    pub x_max: f32,
    /// Bottom edge.
    #[prost(float, tag="4")]
    pub y_max: f32,
}
/// Request to compare the answers of all capable models on one image.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct CompareRequest {
    /// The picture. Required. Decoded once for all models.
    #[prost(message, optional, tag="1")]
    pub image: ::core::option::Option<Image>,
    /// Tasks to compare. Empty: all.
    #[prost(enumeration="Task", repeated, tag="2")]
    pub tasks: ::prost::alloc::vec::Vec<i32>,
    /// Names of the models to compare, each in its highest version. Empty: all models that are
    /// capable of one of the tasks.
    #[prost(string, repeated, tag="3")]
    pub models: ::prost::alloc::vec::Vec<::prost::alloc::string::String>,
    /// Name of the model that the others are compared with; must be one of the compared models.
    /// If absent, or not capable of a task: the first of `models`, else the first by name.
    #[prost(string, optional, tag="4")]
    pub baseline: ::core::option::Option<::prost::alloc::string::String>,
    /// Number of labels that each classifier returns. As in ClassifyRequest.
    #[prost(int32, optional, tag="5")]
    pub top_k: ::core::option::Option<i32>,
    /// Detectors return detections with a score above this. As in DetectRequest.
    #[prost(float, optional, tag="6")]
    pub score_threshold: ::core::option::Option<f32>,
    /// IoU above which non-maximum suppression drops a box. As in DetectRequest.
    #[prost(float, optional, tag="7")]
    pub iou_threshold: ::core::option::Option<f32>,
    /// Maximum number of detections of each detector. As in DetectRequest.
    #[prost(int32, optional, tag="8")]
    pub max_detections: ::core::option::Option<i32>,
    /// Labels that detectors keep. A model that has none of them returns no detections. Empty: all
    /// labels.
    #[prost(string, repeated, tag="9")]
    pub labels: ::prost::alloc::vec::Vec<::prost::alloc::string::String>,
    /// True to suppress overlapping boxes across labels, not only within each label.
    #[prost(bool, tag="10")]
    pub class_agnostic: bool,
    /// True to return the answers drawn side by side.
    #[prost(bool, tag="11")]
    pub annotate: bool,
    /// Asks for a heat map of each answer. A model that can't give it fails, with INVALID_ARGUMENT in
    /// its status. Absent: none.
    #[prost(message, optional, tag="30")]
    pub explain: ::core::option::Option<Explain>,
    /// True to return the answers drawn side by side, as `annotate` does, with the boxes in three
    /// colours: as in the baseline, only here, only in the baseline.
    #[prost(bool, tag="31")]
    pub annotate_difference: bool,
}
/// The answers of all models and how far they agree.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct CompareResponse {
    /// One entry per task that has a capable model, in enum order.
    #[prost(message, repeated, tag="1")]
    pub comparisons: ::prost::alloc::vec::Vec<TaskComparison>,
    /// Models that were not run, ordered by name.
    #[prost(message, repeated, tag="2")]
    pub left_out: ::prost::alloc::vec::Vec<LeftOutModel>,
    /// Cards of the models that were run, ordered by name; without labels and receipts.
    #[prost(message, repeated, tag="3")]
    pub models: ::prost::alloc::vec::Vec<Model>,
    /// Size of the upright picture; boxes are in its pixels.
    #[prost(message, optional, tag="4")]
    pub image_size: ::core::option::Option<ImageSize>,
    /// Time spent on the whole comparison; each answer has the stages of its model.
    #[prost(message, optional, tag="5")]
    pub timings: ::core::option::Option<Timings>,
    /// The answers, drawn side by side. Absent unless `annotate` or
    /// `annotate_difference` is true.
    #[prost(message, optional, tag="6")]
    pub annotated_image: ::core::option::Option<AnnotatedImage>,
}
/// The answers for one task.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct TaskComparison {
    /// The task.
    #[prost(enumeration="Task", tag="1")]
    pub task: i32,
    /// Name of the model that the others are compared with.
    #[prost(string, tag="2")]
    pub baseline: ::prost::alloc::string::String,
    /// One answer per model, in the order of the request's `models`, else by name.
    #[prost(message, repeated, tag="3")]
    pub answers: ::prost::alloc::vec::Vec<ModelAnswer>,
    /// Why nothing is compared, as a sentence. Empty if two or more models are capable.
    #[prost(string, tag="4")]
    pub nothing_to_compare: ::prost::alloc::string::String,
}
/// One model's answer, or the reason that it has none.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ModelAnswer {
    /// The model that answered.
    #[prost(message, optional, tag="1")]
    pub served_by: ::core::option::Option<ServedBy>,
    /// Outcome of the run.
    #[prost(message, optional, tag="2")]
    pub status: ::core::option::Option<AnswerStatus>,
    /// Labels, highest score first. Empty for detectors, and if status is not OK.
    #[prost(message, repeated, tag="3")]
    pub classifications: ::prost::alloc::vec::Vec<Classification>,
    /// Detections, highest score first. Empty for classifiers, and if status is not OK.
    #[prost(message, repeated, tag="4")]
    pub detections: ::prost::alloc::vec::Vec<Detection>,
    /// Time spent in each stage. Absent if status is not OK.
    #[prost(message, optional, tag="5")]
    pub timings: ::core::option::Option<Timings>,
    /// The heat map. Absent unless `explain` is set, and if status is not OK.
    #[prost(message, optional, tag="30")]
    pub heat_map: ::core::option::Option<HeatMap>,
    /// Agreement with the baseline's answer. Absent for the baseline itself, and if one of the two
    /// has no answer.
    #[prost(oneof="model_answer::Agreement", tags="6, 7")]
    pub agreement: ::core::option::Option<model_answer::Agreement>,
}
/// Nested message and enum types in `ModelAnswer`.
pub mod model_answer {
    /// Agreement with the baseline's answer. Absent for the baseline itself, and if one of the two
    /// has no answer.
    #[non_exhaustive]
    #[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Oneof)]
    pub enum Agreement {
        /// For classification.
        #[prost(message, tag="6")]
        ClassificationAgreement(super::ClassificationAgreement),
        /// For object detection.
        #[prost(message, tag="7")]
        DetectionAgreement(super::DetectionAgreement),
    }
}
/// Outcome of one model's run. A failure does not affect other models.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct AnswerStatus {
    /// A google.rpc.Code: 0 is OK.
    #[prost(int32, tag="1")]
    pub code: i32,
    /// A readable error message. Empty if code is 0.
    #[prost(string, tag="2")]
    pub message: ::prost::alloc::string::String,
}
/// How far two classifiers agree on one image. Labels are matched by id if both models share a
/// label set, by name otherwise: case, accents, separators and known spellings aside. Labels that
/// the other model lacks are left out and counted.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ClassificationAgreement {
    /// True if both rank the same label first.
    #[prost(bool, tag="1")]
    pub same_top1: bool,
    /// Fraction of the top k labels that both share, in any order. Range [0, 1].
    #[prost(double, tag="2")]
    pub top_k_overlap: f64,
    /// Jensen-Shannon divergence (base 2) of the two distributions over all labels. Range [0, 1];
    /// 0: identical. Absent if the label sets differ.
    #[prost(double, optional, tag="3")]
    pub jensen_shannon_divergence: ::core::option::Option<f64>,
    /// Number of this model's top k labels that the baseline's label set lacks.
    #[prost(int32, tag="20")]
    pub unknown_here: i32,
    /// Number of the baseline's top k labels that this model's label set lacks.
    #[prost(int32, tag="21")]
    pub unknown_in_baseline: i32,
}
/// How far two detectors agree on one image. Boxes with the same label and an IoU of at least 0.5
/// are matched one to one, highest IoU first. Labels are compared as for classifiers; detections
/// whose label the other model lacks are left out and counted.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct DetectionAgreement {
    /// Number of matched pairs.
    #[prost(int32, tag="1")]
    pub matched: i32,
    /// Number of this model's detections without a match, of labels that both models have.
    #[prost(int32, tag="2")]
    pub only_here: i32,
    /// Number of the baseline's detections without a match, of labels that both models have.
    #[prost(int32, tag="3")]
    pub only_in_baseline: i32,
    /// Mean IoU of the pairs. Range [0.5, 1]. Absent if there are no pairs.
    #[prost(double, optional, tag="4")]
    pub mean_iou: ::core::option::Option<f64>,
    /// Mean absolute difference of the pairs' scores. Range [0, 1]. Absent if there are no pairs.
    #[prost(double, optional, tag="5")]
    pub mean_score_difference: ::core::option::Option<f64>,
    /// 2 * matched / (detections of this model + detections of the baseline), of labels that both
    /// models have. Range [0, 1]; 1 if neither has such detections.
    #[prost(double, tag="6")]
    pub f1: f64,
    /// The pairs, highest IoU first.
    #[prost(message, repeated, tag="7")]
    pub matches: ::prost::alloc::vec::Vec<DetectionMatch>,
    /// Number of this model's detections whose label the baseline's label set lacks.
    #[prost(int32, tag="20")]
    pub unknown_here: i32,
    /// Number of the baseline's detections whose label this model's label set lacks.
    #[prost(int32, tag="21")]
    pub unknown_in_baseline: i32,
}
/// A matched pair of detections.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct DetectionMatch {
    /// Index in this model's `detections`.
    #[prost(int32, tag="1")]
    pub index: i32,
    /// Index in the baseline's `detections`.
    #[prost(int32, tag="2")]
    pub baseline_index: i32,
    /// Intersection over union of the two boxes. Range [0.5, 1].
    #[prost(double, tag="3")]
    pub iou: f64,
}
/// A model that a comparison did not run.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct LeftOutModel {
    /// Name of the model.
    #[prost(string, tag="1")]
    pub model: ::prost::alloc::string::String,
    /// The reason, as a sentence.
    #[prost(string, tag="2")]
    pub reason: ::prost::alloc::string::String,
}
/// Request to compare the answers of all capable models on one image, streamed. The fields are
/// those of CompareRequest.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct CompareStreamRequest {
    /// The picture. Required. Decoded once for all models.
    #[prost(message, optional, tag="1")]
    pub image: ::core::option::Option<Image>,
    /// Tasks to compare. Empty: all.
    #[prost(enumeration="Task", repeated, tag="2")]
    pub tasks: ::prost::alloc::vec::Vec<i32>,
    /// Names of the models to compare. As in CompareRequest.
    #[prost(string, repeated, tag="3")]
    pub models: ::prost::alloc::vec::Vec<::prost::alloc::string::String>,
    /// Name of the model that the others are compared with. As in CompareRequest.
    #[prost(string, optional, tag="4")]
    pub baseline: ::core::option::Option<::prost::alloc::string::String>,
    /// Number of labels that each classifier returns. As in ClassifyRequest.
    #[prost(int32, optional, tag="5")]
    pub top_k: ::core::option::Option<i32>,
    /// Detectors return detections with a score above this. As in DetectRequest.
    #[prost(float, optional, tag="6")]
    pub score_threshold: ::core::option::Option<f32>,
    /// IoU above which non-maximum suppression drops a box. As in DetectRequest.
    #[prost(float, optional, tag="7")]
    pub iou_threshold: ::core::option::Option<f32>,
    /// Maximum number of detections of each detector. As in DetectRequest.
    #[prost(int32, optional, tag="8")]
    pub max_detections: ::core::option::Option<i32>,
    /// Labels that detectors keep. As in CompareRequest.
    #[prost(string, repeated, tag="9")]
    pub labels: ::prost::alloc::vec::Vec<::prost::alloc::string::String>,
    /// True to suppress overlapping boxes across labels, not only within each label.
    #[prost(bool, tag="10")]
    pub class_agnostic: bool,
    /// True to return the answers drawn side by side, in the summary.
    #[prost(bool, tag="11")]
    pub annotate: bool,
    /// Asks for a heat map of each answer. As in CompareRequest.
    #[prost(message, optional, tag="30")]
    pub explain: ::core::option::Option<Explain>,
    /// True to draw differences, in the summary. As in CompareRequest.
    #[prost(bool, tag="31")]
    pub annotate_difference: bool,
}
/// One message of a streamed comparison: each answer as it becomes ready, then the summary.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct CompareStreamResponse {
    /// The content. Exactly one is set.
    #[prost(oneof="compare_stream_response::Event", tags="1, 2")]
    pub event: ::core::option::Option<compare_stream_response::Event>,
}
/// Nested message and enum types in `CompareStreamResponse`.
pub mod compare_stream_response {
    /// The content. Exactly one is set.
    #[non_exhaustive]
    #[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Oneof)]
    pub enum Event {
        /// One model's answer, without its agreement.
        #[prost(message, tag="1")]
        Answer(super::StreamedAnswer),
        /// The whole comparison, including agreements. The last message of the stream.
        #[prost(message, tag="2")]
        Summary(super::CompareResponse),
    }
}
/// One model's answer within a streamed comparison.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct StreamedAnswer {
    /// The task.
    #[prost(enumeration="Task", tag="1")]
    pub task: i32,
    /// The answer. Its agreement is absent; the summary has it.
    #[prost(message, optional, tag="2")]
    pub answer: ::core::option::Option<ModelAnswer>,
}
/// Request for the cards of all models.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ListModelsRequest {
}
/// The cards of all models.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ListModelsResponse {
    /// One card per model in its highest version, ordered by name; without labels and receipts.
    #[prost(message, repeated, tag="1")]
    pub models: ::prost::alloc::vec::Vec<Model>,
}
/// Request for one model's card.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct GetModelRequest {
    /// Name of the model. Required.
    #[prost(string, tag="1")]
    pub model: ::prost::alloc::string::String,
    /// Version of the model. Range [1, 2147483647]. Absent: the highest.
    #[prost(int32, optional, tag="2")]
    pub version: ::core::option::Option<i32>,
}
/// One model's card.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct GetModelResponse {
    /// The card, with labels and receipt.
    #[prost(message, optional, tag="1")]
    pub model: ::core::option::Option<Model>,
}
/// The model that answered a request, and how it ran.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ServedBy {
    /// Name of the model.
    #[prost(string, tag="1")]
    pub model: ::prost::alloc::string::String,
    /// Version of the model.
    #[prost(int32, tag="2")]
    pub version: i32,
    /// Number format of the weights: fp32, fp16 or int8.
    #[prost(string, tag="3")]
    pub precision: ::prost::alloc::string::String,
    /// ONNX Runtime's name of the execution provider, such as CPUExecutionProvider.
    #[prost(string, tag="4")]
    pub execution_provider: ::prost::alloc::string::String,
    /// True if the weights are random, which makes the answer meaningless.
    #[prost(bool, tag="5")]
    pub random_weights: bool,
}
/// Time that a request spent in each stage, in milliseconds.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Timings {
    /// Waiting in the queue.
    #[prost(double, tag="1")]
    pub queue_ms: f64,
    /// Decoding the picture. 0 in the answers of a comparison: its models share one decode, which
    /// the comparison's own timings report.
    #[prost(double, tag="2")]
    pub decode_ms: f64,
    /// Converting pixels to the model's input.
    #[prost(double, tag="3")]
    pub preprocess_ms: f64,
    /// Running the session.
    #[prost(double, tag="4")]
    pub inference_ms: f64,
    /// Converting the model's output to labels or boxes.
    #[prost(double, tag="5")]
    pub postprocess_ms: f64,
    /// The whole time, from the arrival of the request to the answer.
    #[prost(double, tag="6")]
    pub total_ms: f64,
}
/// Size of a picture in upright orientation.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ImageSize {
    /// Width in pixels.
    #[prost(int32, tag="1")]
    pub width: i32,
    /// Height in pixels.
    #[prost(int32, tag="2")]
    pub height: i32,
}
/// A picture that the server has drawn on.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct AnnotatedImage {
    /// The encoded file.
    #[prost(bytes="bytes", tag="1")]
    pub encoded: ::prost::bytes::Bytes,
    /// Media type of the file, such as image/jpeg.
    #[prost(string, tag="2")]
    pub media_type: ::prost::alloc::string::String,
    /// Size of the drawn picture. Smaller than the original if the file would exceed the server's
    /// limit, by default 4 MB.
    #[prost(message, optional, tag="3")]
    pub size: ::core::option::Option<ImageSize>,
}
/// A model's card: its properties, origin and proof.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Model {
    /// Name in the repository.
    #[prost(string, tag="1")]
    pub name: ::prost::alloc::string::String,
    /// The version that this card describes.
    #[prost(int32, tag="2")]
    pub version: i32,
    /// All versions that can be requested, ascending.
    #[prost(int32, repeated, tag="3")]
    pub versions: ::prost::alloc::vec::Vec<i32>,
    /// Tasks that the model is capable of.
    #[prost(enumeration="Task", repeated, tag="4")]
    pub tasks: ::prost::alloc::vec::Vec<i32>,
    /// Number format of the weights: fp32, fp16 or int8.
    #[prost(string, tag="5")]
    pub precision: ::prost::alloc::string::String,
    /// Name of the model whose weights this model has in another precision. Empty: not a variant.
    #[prost(string, tag="6")]
    pub variant_of: ::prost::alloc::string::String,
    /// ONNX Runtime's name of the execution provider that runs the model.
    #[prost(string, tag="7")]
    pub execution_provider: ::prost::alloc::string::String,
    /// True if the weights are random, which makes the answers meaningless.
    #[prost(bool, tag="8")]
    pub random_weights: bool,
    /// Facts to compare models by.
    #[prost(message, optional, tag="9")]
    pub facts: ::core::option::Option<ModelFacts>,
    /// The classes that the model knows.
    #[prost(message, optional, tag="10")]
    pub label_set: ::core::option::Option<LabelSet>,
    /// How an image is converted to the model's input.
    #[prost(message, optional, tag="11")]
    pub input: ::core::option::Option<ModelInput>,
    /// Defaults for requests that do not set these values. Absent for classifiers.
    #[prost(message, optional, tag="12")]
    pub detection_defaults: ::core::option::Option<DetectionDefaults>,
    /// Origin of the file.
    #[prost(message, optional, tag="13")]
    pub provenance: ::core::option::Option<Provenance>,
    /// Checks that passed when the model was loaded.
    #[prost(message, optional, tag="14")]
    pub verification: ::core::option::Option<Verification>,
    /// Proof of how closely the file follows the PyTorch original. Absent in lists, and if the file
    /// has none.
    #[prost(message, optional, tag="15")]
    pub receipt: ::core::option::Option<Receipt>,
    /// Accuracy on labelled pictures, measured at export. Absent if no labels were given.
    #[prost(message, optional, tag="16")]
    pub accuracy: ::core::option::Option<Accuracy>,
}
/// Facts to compare models by. An empty field is unknown.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ModelFacts {
    /// Architecture, such as ResNet-50.
    #[prost(string, tag="1")]
    pub architecture: ::prost::alloc::string::String,
    /// Publisher of the model.
    #[prost(string, tag="2")]
    pub organization: ::prost::alloc::string::String,
    /// Availability: open, if weights and code are published.
    #[prost(string, tag="3")]
    pub category: ::prost::alloc::string::String,
    /// Kind of input, such as vision.
    #[prost(string, tag="4")]
    pub modality: ::prost::alloc::string::String,
    /// Date of first publication: YYYY, YYYY-MM or YYYY-MM-DD.
    #[prost(string, tag="5")]
    pub release_date: ::prost::alloc::string::String,
    /// Longest input in tokens. Absent: does not apply, as usual for vision models.
    #[prost(int32, optional, tag="6")]
    pub context_window: ::core::option::Option<i32>,
    /// Number of trained parameters, counted in the PyTorch module. 0: unknown.
    #[prost(int64, tag="7")]
    pub parameter_count: i64,
    /// Licence of the original's code, as its authors released it: an SPDX identifier if one exists.
    #[prost(string, tag="8")]
    pub code_license: ::prost::alloc::string::String,
    /// Licence of the weights.
    #[prost(string, tag="9")]
    pub weights_license: ::prost::alloc::string::String,
    /// True if its authors present it as a real-time model. Absent: unknown.
    #[prost(bool, optional, tag="10")]
    pub real_time: ::core::option::Option<bool>,
    /// Source of each fact, by field name.
    #[prost(map="string, string", tag="11")]
    pub sources: ::std::collections::HashMap<::prost::alloc::string::String, ::prost::alloc::string::String>,
}
/// A named list of classes. Models that share one are compared by class id.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct LabelSet {
    /// Name of the set, such as imagenet-1k or coco-80.
    #[prost(string, tag="1")]
    pub name: ::prost::alloc::string::String,
    /// Number of labels.
    #[prost(int32, tag="2")]
    pub size: i32,
    /// Labels, by class id. Empty in lists.
    #[prost(string, repeated, tag="3")]
    pub labels: ::prost::alloc::vec::Vec<::prost::alloc::string::String>,
}
/// How an image is converted to a model's input.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ModelInput {
    /// Width of the input in pixels; the largest one, if it depends on the picture.
    #[prost(int32, tag="1")]
    pub width: i32,
    /// Height of the input in pixels; the largest one, if it depends on the picture.
    #[prost(int32, tag="2")]
    pub height: i32,
    /// The resize rule, as a sentence.
    #[prost(string, tag="3")]
    pub resize: ::prost::alloc::string::String,
}
/// Defaults for requests that do not set these values.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct DetectionDefaults {
    /// Detections with a score above this are returned. Range [0, 1].
    #[prost(float, tag="1")]
    pub score_threshold: f32,
    /// IoU above which non-maximum suppression drops a box. Range [0, 1].
    #[prost(float, tag="2")]
    pub iou_threshold: f32,
    /// Maximum number of detections.
    #[prost(int32, tag="3")]
    pub max_detections: i32,
}
/// Origin of a model file. An empty field is unknown.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Provenance {
    /// Origin of the weights: a URL, a file name, or "random".
    #[prost(string, tag="1")]
    pub weights_source: ::prost::alloc::string::String,
    /// SHA-256 of the weights file, in hexadecimal.
    #[prost(string, tag="2")]
    pub weights_sha256: ::prost::alloc::string::String,
    /// Program that wrote the file, such as visavis 0.1.0.
    #[prost(string, tag="3")]
    pub exporter: ::prost::alloc::string::String,
    /// Time of the export in UTC, as in RFC 3339.
    #[prost(string, tag="4")]
    pub exported_at: ::prost::alloc::string::String,
    /// Versions of the libraries used, by name.
    #[prost(map="string, string", tag="5")]
    pub libraries: ::std::collections::HashMap<::prost::alloc::string::String, ::prost::alloc::string::String>,
    /// How the weights were converted from fp32 to the model's precision, as a sentence. Empty for
    /// fp32.
    #[prost(string, tag="6")]
    pub conversion: ::prost::alloc::string::String,
}
/// Checks that passed when a model was loaded.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Verification {
    /// True if the file has a digest, and it matched.
    #[prost(bool, tag="1")]
    pub digest: bool,
    /// True if the file has a golden sample, and it gave the expected output.
    #[prost(bool, tag="2")]
    pub golden_sample: bool,
}
/// How closely a file follows the PyTorch original, from encoded image to final answer, measured at
/// export. An export that exceeds the tolerances fails. An int8 file has no tolerances: its accuracy
/// decides, and the receipt records every difference.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Receipt {
    /// Time of the comparison in UTC, as in RFC 3339.
    #[prost(string, tag="1")]
    pub made_at: ::prost::alloc::string::String,
    /// Largest allowed difference of two scores. 0: no limit.
    #[prost(double, tag="2")]
    pub score_tolerance: f64,
    /// Largest allowed difference of two box edges, in pixels of the original image. 0: no limit.
    #[prost(double, tag="3")]
    pub box_tolerance_px: f64,
    /// Largest measured difference of two scores.
    #[prost(double, tag="4")]
    pub max_score_difference: f64,
    /// Largest measured difference of two box edges, in pixels of the original image. Absent for
    /// classifiers.
    #[prost(double, optional, tag="5")]
    pub max_box_difference_px: ::core::option::Option<f64>,
    /// Comparison of the candidates before non-maximum suppression. Absent for classifiers.
    #[prost(message, optional, tag="6")]
    pub rows: ::core::option::Option<RowComparison>,
    /// One entry per picture.
    #[prost(message, repeated, tag="7")]
    pub pictures: ::prost::alloc::vec::Vec<ReceiptPicture>,
    /// Largest allowed difference of two heat maps. 0: no limit, or none were compared.
    #[prost(double, tag="30")]
    pub heat_map_tolerance: f64,
    /// Largest measured difference of two heat maps for the best label: of two values, divided by the
    /// largest magnitude in the original's map if that is more than 1. Absent: none were compared.
    #[prost(double, optional, tag="31")]
    pub max_heat_map_difference: ::core::option::Option<f64>,
}
/// A detector's candidates before non-maximum suppression, compared row by row.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct RowComparison {
    /// Number of candidates compared.
    #[prost(int64, tag="1")]
    pub count: i64,
    /// Largest difference of two scores (objectness times class).
    #[prost(double, tag="2")]
    pub max_score_difference: f64,
    /// Largest difference of two box edges, in pixels of the model's input.
    #[prost(double, tag="3")]
    pub max_box_difference_px: f64,
}
/// The comparison on one picture.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ReceiptPicture {
    /// Name of the picture.
    #[prost(string, tag="1")]
    pub name: ::prost::alloc::string::String,
    /// Width of the upright picture in pixels.
    #[prost(int32, tag="2")]
    pub width: i32,
    /// Height of the upright picture in pixels.
    #[prost(int32, tag="3")]
    pub height: i32,
    /// Score threshold at which the detections were compared. Absent for classifiers.
    #[prost(double, optional, tag="4")]
    pub score_threshold: ::core::option::Option<f64>,
    /// Number of labels or detections compared.
    #[prost(int32, tag="5")]
    pub compared: i32,
    /// Number of differences excused because the original lies within the tolerance of a tie or of
    /// a threshold.
    #[prost(int32, tag="6")]
    pub excused: i32,
    /// Largest difference of two scores.
    #[prost(double, tag="7")]
    pub max_score_difference: f64,
    /// Largest difference of two box edges, in pixels. Absent for classifiers.
    #[prost(double, optional, tag="8")]
    pub max_box_difference_px: ::core::option::Option<f64>,
    /// True if the best label equals the original's. Absent for detectors.
    #[prost(bool, optional, tag="9")]
    pub same_top1: ::core::option::Option<bool>,
    /// Number of detections without a counterpart in the original's answer. A counterpart lies
    /// within the tolerance or, without tolerances, has the same label and an IoU of at least 0.5.
    #[prost(int32, tag="10")]
    pub only_here: i32,
    /// Number of the original's detections without such a counterpart.
    #[prost(int32, tag="11")]
    pub only_in_original: i32,
    /// Largest difference of the heat maps, as in Receipt. Absent: none were compared.
    #[prost(double, optional, tag="30")]
    pub max_heat_map_difference: ::core::option::Option<f64>,
}
/// Accuracy of a file and of its PyTorch original on the same labelled pictures, measured at export.
#[non_exhaustive]
#[allow(clippy::derive_partial_eq_without_eq)]
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Accuracy {
    /// "top-1", the fraction of pictures whose best label is correct, or "mAP50-95", COCO's mean
    /// average precision.
    #[prost(string, tag="1")]
    pub metric: ::prost::alloc::string::String,
    /// Accuracy of the file, measured with the code that serves. Range [0, 1].
    #[prost(double, tag="2")]
    pub value: f64,
    /// Accuracy of the PyTorch original. Range [0, 1].
    #[prost(double, tag="3")]
    pub original: f64,
    /// Number of pictures.
    #[prost(int32, tag="4")]
    pub pictures: i32,
    /// Description of the pictures.
    #[prost(string, tag="5")]
    pub source: ::prost::alloc::string::String,
    /// True if none of the pictures was used to convert the weights to the model's precision.
    #[prost(bool, tag="6")]
    pub held_out: bool,
    /// Standard error of the difference between the two accuracies. Range [0, 1].
    #[prost(double, tag="7")]
    pub error: f64,
}
/// What a model can do with an image.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum Task {
    /// Not set. Never sent by the server.
    Unspecified = 0,
    /// One set of labels for the whole image.
    Classification = 1,
    /// Boxes around objects, each with a label.
    ObjectDetection = 2,
}
impl Task {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Task::Unspecified => "TASK_UNSPECIFIED",
            Task::Classification => "TASK_CLASSIFICATION",
            Task::ObjectDetection => "TASK_OBJECT_DETECTION",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "TASK_UNSPECIFIED" => Some(Self::Unspecified),
            "TASK_CLASSIFICATION" => Some(Self::Classification),
            "TASK_OBJECT_DETECTION" => Some(Self::ObjectDetection),
            _ => None,
        }
    }
}
/// The memory layout of a raw image. Rows are stored without padding.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum PixelFormat {
    /// Not set. Rejected.
    Unspecified = 0,
    /// Red, green, blue: 3 bytes per pixel.
    Rgb = 1,
    /// Blue, green, red: 3 bytes per pixel, as in OpenCV.
    Bgr = 2,
    /// One byte per pixel; 0 is black.
    Gray = 3,
    /// A Y plane, then interleaved U and V at half resolution: 1.5 bytes per pixel. BT.601, limited
    /// range, as cameras deliver it. Width and height must be even.
    Nv12 = 4,
}
impl PixelFormat {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            PixelFormat::Unspecified => "PIXEL_FORMAT_UNSPECIFIED",
            PixelFormat::Rgb => "PIXEL_FORMAT_RGB",
            PixelFormat::Bgr => "PIXEL_FORMAT_BGR",
            PixelFormat::Gray => "PIXEL_FORMAT_GRAY",
            PixelFormat::Nv12 => "PIXEL_FORMAT_NV12",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "PIXEL_FORMAT_UNSPECIFIED" => Some(Self::Unspecified),
            "PIXEL_FORMAT_RGB" => Some(Self::Rgb),
            "PIXEL_FORMAT_BGR" => Some(Self::Bgr),
            "PIXEL_FORMAT_GRAY" => Some(Self::Gray),
            "PIXEL_FORMAT_NV12" => Some(Self::Nv12),
            _ => None,
        }
    }
}
