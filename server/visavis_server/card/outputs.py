"""How a model's outputs are read."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from visavis_server.card.fields import Part, Probability


class ClassActivation(Part):
    """What class activation maps are computed from: Zhou et al., arXiv:1512.04150.

    features: the output [batch, channels, h, w] whose mean over h and w the last layer reads.
    weights: that layer's initializer, [classes, channels]. scales: the step of each class, an
    initializer [classes], if the weights are integers; empty: they are floats.
    """

    features: str
    weights: str
    scales: str = ""


class ClassScores(Part):
    """One tensor [batch, classes]: logits, or probabilities that sum to 1.

    activation: None if the file has no class activation maps.
    """

    layout: Literal["logits", "probabilities"]
    tensor: str
    activation: ClassActivation | None = None


class Yolov5Heads(Part):
    """The inputs, weights and objectness of YOLOv5's heads; three tensors per scale.

    The rest of each head is computed outside the graph, only for cells that may hold an object.
    objectness: logits [batch, anchors, h, w]. features: the head's input, [batch, h, w, channels].
    weights: the head itself, bias last, [batch, anchors * (5 + classes), channels + 1].
    anchors: per scale, (width, height) in pixels of the input. strides: pixels per cell.
    """

    layout: Literal["yolov5_heads"] = "yolov5_heads"
    objectness: tuple[str, ...]
    features: tuple[str, ...]
    weights: tuple[str, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    strides: tuple[int, ...]

    @model_validator(mode="after")
    def _one_entry_per_scale(self) -> Self:
        entries = {
            "objectness": len(self.objectness),
            "features": len(self.features),
            "weights": len(self.weights),
            "anchors": len(self.anchors),
            "strides": len(self.strides),
        }
        if len(set(entries.values())) > 1 or not self.strides:
            counts = ", ".join(f"{name} {count}" for name, count in entries.items())
            raise ValueError(f"each list needs one entry per scale; the lengths are: {counts}")
        return self


class CandidateRows(Part):
    """One tensor of decoded candidates, boxes in pixels of the input.

    yolov5_rows: [batch, n, 5 + classes], cxcywh, objectness, class scores.
    ultralytics_rows: [batch, 4 + classes, n], cxcywh, class scores.
    end_to_end: [batch, n, 6], xyxy, score, class id; the graph drops duplicates.
    """

    layout: Literal["yolov5_rows", "ultralytics_rows", "end_to_end"]
    tensor: str


ModelOutput = Annotated[ClassScores | Yolov5Heads | CandidateRows, Field(discriminator="layout")]


class DetectionDefaults(Part):
    """The thresholds for requests that set none."""

    score_threshold: Probability
    iou_threshold: Probability
    max_detections: Annotated[int, Field(ge=1, le=1000)] = 300
