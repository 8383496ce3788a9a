//! What the calls return.

use std::fmt;

use crate::cards::Model;
use crate::proto::google::rpc::Code;
use crate::proto::v1;
use crate::{
    AnnotatedImage, BoundingBox, Classification, ClassificationAgreement, DetectionAgreement,
    ImageSize, LeftOutModel, ServedBy, Timings,
};

/// What a model can do with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// One set of labels for the whole image.
    Classification,
    /// Boxes around objects, each with a label.
    Detection,
}

impl Task {
    /// Returns the task of a message; None if it is newer than this client.
    pub(crate) fn known(message: v1::Task) -> Option<Self> {
        match message {
            v1::Task::Classification => Some(Self::Classification),
            v1::Task::ObjectDetection => Some(Self::Detection),
            v1::Task::Unspecified => None,
        }
    }

    pub(crate) fn value(self) -> i32 {
        match self {
            Self::Classification => v1::Task::Classification as i32,
            Self::Detection => v1::Task::ObjectDetection as i32,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str(match self {
            Self::Classification => "classification",
            Self::Detection => "object detection",
        })
    }
}

/// How much each cell of a grid over a part of the picture speaks for a label.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HeatMap {
    /// Index of the label in the model's label set.
    pub class_id: i32,
    /// Name of the label.
    pub label: String,
    /// Number of columns.
    pub width: i32,
    /// Number of rows.
    pub height: i32,
    /// One value for each cell, row by row, from the top. Classifiers: the class activation map, of
    /// any range. Detectors: scores in [0, 1].
    pub values: Vec<f32>,
    /// The smallest value.
    pub min: f32,
    /// The largest value.
    pub max: f32,
    /// The part of the picture that the cells cover; may exceed the picture by a part of a cell.
    pub area: BoundingBox,
}

/// One model's labels for an image.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClassifyResult {
    /// Labels, highest score first.
    pub classifications: Vec<Classification>,
    /// The model that answered.
    pub served_by: ServedBy,
    /// Time spent in each stage.
    pub timings: Timings,
    /// Size of the upright picture.
    pub image_size: ImageSize,
    /// The picture with the labels drawn on it, if requested.
    pub annotated_image: Option<AnnotatedImage>,
    /// The heat map, if requested.
    pub heat_map: Option<HeatMap>,
}

/// One model's detections in an image.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DetectResult {
    /// Detections, highest score first.
    pub detections: Vec<Detection>,
    /// The model that answered.
    pub served_by: ServedBy,
    /// Time spent in each stage.
    pub timings: Timings,
    /// Size of the upright picture; boxes are in its pixels.
    pub image_size: ImageSize,
    /// The picture with the boxes drawn on it, if requested.
    pub annotated_image: Option<AnnotatedImage>,
    /// The heat map, if requested.
    pub heat_map: Option<HeatMap>,
}

/// One object found in the image.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Detection {
    /// Location in the upright picture.
    pub bounds: BoundingBox,
    /// Index of the label in the model's label set.
    pub class_id: i32,
    /// Name of the label.
    pub label: String,
    /// Probability of this label. Range [0, 1].
    pub score: f32,
}

/// The answers of all models, side by side.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// One entry per task that has a capable model.
    pub comparisons: Vec<TaskComparison>,
    /// Models that were not run, ordered by name.
    pub left_out: Vec<LeftOutModel>,
    /// Cards of the models that were run, ordered by name; without labels and receipts.
    pub models: Vec<Model>,
    /// Size of the upright picture; boxes are in its pixels.
    pub image_size: ImageSize,
    /// Time spent on the whole comparison; each answer has the stages of its model.
    pub timings: Timings,
    /// The answers drawn side by side, if requested.
    pub annotated_image: Option<AnnotatedImage>,
}

/// The answers for one task.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TaskComparison {
    /// The task.
    pub task: Task,
    /// Name of the model that the others are compared with.
    pub baseline: String,
    /// One answer per model.
    pub answers: Vec<ModelAnswer>,
    /// Why nothing is compared, as a sentence. Empty if two or more models are capable.
    pub nothing_to_compare: String,
}

/// One model's answer, or the reason that it has none.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelAnswer {
    /// The model that answered.
    pub served_by: ServedBy,
    /// Outcome of the run.
    pub status: AnswerStatus,
    /// Labels, highest score first. Empty for detectors, and if the status is not Ok.
    pub classifications: Vec<Classification>,
    /// Detections, highest score first. Empty for classifiers, and if the status is not Ok.
    pub detections: Vec<Detection>,
    /// Time spent in each stage. None if the status is not Ok.
    pub timings: Option<Timings>,
    /// Agreement with the baseline's answer. None for the baseline itself, if one of the two has no
    /// answer, and in the answers of a stream.
    pub agreement: Option<Agreement>,
    /// The heat map, if requested. None if the status is not Ok.
    pub heat_map: Option<HeatMap>,
}

