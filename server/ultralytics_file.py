"""Model files that `ultralytics` exported itself: their metadata, read as our document."""

import re
from typing import Literal as OneOf

import numpy as np

from server.card import (
    Candidates,
    ClassScores,
    DetectionDefaults,
    Facts,
    LabelSet,
    Letterbox,
    ModelDocument,
    ModelInput,
    Provenance,
    ShorterSide,
    Stretch,
    Task,
)
from server.errors import ModelFileError
from server.labels import check_labels, name_of_label_set
from server.literal import Literal, read_literal
from server.session import Session

# Pixels; the export makes none larger, and the probe takes 12 bytes for each.
_MAX_SIDE = 4096
# What a file says of its author and licence is shown on its card.
_MAX_TEXT_LENGTH = 200
_Layout = OneOf["yolov5_rows", "ultralytics_rows", "end_to_end"]


def document_of(name: str, metadata: dict[str, str], session: Session, where: str) -> ModelDocument:
    """Return the document of a file that ultralytics, or ultralytics/yolov5, exported.

    metadata: the file's, with `names`, and from ultralytics `task` and `imgsz`. Raises
    ModelFileError if something is missing, or the task is neither classification nor detection.
    """
    labels = _labels(metadata, where)
    task = metadata.get("task", "detect")  # ultralytics/yolov5 wrote names and stride only
    if task not in ("detect", "classify"):
        raise ModelFileError(
            f"{where}: its task is {_line(task)!r}; detect and classify are served"
        )
    height, width = _input_size(metadata, session, where)
    by_ultralytics = "task" in metadata
    tensor = next(iter(session.output_shapes))
    if task == "classify":
        # ultralytics resizes the shorter side to a square input, and stretches to any other.
        square = width == height
        resize: ShorterSide | Stretch | Letterbox = ShorterSide(size=width) if square else Stretch()
        output: ClassScores | Candidates = ClassScores(layout="probabilities", tensor=tensor)
        defaults = None
    else:
        # A graph for any size names no sizes: what it gives for one image does.
        (probe,) = session.run(np.zeros((1, 3, height, width), np.float32), [tensor])
        layout = _layout(probe.shape, len(labels), by_ultralytics, where)
        resize = Letterbox(unpad="exact" if layout == "yolov5_rows" else "rounded")
        output = Candidates(layout=layout, tensor=tensor)
        defaults = DetectionDefaults(
            score_threshold=0.25, iou_threshold=0.7 if by_ultralytics else 0.45
        )
    return ModelDocument(
        name=name,
        task=Task.CLASSIFICATION if task == "classify" else Task.OBJECT_DETECTION,
        precision="fp16" if session.input_dtype == "float16" else "fp32",
        label_set=LabelSet(name=name_of_label_set(labels), labels=labels),
        input=ModelInput(
            tensor=session.input_name,
            width=width,
            height=height,
            dtype=session.input_dtype,
            resize=resize,
        ),
        output=output,
        detection_defaults=defaults,
        facts=_facts(metadata),
        provenance=Provenance(
            weights_source="an .onnx file exported by ultralytics",
            exporter=f"ultralytics {_line(metadata.get('version', ''))}".strip(),
        ),
    )


def _literal(metadata: dict[str, str], key: str, where: str) -> Literal:
    try:
        return read_literal(metadata[key])
    except KeyError:
        raise ModelFileError(
            f"{where}: holds neither a visavis document nor ultralytics' metadata ({key} is "
            "missing); export the weights with `visavis export`, or put a model.json beside it"
        ) from None
    except ValueError as error:
        raise ModelFileError(
            f"{where}: its metadata {key} can't be read: {error}; export it again"
        ) from None


def _labels(metadata: dict[str, str], where: str) -> tuple[str, ...]:
    names = _literal(metadata, "names", where)
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise ModelFileError(f"{where}: its metadata names leaves out a class; export it again")
        names = [names[class_id] for class_id in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ModelFileError(f"{where}: its metadata names lists no classes; export it again")
    try:
        return check_labels(names)
    except ValueError as error:
        raise ModelFileError(f"{where}: its metadata: {error}") from None


def _input_size(metadata: dict[str, str], session: Session, where: str) -> tuple[int, int]:
    """Return height and width: the graph's, or the metadata's where any will do."""
    shape = session.input_shape
    if len(shape) != 4 or shape[1] not in (3, None):
        raise ModelFileError(f"{where}: its input is {shape}; [batch, 3, height, width] is served")
    size = shape[2:] if shape[2] and shape[3] else _literal(metadata, "imgsz", where)
    match size:
        case [int(height), int(width)] if 1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE:
            return height, width
    raise ModelFileError(
        f"{where}: its input size is {size!s:.40}; two sides of 1 to {_MAX_SIDE} pixels are served"
    )


def _layout(shape: tuple[int, ...], classes: int, by_ultralytics: bool, where: str) -> _Layout:
    """Return how the candidates lie in an output [1, ., .]."""
    if len(shape) == 3:
        if not by_ultralytics and shape[2] == 5 + classes:
            return "yolov5_rows"
        if by_ultralytics and shape[1] == 4 + classes:
            return "ultralytics_rows"
        if by_ultralytics and shape[2] == 6:
            return "end_to_end"
    raise ModelFileError(
        f"{where}: its output {list(shape)} fits none of the layouts of a detector with "
        f"{classes} classes"
    )


def _facts(metadata: dict[str, str]) -> Facts:
    texts = {key: _line(metadata.get(key, "")) for key in ("description", "author", "license")}
    described = re.match(r"Ultralytics (\S{1,40}) model", texts["description"])
    source = "the file's own metadata"
    sources = {
        "organization": source,
        "code_license": source,
        "weights_license": source,
    }
    return Facts(
        architecture=described[1] if described else "YOLO",
        organization=texts["author"] or "Ultralytics",
        category="computer vision",
        code_license="AGPL-3.0-only",
        weights_license=texts["license"] or "AGPL-3.0-only",
        sources=sources,
    )


def _line(text: str) -> str:
    """Return the beginning of a stranger's text, without control characters."""
    return "".join(letter for letter in text[:_MAX_TEXT_LENGTH] if letter.isprintable())
