//! A model's card.

use crate::proto::v1;
use crate::results::Task;
use crate::{
    Accuracy, DetectionDefaults, LabelSet, ModelFacts, ModelInput, Provenance, Receipt,
    Verification,
};

/// A model's card: its properties, origin and proof. An empty string is unknown.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Model {
    /// Name in the repository.
    pub name: String,
    /// The version that this card describes.
    pub version: i32,
    /// All versions that can be requested, ascending.
    pub versions: Vec<i32>,
    /// Tasks that the model is capable of.
    pub tasks: Vec<Task>,
    /// Number format of the weights: fp32, fp16 or int8.
    pub precision: String,
    /// Name of the model whose weights this model has in another precision.
    pub variant_of: String,
    /// ONNX Runtime's name of the execution provider that runs the model.
    pub execution_provider: String,
    /// True if the weights are random, which makes the answers meaningless.
    pub random_weights: bool,
    /// Facts to compare models by.
    pub facts: ModelFacts,
    /// The classes that the model knows.
    pub label_set: LabelSet,
    /// How an image is converted to the model's input.
    pub input: ModelInput,
    /// Defaults for requests that do not set these values. None for classifiers.
    pub detection_defaults: Option<DetectionDefaults>,
    /// Origin of the file.
    pub provenance: Provenance,
    /// Checks that passed when the model was loaded.
    pub verification: Verification,
    /// Proof of how closely the file follows its PyTorch original. None in lists.
    pub receipt: Option<Receipt>,
    /// Accuracy on labelled pictures, measured at export.
    pub accuracy: Option<Accuracy>,
}

impl From<v1::Model> for Model {
    fn from(message: v1::Model) -> Self {
        Self {
            tasks: message.tasks().filter_map(Task::known).collect(),
            name: message.name,
            version: message.version,
            versions: message.versions,
            precision: message.precision,
            variant_of: message.variant_of,
            execution_provider: message.execution_provider,
            random_weights: message.random_weights,
            facts: message.facts.unwrap_or_default(),
            label_set: message.label_set.unwrap_or_default(),
            input: message.input.unwrap_or_default(),
            detection_defaults: message.detection_defaults,
            provenance: message.provenance.unwrap_or_default(),
            verification: message.verification.unwrap_or_default(),
            receipt: message.receipt,
            accuracy: message.accuracy,
        }
    }
}
