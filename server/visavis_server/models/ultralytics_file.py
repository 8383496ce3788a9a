"""Converts the metadata of model files that `ultralytics` exported into a document."""

import re
from typing import Literal as OneOf

import numpy as np

from visavis_server.card import (
    CandidateRows,
    CenterSquare,
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
from visavis_server.errors import ModelFileError
from visavis_server.models.literal import Literal, read_literal
from visavis_server.runtime.session import Session
from visavis_server.vision.labels import name_of_label_set, read_labels

# In pixels. The export makes no larger input, and the probe takes 12 bytes per pixel.
_MAX_SIDE = 4096
# Of a file's author and licence, which the card shows.
_MAX_TEXT_LENGTH = 200
# ImageNet's, as ultralytics/yolov5's classifiers expect.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NAMES_ADVICE = (
    "export the weights with `visavis export`, which reads class names from --class-names FILE, or "
    "put a model.json beside the file"
)
_PerChannel = tuple[float, float, float]
_Layout = OneOf["ultralytics_rows", "end_to_end"]


def document_of(name: str, metadata: dict[str, str], session: Session, where: str) -> ModelDocument:
    """Return the document of a file that ultralytics, or ultralytics/yolov5, exported.

    metadata: of the file: `names`, and from ultralytics `task` and `imgsz`. Raises ModelFileError
    if a key is missing, or if the task is neither classification nor detection.
    """
    labels = _labels(metadata, where)
    if "task" not in metadata:
        return _document_of_yolov5(name, labels, metadata, session, where)
    task = metadata["task"]
    if task not in ("detect", "classify"):
        raise ModelFileError(
            f"{where}: its task is {_line(task)!r}; only detect and classify can be served"
        )
    height, width = _input_size(metadata, session, where, None)
    resize: ShorterSide | Stretch | Letterbox
    output: ClassScores | CandidateRows
    if task == "classify":
        # ultralytics resizes the shorter side for a square input, and stretches for others.
        resize = ShorterSide(size=width) if width == height else Stretch()
        output = ClassScores(layout="probabilities", tensor=next(iter(session.output_shapes)))
    else:
        tensor, shape = _probe(session, height, width)
        resize = Letterbox(unpad="rounded")
        output = CandidateRows(layout=_layout(shape, len(labels), metadata, where), tensor=tensor)
    return ModelDocument(
        name=name,
        task=Task.CLASSIFICATION if task == "classify" else Task.OBJECT_DETECTION,
        precision="fp16" if session.input_dtype == "float16" else "fp32",
        label_set=LabelSet(name=name_of_label_set(labels), labels=labels),
        input=_input(session, height, width, resize),
        output=output,
        detection_defaults=(
            None
            if task == "classify"
            else DetectionDefaults(score_threshold=0.25, iou_threshold=0.7)
        ),
        facts=_facts(metadata, "YOLO"),
        provenance=Provenance(
            weights_source="an .onnx file exported by ultralytics",
            exporter=f"ultralytics {_line(metadata.get('version', ''))}".strip(),
        ),
    )


def _document_of_yolov5(
    name: str,
    labels: tuple[str, ...],
    metadata: dict[str, str],
    session: Session,
    where: str,
) -> ModelDocument:
    """Return the document of a file that ultralytics/yolov5 exported.

    Its metadata holds only names and stride; the shapes of the outputs show the task.
    """
    # The sizes at which its detectors are trained and exported; P6 models have a stride of 64.
    usual = 1280 if metadata.get("stride") == "64" else 640
    height, width = _input_size(metadata, session, where, usual)
    tensor, shape = _probe(session, height, width)
    source = "an .onnx file exported by ultralytics/yolov5"
    classifies = len(shape) == 2
    any_size = None in session.input_shape[2:]
    if classifies and any_size:
        height = width = 224
    if any_size:
        source += f" with a dynamic input size, served at the usual {height}x{width}"
    classes = shape[1] if classifies else shape[-1] - 5
    masks = [out[1] for out in session.output_shapes.values() if len(out) == 4]
    if not classifies and classes - len(labels) in masks:
        raise ModelFileError(
            f"{where}: it is a segmentation model of ultralytics/yolov5; only detectors and "
            "classifiers can be served"
        )
    if not (classifies or len(shape) == 3) or classes < 1:
        raise ModelFileError(
            f"{where}: its output {list(shape)} is neither a detector's, [1, candidates, 5 + "
            "classes], nor a classifier's, [1, classes]"
        )
    _require_names(len(labels), classes, where)
    return ModelDocument(
        name=name,
        task=Task.CLASSIFICATION if classifies else Task.OBJECT_DETECTION,
        precision="fp16" if session.input_dtype == "float16" else "fp32",
        label_set=LabelSet(name=name_of_label_set(labels), labels=labels),
        input=(
            _input(session, height, width, CenterSquare(), _MEAN, _STD)
            if classifies
            else _input(session, height, width, Letterbox(unpad="exact"))
        ),
        output=(
            ClassScores(layout="logits", tensor=tensor)
            if classifies
            else CandidateRows(layout="yolov5_rows", tensor=tensor)
        ),
        detection_defaults=(
            None if classifies else DetectionDefaults(score_threshold=0.25, iou_threshold=0.45)
        ),
        facts=_facts(metadata, "YOLOv5"),
        provenance=Provenance(weights_source=source, exporter="ultralytics/yolov5"),
    )


