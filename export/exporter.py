"""From a name to proven files in the repository: weights, module, graph, variants, receipts."""

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from rich.progress import Progress

from export import accuracy, pictures, receipt, resnet, yolov5, yolov5u
from export.checkpoint import read_state_dict, read_yolo_checkpoint
from export.errors import AccuracyFailed, ExportError
from export.graph import embed, write_graph
from export.labelled import Pictures, read_labelled
from export.original import Original
from export.precision import PRECISIONS, write_fp16, write_int8
from export.served import ServedFile, read_image
from export.weights import Release, Weights, cache_folder, find, yolov5_release
from server import golden
from server.card import (
    METADATA_KEY,
    NAME_PATTERN,
    Accuracy,
    ModelDocument,
    Provenance,
    Task,
    parse_document,
)
from server.cores import usable_cores
from server.errors import ModelFileError
from server.families import family_of, preprocess_one
from server.onnx_file import read_onnx_file
from server.providers import CPU, Setup
from server.repository import ModelFile, scan
from server.served_model import output_names
from server.session import Session

RANDOM = "random"
_LIBRARIES = (
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "pillow",
)

NAMES = (
    *resnet.NAMES,
    *yolov5.DETECTORS,
    *yolov5.CLASSIFIERS,
    *yolov5u.NAMES,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many points of accuracy a file may lose against its original; 100 points are all."""

    top1_drop: float = 0.5
    map_drop: float = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """One model to export.

    weights: a file, a folder, "random", or None for the published ones. out: the model
    repository. name: the model's own name; None: the architecture's. precisions: some of
    PRECISIONS; those other than fp32 become variants of the model. transforms: ResNet's,
    "V1" or "V2". class_names: by class id. size: side of the input in pixels; None: the
    model's own. pictures: files and folders for the receipt, beside the synthetic ones.
    calibration: a folder of real pictures, for int8 and for the accuracy. labels: of those
    pictures, where they don't lie in the usual place.
    """

    architecture: str
    out: Path
    weights: str | None = None
    name: str | None = None
    precisions: tuple[str, ...] = ("fp32",)
    transforms: str = resnet.DEFAULT_TRANSFORMS
    class_names: tuple[str, ...] | None = None
    size: int | None = None
    pictures: tuple[Path, ...] = ()
    calibration: Path | None = None
    labels: Path | None = None
    limits: Limits = Limits()

    @property
    def task(self) -> Task:
        """What the model is capable of."""
        detects = self.architecture in (*yolov5.DETECTORS, *yolov5u.NAMES)
        return Task.OBJECT_DETECTION if detects else Task.CLASSIFICATION


@dataclass(frozen=True, slots=True)
class Exported:
    """What came of it; unchanged: the repository had the very same file already."""

    document: ModelDocument
    path: Path
    unchanged: bool


def export(request: Request, progress: Progress) -> tuple[Exported, ...]:
    """Return the exported model in each precision, proven and written into the repository.

    Raises ExportError: nothing was written then.
    """
    if request.architecture not in NAMES:
        raise ExportError(
            f"{request.architecture!r} is no model that can be exported; choose from "
            f"{', '.join(NAMES)}"
        )
    _check(request)
    real = None
    if request.calibration is not None:
        real = read_labelled(request.calibration, request.labels, request.task)
    proofs = pictures.read_pictures(list(request.pictures)) | pictures.synthetic_pictures()
    asked = len(real.accuracy) if real else 0
    steps = 2 + asked + len(request.precisions) * (1 + len(proofs) + asked)
    task = progress.add_task(request.name or request.architecture, total=steps)

    def advance() -> None:
        progress.advance(task)

    original = _original(request, progress)
    advance()
    with tempfile.TemporaryDirectory(prefix="visavis-export-") as folder:
        graph = Path(folder, "graph.onnx")
        write_graph(original.graph, original.draft, graph)
        advance()
        candidates = []
        truth: accuracy.Figures | None = None
        if real and real.accuracy:
            answer = accuracy.of_original(original.reference)
            truth = accuracy.measure(answer, real.accuracy, original.draft, advance)
        for precision in request.precisions:
            converted = Path(folder, f"{precision}.onnx")
            draft = _convert(original.draft, precision, graph, converted, real)
            file = ServedFile(
                draft, Session(converted, CPU, Setup(Path(folder), threads=usable_cores()))
            )
            document = _with_golden_sample(file)
            if real and truth is not None:
                measured = _accuracy(file, real, truth, advance)
                _hold(document.name, measured, request.limits)
                document = document.model_copy(update={"accuracy": measured})
            made = receipt.prove(original.reference, file, proofs, advance)
            document = document.model_copy(update={"receipt": made})
            # Through the schema once more: what is written can be read.
            document = ModelDocument.model_validate(document.model_dump())
            candidate = Path(folder, f"{precision}-model.onnx")
            candidates.append((embed(document, converted, candidate), candidate))
            advance()
        return tuple(_put(request.out, document, path) for document, path in candidates)


def _convert(
    draft: ModelDocument, precision: str, graph: Path, target: Path, real: Pictures | None
) -> ModelDocument:
    """Write the graph in a precision as `target`; returns the draft of its document."""
    if precision == "fp32":
        target.write_bytes(graph.read_bytes())
        return draft
    if precision == "fp16":
        write_fp16(graph, target)
        conversion = "fp16 weights and arithmetic, fp32 input and output"
    else:
        assert real is not None
        family = family_of(draft)
        images = (read_image(path.name, path.read_bytes()) for path in real.calibration)
        inputs = (preprocess_one(family, image)[0] for image in images)
        kept = write_int8(graph, inputs, target)
        conversion = (
            "static QDQ, int8 weights by channel, uint8 activations, calibrated with "
            f"{len(real.calibration)} of the {real.total} pictures in {real.name}"
            + (f"; {kept} convolutions, the first and the last, are fp32" if kept else "")
        )
    provenance = draft.provenance.model_copy(update={"conversion": conversion})
    return draft.model_copy(
        update={
            "name": _variant_name(draft.name, precision),
            "precision": precision,
            "variant_of": draft.name,
            "provenance": provenance,
        }
    )


def _variant_name(name: str, precision: str) -> str:
    return name if precision == "fp32" else f"{name}-{precision}"


def _accuracy(
    file: ServedFile, real: Pictures, original: accuracy.Figures, advance: Callable[[], None]
) -> Accuracy:
    document = file.document
    measured = accuracy.measure(accuracy.of_file(file), real.accuracy, document, advance)
    which = "others than" if real.held_out else "among them"
    return Accuracy(
        metric="mAP50-95" if document.task is Task.OBJECT_DETECTION else "top-1",
        value=measured.value,
        original=original.value,
        error=measured.error_of_difference(original),
        pictures=len(real.accuracy),
        source=f"{len(real.accuracy)} of the {real.total} pictures in {real.name}, {which} "
        "those for calibration",
        # Only int8 was made with pictures.
        held_out=real.held_out or document.precision != "int8",
    )


def _hold(name: str, measured: Accuracy, limits: Limits) -> None:
    """Raise AccuracyFailed if a file lost more than it may, and more than chance explains.

    One picture of 168 is 0.6 points. Without the standard error a limit of 0.5 would toss a
    coin: int8 turns near ties, as often to the better.
    """
    detects = measured.metric == "mAP50-95"
    limit = limits.map_drop if detects else limits.top1_drop
    drop, error = (measured.original - measured.value) * 100, measured.error * 100
    if drop - error > limit:
        option = "--max-map-drop" if detects else "--max-top1-drop"
        raise AccuracyFailed(
            f"{name} loses {drop:.2f} ± {error:.2f} points of {measured.metric}, {limit:g} are "
            f"allowed: {measured.value:.2%} against {measured.original:.2%} of the original, on "
            f"{measured.source}; nothing was written. Give pictures more like those that the "
            f"model was trained on, or allow more with {option}"
        )


def _check(request: Request) -> None:
    """Raise ExportError for what can be seen to be wrong before any work is done."""
    name = request.architecture
    is_resnet = name in resnet.NAMES
    if unknown := [p for p in request.precisions if p not in PRECISIONS]:
        raise ExportError(
            f"--precision {unknown[0]!r} is unknown; choose some of {', '.join(PRECISIONS)}"
        )
    if "int8" in request.precisions and request.calibration is None:
        raise ExportError(
            "int8 needs --calibration FOLDER, some 100 real pictures like those that the model "
            "will see: its 256 steps are laid where the activations on them lie"
        )
    if request.labels is not None and request.calibration is None:
        raise ExportError(
            "--labels are those of the pictures of --calibration FOLDER, which is missing; "
            "names of classes go to --class-names"
        )
    if request.name is not None and not re.fullmatch(NAME_PATTERN, request.name):
        raise ExportError(
            f"--name {request.name!r} can't name a folder and a model; use letters, digits, "
            "'.', '_' and '-', beginning with a letter or a digit"
        )
    if request.transforms not in resnet.TRANSFORMS:
        raise ExportError(
            f"--transforms {request.transforms!r} is unknown; choose "
            f"{' or '.join(resnet.TRANSFORMS)}"
        )
    if request.transforms != resnet.DEFAULT_TRANSFORMS and not is_resnet:
        raise ExportError(f"--transforms is for ResNet; {name} has its own pre-processing")
    if request.size is not None and is_resnet:
        raise ExportError(f"--size is for YOLO models; {name}'s size belongs to its weights")
    if request.size is not None and not 32 <= request.size <= 4096:
        raise ExportError(f"--size is {request.size}; it must be 32 to 4096 pixels")
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"--out {request.out} can't be a folder: {error.strerror}") from None


def _original(request: Request, progress: Progress) -> Original:
    name, weights = request.architecture, None
    if request.weights != RANDOM:
        given = Path(request.weights) if request.weights else None
        weights = find(name, _release(name, request), given, cache_folder(os.environ), progress)
    provenance = _provenance(weights)
    if name in resnet.NAMES:
        state = read_state_dict(weights.path) if weights else None
        original = resnet.build(
            name, state, weights, provenance, request.transforms, request.class_names
        )
    else:
        build: Callable[..., Original] = (
            yolov5u.build_yolov5u
            if name in yolov5u.NAMES
            else yolov5.build_yolov5
            if name in yolov5.DETECTORS
            else yolov5.build_yolov5_classifier
        )
        checkpoint = read_yolo_checkpoint(weights.path) if weights else None
        if checkpoint is not None and request.class_names is not None:
            checkpoint = replace(checkpoint, names=request.class_names)
        original = build(name, checkpoint, weights, provenance, request.size)
    update = {"name": request.name or name}
    return replace(original, draft=original.draft.model_copy(update=update))


def _release(name: str, request: Request) -> Release:
    if name in resnet.NAMES:
        return resnet.release(name, request.transforms)
    return yolov5_release(name)


def _provenance(weights: Weights | None) -> Provenance:
    libraries = {}
    for library in _LIBRARIES:
        try:
            libraries[library] = version(library)
        except ImportError:  # not installed: one of the two builds of ONNX Runtime
            continue
    return Provenance(
        weights_source=weights.source if weights else RANDOM,
        weights_sha256=weights.sha256 if weights else None,
        random_weights=weights is None,
        exporter=f"visavis {version('visavis-server')}",
        exported_at=datetime.now(UTC).replace(microsecond=0),
        libraries=libraries,
    )


def _with_golden_sample(file: ServedFile) -> ModelDocument:
    outputs, _ = file.run(golden.picture())
    document = file.document
    sample = golden.sample(output_names(document), outputs, document.precision)
    return document.model_copy(update={"golden_sample": sample})


def _put(out: Path, document: ModelDocument, candidate: Path) -> Exported:
    """Move a file into the repository as the next version, unless the last one is the same."""
    files = [file for file in scan(out) if file.name == document.name] if out.is_dir() else []
    if files and (last := _same(files[-1], document)):
        return Exported(last, files[-1].path, unchanged=True)
    number = files[-1].version + 1 if files else 1
    folder = out / document.name / str(number)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # First beside its place, then renamed: a server never sees half a file.
        part = folder / "model.onnx.part"
        part.write_bytes(candidate.read_bytes())
        part.rename(folder / "model.onnx")
    except OSError as error:
        raise ExportError(f"{folder} can't be written: {error.strerror}") from None
    return Exported(document, folder / "model.onnx", unchanged=False)


def _same(file: ModelFile, document: ModelDocument) -> ModelDocument | None:
    """Return the document of a file that a new one would only repeat.

    It may differ in when and how it was made, its receipt may hold more pictures, and its
    accuracy may be one that the new one doesn't have.
    """
    text = read_onnx_file(file.path).metadata.get(METADATA_KEY)
    if text is None:
        return None
    try:
        last = parse_document(text, str(file.path))
    except ModelFileError:  # of another schema: worth a new version
        return None
    volatile = {"receipt", "golden_sample", "provenance", "accuracy"}
    same = (
        last.model_dump(exclude=volatile) == document.model_dump(exclude=volatile)
        and last.provenance.weights_sha256 == document.provenance.weights_sha256
        and _proven(document) <= _proven(last)
        and document.accuracy in (None, last.accuracy)
    )
    return last if same else None


def _proven(document: ModelDocument) -> set[str]:
    """Return the pictures of a document's receipt."""
    return {picture.name for picture in document.receipt.pictures} if document.receipt else set()


def set_threads() -> None:
    """Let PyTorch use the cores that this process may use."""
    torch.set_num_threads(usable_cores())
