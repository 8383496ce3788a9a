"""The document of a model file, and the facts that its card shows."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from visavis_server.card.fields import Count, Name, Part, Positive, Precision, Sha256, Task
from visavis_server.card.inputs import Letterbox, ModelInput, ShorterSideWithin
from visavis_server.card.outputs import (
    ClassActivation,
    ClassScores,
    DetectionDefaults,
    FasterRcnnRows,
    ModelOutput,
    RetinanetHeads,
    Yolov5Heads,
)
from visavis_server.card.proof import Accuracy, GoldenSample, Receipt


class LabelSet(Part):
    """The classes of a model; models whose sets have the same name share class ids."""

    name: Name
    labels: Annotated[tuple[str, ...], Field(min_length=1)]


class Facts(Part):
    """The facts that people compare models by; `sources` gives the source of each."""

    architecture: str
    organization: str = ""
    category: str = ""
    modality: str = ""
    release_date: Annotated[str, Field(pattern=r"^(\d{4}(-\d{2}(-\d{2})?)?)?$")] = ""
    context_window: Positive | None = None
    parameter_count: Count = 0
    code_license: str = ""
    weights_license: str = ""
    real_time: bool | None = None
    sources: dict[str, str] = Field(default={})

    @model_validator(mode="after")
    def _sources_name_facts(self) -> Self:
        if unknown := set(self.sources) - set(type(self).model_fields):
            raise ValueError(f"sources for unknown facts: {sorted(unknown)}")
        return self


class Provenance(Part):
    """The origin of the file; `conversion` says how fp32 became another precision."""

    weights_source: str
    weights_sha256: Sha256 | None = None
    random_weights: bool = False
    exporter: str
    exported_at: datetime | None = None
    libraries: dict[str, str] = Field(default={})
    conversion: str = ""


class ModelDocument(Part):
    """The document of one model file: everything needed to serve it and to describe it."""

    schema_version: Literal[1] = 1
    name: Name
    task: Task
    precision: Precision
    variant_of: Name | None = None
    label_set: LabelSet
    input: ModelInput
    output: ModelOutput
    detection_defaults: DetectionDefaults | None = None
    facts: Facts
    provenance: Provenance
    digest: Sha256 | None = None
    golden_sample: GoldenSample | None = None
    receipt: Receipt | None = None
    accuracy: Accuracy | None = None

    @model_validator(mode="after")
    def _parts_fit_the_task(self) -> Self:
        detects = self.task is Task.OBJECT_DETECTION
        if detects == isinstance(self.output, ClassScores):
            raise ValueError(f"an output of layout {self.output.layout} can't serve {self.task}")
        if detects != isinstance(self.input.resize, Letterbox | ShorterSideWithin):
            raise ValueError(f"resize rule {self.input.resize.rule} can't serve {self.task}")
        if self.input.varies != isinstance(self.output, RetinanetHeads | FasterRcnnRows):
            raise ValueError(
                f"an output of layout {self.output.layout} does not go with the resize rule "
                f"{self.input.resize.rule}"
            )
        metric = self.accuracy.metric if self.accuracy else None
        if metric == ("top-1" if detects else "mAP50-95"):
            raise ValueError(f"the accuracy metric {metric} does not apply to {self.task}")
        if detects != (self.detection_defaults is not None):
            raise ValueError("detection_defaults are required for detectors, and only for them")
        return self


def output_names(document: ModelDocument) -> list[str]:
    """Return the names of the graph's outputs that the family reads, in its order."""
    output = document.output
    if isinstance(output, Yolov5Heads):
        return [*output.objectness, *output.features, *output.weights]
    if isinstance(output, RetinanetHeads):
        return [*output.logits, *output.deltas]
    if isinstance(output, FasterRcnnRows):
        return [output.proposals, output.logits, output.deltas]
    return [output.tensor]


def explanation_outputs(document: ModelDocument) -> list[str]:
    """Return the names of the graph's outputs that only heat maps need."""
    activation = _activation(document)
    return [activation.features] if activation else []


def checked_names(document: ModelDocument) -> list[str]:
    """Return the names of the graph's outputs that its golden sample holds."""
    output = document.output
    if isinstance(output, FasterRcnnRows):
        return list(output.checked)
    return [*output_names(document), *explanation_outputs(document)]


def graph_outputs(document: ModelDocument) -> list[str]:
    """Return the names of all the graph's outputs: those of answers come first."""
    return list(dict.fromkeys((*output_names(document), *checked_names(document))))


def explanation_constants(document: ModelDocument) -> list[str]:
    """Return the names of the graph's initializers that heat maps need, in the family's order."""
    activation = _activation(document)
    return [name for name in (activation.weights, activation.scales) if name] if activation else []


def _activation(document: ModelDocument) -> ClassActivation | None:
    output = document.output
    return output.activation if isinstance(output, ClassScores) else None