def _input(
    session: Session,
    height: int,
    width: int,
    resize: ShorterSide | Stretch | CenterSquare | Letterbox,
    mean: _PerChannel = (0.0, 0.0, 0.0),
    std: _PerChannel = (1.0, 1.0, 1.0),
) -> ModelInput:
    return ModelInput(
        tensor=session.input_name,
        width=width,
        height=height,
        dtype=session.input_dtype,
        resize=resize,
        mean=mean,
        std=std,
    )


def _probe(session: Session, height: int, width: int) -> tuple[str, tuple[int, ...]]:
    """Return the name and the shape of a file's first output for one image.

    Runs the graph: with a dynamic input size, its declared output shapes are unknown.
    """
    tensor = next(iter(session.output_shapes))
    (output,) = session.run(np.zeros((1, 3, height, width), np.float32), [tensor])
    return tensor, output.shape


def _literal(metadata: dict[str, str], key: str, where: str) -> Literal:
    try:
        return read_literal(metadata[key])
    except KeyError:
        raise ModelFileError(
            f"{where}: it has neither a visavis document nor ultralytics' metadata ({key} is "
            f"missing); {_NAMES_ADVICE}"
        ) from None
    except ValueError as error:
        raise ModelFileError(
            f"{where}: its metadata {key} is invalid: {error}; export it again"
        ) from None


def _labels(metadata: dict[str, str], where: str) -> tuple[str, ...]:
    try:
        return read_labels(_literal(metadata, "names", where))
    except ValueError as error:
        raise ModelFileError(
            f"{where}: its metadata names is invalid: {error}; {_NAMES_ADVICE}"
        ) from None


def _require_names(labels: int, classes: int, where: str) -> None:
    if labels != classes:
        raise ModelFileError(
            f"{where}: its metadata has names for {labels} classes, but its graph has {classes}; "
            f"{_NAMES_ADVICE}"
        )


def _input_size(
    metadata: dict[str, str], session: Session, where: str, usual: int | None
) -> tuple[int, int]:
    """Return height and width: the graph's, or the metadata's if the graph's are dynamic.

    usual: the side to use if the metadata has no size either.
    """
    shape = session.input_shape
    if len(shape) != 4 or shape[1] not in (3, None):
        raise ModelFileError(f"{where}: its input is {shape}; it must be [batch, 3, height, width]")
    size: object = [usual, usual]
    if shape[2] and shape[3]:
        size = shape[2:]
    elif usual is None or "imgsz" in metadata:
        size = _literal(metadata, "imgsz", where)
    match size:
        case [int(height), int(width)] if 1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE:
            return height, width
    raise ModelFileError(
        f"{where}: its input size is {size!s:.40}; it must be two sides of 1 to {_MAX_SIDE} pixels"
    )


def _layout(shape: tuple[int, ...], classes: int, metadata: dict[str, str], where: str) -> _Layout:
    """Return the layout of the output [1, ., .] of an ultralytics detector.

    A graph that drops duplicates returns [1, n, 6]. If n is 4 + classes too, the export's
    arguments decide.
    """
    if "rtdetr" in (metadata.get("head", "") + metadata.get("description", "")).lower():
        raise ModelFileError(
            f"{where}: it is an RT-DETR, whose output {list(shape)} is not supported; YOLO's is"
        )
    if len(shape) == 3:
        has_rows, drops = shape[1] == 4 + classes, _drops_duplicates(metadata)
        if shape[2] == 6 and (not has_rows or drops is not False):
            return "end_to_end"
        if has_rows:
            return "ultralytics_rows"
        if 4 < shape[1] < shape[2]:
            _require_names(classes, shape[1] - 4, where)
    raise ModelFileError(
        f"{where}: its output {list(shape)} matches no known layout of a detector with "
        f"{classes} classes"
    )


def _drops_duplicates(metadata: dict[str, str]) -> bool | None:
    """Return whether the graph drops duplicates, by the metadata; None if it does not say."""
    if metadata.get("end2end") == "True":
        return True
    # Searched in the repr: the arguments may hold lists, which read_literal rejects.
    argument = re.search(r"'nms': (True|False|None)\b", metadata.get("args", ""))
    return argument[1] == "True" if argument else None


def _facts(metadata: dict[str, str], architecture: str) -> Facts:
    texts = {key: _line(metadata.get(key, "")) for key in ("description", "author", "license")}
    described = re.match(r"Ultralytics (\S{1,40}) model", texts["description"])
    source = "the file's own metadata"
    sources = {
        "organization": source,
        "code_license": source,
        "weights_license": source,
    }
    return Facts(
        architecture=described[1] if described else architecture,
        organization=texts["author"] or "Ultralytics",
        category="open",
        modality="vision",
        code_license="AGPL-3.0-only",
        weights_license=texts["license"] or "AGPL-3.0-only",
        sources=sources,
    )


def _line(text: str) -> str:
    """Return the start of an untrusted text, without control characters."""
    return "".join(letter for letter in text[:_MAX_TEXT_LENGTH] if letter.isprintable())