/// Outcome of one model's run. A failure does not affect other models.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnswerStatus {
    /// `Ok` if the model answered.
    pub code: Code,
    /// A readable error message. Empty if the model answered.
    pub message: String,
}

/// How far two models agree on one image.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Agreement {
    /// Of two classifiers.
    Classification(ClassificationAgreement),
    /// Of two detectors.
    Detection(DetectionAgreement),
}

/// One step of a streamed comparison.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CompareEvent {
    /// One model's answer, as soon as it is ready.
    Answer {
        /// The task.
        task: Task,
        /// The answer, without its agreement.
        answer: ModelAnswer,
    },
    /// The whole comparison, at the end.
    Comparison(Comparison),
}

impl From<v1::ClassifyResponse> for ClassifyResult {
    fn from(message: v1::ClassifyResponse) -> Self {
        Self {
            classifications: message.classifications,
            served_by: message.served_by.unwrap_or_default(),
            timings: message.timings.unwrap_or_default(),
            image_size: message.image_size.unwrap_or_default(),
            annotated_image: message.annotated_image,
            heat_map: message.heat_map.map(HeatMap::from),
        }
    }
}

impl From<v1::DetectResponse> for DetectResult {
    fn from(message: v1::DetectResponse) -> Self {
        Self {
            detections: all(message.detections),
            served_by: message.served_by.unwrap_or_default(),
            timings: message.timings.unwrap_or_default(),
            image_size: message.image_size.unwrap_or_default(),
            annotated_image: message.annotated_image,
            heat_map: message.heat_map.map(HeatMap::from),
        }
    }
}

impl From<v1::Detection> for Detection {
    fn from(message: v1::Detection) -> Self {
        Self {
            bounds: message.r#box.unwrap_or_default(),
            class_id: message.class_id,
            label: message.label,
            score: message.score,
        }
    }
}

impl From<v1::HeatMap> for HeatMap {
    fn from(message: v1::HeatMap) -> Self {
        let v1::HeatMapArea { x_min, y_min, x_max, y_max } = message.area.unwrap_or_default();
        Self {
            class_id: message.class_id,
            label: message.label,
            width: message.width,
            height: message.height,
            values: message.values,
            min: message.min,
            max: message.max,
            area: BoundingBox { x_min, y_min, x_max, y_max },
        }
    }
}

impl From<v1::CompareResponse> for Comparison {
    fn from(message: v1::CompareResponse) -> Self {
        Self {
            comparisons: message.comparisons.into_iter().filter_map(task_comparison).collect(),
            left_out: message.left_out,
            models: all(message.models),
            image_size: message.image_size.unwrap_or_default(),
            timings: message.timings.unwrap_or_default(),
            annotated_image: message.annotated_image,
        }
    }
}

impl From<v1::ModelAnswer> for ModelAnswer {
    fn from(message: v1::ModelAnswer) -> Self {
        use v1::model_answer::Agreement as Of;
        let v1::AnswerStatus { code, message: text } = message.status.unwrap_or_default();
        Self {
            served_by: message.served_by.unwrap_or_default(),
            status: AnswerStatus {
                code: Code::from_i32(code).unwrap_or(Code::Unknown),
                message: text,
            },
            classifications: message.classifications,
            detections: all(message.detections),
            timings: message.timings,
            agreement: message.agreement.map(|agreement| match agreement {
                Of::ClassificationAgreement(of) => Agreement::Classification(of),
                Of::DetectionAgreement(of) => Agreement::Detection(of),
            }),
            heat_map: message.heat_map.map(HeatMap::from),
        }
    }
}

impl CompareEvent {
    /// Returns a step of a comparison; None for one that is newer than this client.
    pub(crate) fn known(message: v1::CompareStreamResponse) -> Option<Self> {
        use v1::compare_stream_response::Event;
        match message.event? {
            Event::Summary(summary) => Some(Self::Comparison(summary.into())),
            Event::Answer(streamed) => {
                let task = Task::known(streamed.task())?;
                Some(Self::Answer { task, answer: streamed.answer?.into() })
            }
        }
    }
}

fn task_comparison(message: v1::TaskComparison) -> Option<TaskComparison> {
    Some(TaskComparison {
        task: Task::known(message.task())?,
        baseline: message.baseline,
        answers: all(message.answers),
        nothing_to_compare: message.nothing_to_compare,
    })
}

fn all<Message, T: From<Message>>(messages: Vec<Message>) -> Vec<T> {
    messages.into_iter().map(T::from).collect()
}
