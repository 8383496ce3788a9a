"""The ONNX file of a verification: what it says of itself, or what its shapes say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from visavis_export.checkpoints.pickled import shown
from visavis_export.errors import ExportError
from visavis_export.families.original import Floats
from visavis_export.proof.served import ServedFile
from visavis_export.verification.graph_layers import precision_of, require_float_input
from visavis_export.verification.originals import Layout, Original
from visavis_server.card import (
    METADATA_KEY,
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
    Task,
    output_names,
)
from visavis_server.errors import ModelFailed, VisavisError
from visavis_server.models.loader import read_document
from visavis_server.models.verified_file import VerifiedFile
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session
from visavis_server.vision.families import family_of
from visavis_server.vision.labels import name_of_label_set

_NAME = "file"
_MEAN_OF_NOTHING = (0.0, 0.0, 0.0)
_STD_OF_NOTHING = (1.0, 1.0, 1.0)
RowLayout = Literal["yolov5_rows", "ultralytics_rows", "end_to_end"]


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """An ONNX file, with the document that the server reads it by.

    declared: where that comes from; "" if the file says nothing and the original's was assumed.
    precision: of its weights, as found in the graph. changed: the digest in its document is not
    the file's.
    """

    path: Path
    served: ServedFile
    declared: str
    precision: str
    changed: bool

    @property
    def document(self) -> ModelDocument:
        """The description of the file."""
        return self.served.document

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the input in pixels."""
        return self.document.input.width, self.document.input.height

    def run(self, tensor: Floats) -> list[Floats]:
        """Return the outputs that the document names, for an input [3, H, W].

        Raises ExportError if the graph fails.
        """
        names = output_names(self.document)
        try:
            return self.served.session.run(np.ascontiguousarray(tensor[None]), names)
        except ModelFailed as error:
            raise ExportError(
                f"{self.path} can't be run on an input [1, {', '.join(map(str, tensor.shape))}]: "
                f"{shown(str(error.__cause__ or error), 300)}"
            ) from error

    def scores(self, outputs: list[Floats]) -> Floats:
        """Return outputs as [4 + classes, n] or [classes]; may contain NaN."""
        return family_of(self.document).as_tensor(outputs)


def read_file(path: Path, original: Original, cache: Path) -> ForeignFile:
    """Return the ONNX file at a path.

    original: what it is compared with; it stands in for what the file does not say. cache: a folder
    for what execution providers keep. Raises ExportError with what to do if the file cannot be
    read, or does another task.
    """
    if not path.is_file():
        raise ExportError(f"{path} does not exist; give the .onnx file")
    try:
        opened = VerifiedFile(path)
        require_float_input(path)
        session = Session(path, CPU, SessionConfig(cache, threads=usable_cores()))
        metadata = opened.contents.metadata
        if METADATA_KEY in metadata:
            declared = "its own document"
        elif opened.sidecar is not None:
            declared = f"{path.with_suffix('.json').name} beside it"
        elif "names" in metadata:
            declared = "its metadata"
        else:
            declared = ""
        document = read_document(_NAME, opened) if declared else _assumed(path, session, original)
        changed = document.digest not in (None, opened.contents.digest)
    except VisavisError as error:
        raise ExportError(str(error)) from error
    if document.task is not original.task:
        raise ExportError(
            f"{path} is a model for {document.task}, and the original, {original.title}, is for "
            f"{original.task}; compare files of one model"
        )
    served = ServedFile(document, session)
    return ForeignFile(path, served, declared, precision_of(path), changed)


def _assumed(path: Path, session: Session, original: Original) -> ModelDocument:
    """Return a document for a file without metadata, from its shapes and the original.

    Raises ExportError if its shapes do not fit the original.
    """
    shape = session.input_shape
    if len(shape) != 4 or shape[1] not in (3, None):
        raise ExportError(
            f"{path} has no metadata, and its input is {shape}, not [batch, 3, height, width]; "
            "describe it in a .json beside it (docs/models.md)"
        )
    own = original.pipeline.geometry
    height, width = shape[2] or own.height, shape[3] or own.width
    tensor = next(iter(session.output_shapes))
    grey = np.full((1, 3, height, width), 0.4, np.float32)
    output = np.asarray(session.run(grey, [tensor])[0])
    classes = len(original.labels)
    mean, std = _MEAN_OF_NOTHING, _STD_OF_NOTHING
    if original.pipeline.values.normalised:
        mean, std = original.pipeline.values.mean, original.pipeline.values.std
    classifies = original.task is Task.CLASSIFICATION
    fits = output.shape == (1, classes) if classifies else _row_layout(output.shape, classes)
    if not fits:
        raise ExportError(
            f"{path} has no metadata, and its output {list(output.shape)} does not fit "
            f"{original.title} with {classes} classes; describe the file in a .json beside it "
            "(docs/models.md)"
        )
    resize = (
        Letterbox(unpad=original.unpad)
        if not classifies
        else CenterSquare()
        if own.rule == "centre square"
        else ShorterSide(size=max(own.shorter_side, height, width))
    )
    score, iou = original.thresholds
    return ModelDocument(
        name=_NAME,
        task=original.task,
        precision="fp32",
        label_set=LabelSet(name=name_of_label_set(original.labels), labels=original.labels),
        input=ModelInput(
            tensor=session.input_name,
            width=width,
            height=height,
            dtype=session.input_dtype,
            resize=resize,
            mean=mean,
            std=std,
        ),
        output=_output(output, tensor, classes, classifies),
        detection_defaults=(
            None if classifies else DetectionDefaults(score_threshold=score, iou_threshold=iou)
        ),
        facts=Facts(architecture="unknown"),
        provenance=Provenance(weights_source="unknown", exporter="unknown"),
    )


def _output(
    output: Floats, tensor: str, classes: int, classifies: bool
) -> ClassScores | CandidateRows:
    if classifies:
        sums_to_one = output.min() >= 0 and abs(float(output.sum()) - 1) < 1e-2
        return ClassScores(layout="probabilities" if sums_to_one else "logits", tensor=tensor)
    layout = _row_layout(output.shape, classes)
    assert layout is not None
    return CandidateRows(layout=layout, tensor=tensor)


def _row_layout(shape: tuple[int, ...], classes: int) -> RowLayout | None:
    """Return the layout of a detector's output; None if it is none that is known."""
    if len(shape) != 3:
        return None
    if shape[2] == 5 + classes and shape[1] > shape[2]:
        return "yolov5_rows"
    if shape[1] == 4 + classes:
        return "ultralytics_rows"
    return "end_to_end" if shape[2] == 6 else None


def in_layout(raw: Floats, own: Layout, layout: str) -> Floats | None:
    """Return an original's raw output in the layout that a file declares; None if impossible."""
    if own == layout or own == "logits":
        return raw
    if own == "yolov5_rows" and layout == "ultralytics_rows":
        return np.concatenate((raw[:, :4], raw[:, 5:] * raw[:, 4:5]), axis=1).T
    if own == "ultralytics_rows" and layout == "yolov5_rows":
        ones = np.ones((raw.shape[1], 1), np.float32)
        return np.concatenate((raw[:4].T, ones, raw[4:].T), axis=1)
    return None
