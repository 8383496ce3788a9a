"""How a model's outputs are read."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from visavis_server.card.fields import Part, Probability


class ClassActivation(Part):
    """The sources of class activation maps: Zhou et al., arXiv:1512.04150.

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


class RetinanetHeads(Part):
    """The outputs of RetinaNet's heads; two tensors per level of the pyramid.

    logits: of every class, [batch, anchors * classes, h, w]. deltas: from the anchors to boxes,
    [batch, anchors * 4, h, w]. anchors: per level, (width, height) in pixels of the input. The
    first level has a cell for every 8 pixels.
    """

    layout: Literal["retinanet_heads"] = "retinanet_heads"
    logits: tuple[str, ...]
    deltas: tuple[str, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]

    @model_validator(mode="after")
    def _one_entry_per_level(self) -> Self:
        counts = len(self.logits), len(self.deltas), len(self.anchors)
        if len(set(counts)) > 1 or not self.logits:
            raise ValueError(
                "each list needs one entry per level; the lengths are: logits {}, deltas {}, "
                "anchors {}".format(*counts)
            )
        if len({len(anchors) for anchors in self.anchors}) > 1 or not self.anchors[0]:
            raise ValueError("each level needs the same number of anchors, at least one")
        return self


class FasterRcnnRows(Part):
    """Faster R-CNN's proposals, each with logits and a box for every class.

    proposals: xyxy in pixels of the input, [batch, n, 4]. logits: [batch, n, classes]; class 0 is
    the background. deltas: from the proposal to the box of each class, [batch, n, 4 * classes].
    checked: outputs for the golden sample. Near ties decide which proposals there are and in which
    order, so these three can differ between machines.
    """

    layout: Literal["fasterrcnn_rows"] = "fasterrcnn_rows"
    proposals: str
    logits: str
    deltas: str
    checked: tuple[str, ...] = ()


ModelOutput = Annotated[
    ClassScores | Yolov5Heads | CandidateRows | RetinanetHeads | FasterRcnnRows,
    Field(discriminator="layout"),
]


class DetectionDefaults(Part):
    """The thresholds for requests that set none."""

    score_threshold: Probability
    iou_threshold: Probability
    max_detections: Annotated[int, Field(ge=1, le=1000)] = 300
