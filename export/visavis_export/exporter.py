"""Exports a model by name: weights, module, graph, variants, receipts, published files."""

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from rich.progress import Progress

from visavis_export import repository
from visavis_export.checkpoints.checkpoint import read_state_dict, read_yolo_checkpoint
from visavis_export.checkpoints.weights import (
    Release,
    Weights,
    cache_folder,
    find,
    yolov5_release,
)
from visavis_export.errors import ExportError, InvalidOption
from visavis_export.families import resnet, torchvision_detectors, yolov5, yolov5u
from visavis_export.families.original import Original
from visavis_export.graphs import variants
from visavis_export.graphs.graph import embed, write_graph
from visavis_export.graphs.precision import PRECISIONS
from visavis_export.listing import require_known
from visavis_export.pictures.files import read_image, read_pictures
from visavis_export.pictures.labelled import Pictures, read_labelled
from visavis_export.pictures.synthetic import synthetic_pictures
from visavis_export.proof import accuracy, accuracy_limits, receipt
from visavis_export.proof.served import ServedFile, open_file
from visavis_export.repository import Candidate, Exported
from visavis_server.card import (
    ModelDocument,
    Provenance,
    Task,
    checked_names,
)
from visavis_server.models import golden
from visavis_server.names import NAME_PATTERN
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.providers import SessionConfig
from visavis_server.vision.labels import check_labels

RANDOM = "random"
_LIBRARIES = (
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "pillow",
)


@dataclass(frozen=True, slots=True)
class Request:
    """One model to export.

    weights: a file, a folder, "random", or None for the published weights. out: the model
    repository. name: the name to publish under; None: the architecture's. precisions: from
    PRECISIONS; those other than fp32 become variants of the model. transforms: for ResNets,
    "V1" or "V2". class_names: by class id. size: side of the input in pixels, the shorter one for
    torchvision's detectors; None: the model's default. pictures: files and folders to prove the
    model on, in addition to the synthetic pictures. calibration: a folder of real pictures, for
    int8 and for the accuracy. labels: the labels of the calibration pictures, if they are not in
    the default place.
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
    limits: accuracy_limits.AccuracyLimits = accuracy_limits.DEFAULT_LIMITS

    @property
    def task(self) -> Task:
        """The model's task."""
        detects = self.architecture in (
            *yolov5.DETECTORS,
            *yolov5u.NAMES,
            *torchvision_detectors.NAMES,
        )
        return Task.OBJECT_DETECTION if detects else Task.CLASSIFICATION


@dataclass(frozen=True, slots=True)
class _Baseline:
    """The accuracy that variants are held to.

    figures: the original's accuracy; None if there are no labels. unusable: why the figures are
    no baseline; "" if they are one.
    """

    figures: accuracy.Figures | None = None
    unusable: str = ""


@dataclass(frozen=True, slots=True)
class _Export:
    """One model on its way into the repository.

    graph: the fp32 graph in `folder`. proofs: encoded pictures by name, for the receipt.
    real: the calibration pictures. advance: advances the progress bar by one step.
    """

    request: Request
    original: Original
    folder: Path
    graph: Path
    proofs: Mapping[str, bytes]
    real: Pictures | None
    baseline: _Baseline
    advance: Callable[[], None]


def export(request: Request, progress: Progress) -> tuple[Exported, ...]:
    """Return the exported model in each precision, proven and published in the repository.

    Raises ExportError, and then publishes nothing.
    """
    require_known(request.architecture)
    _validate(request)
    real = None
    if request.calibration is not None:
        real = read_labelled(request.calibration, request.labels, request.task)
    chosen = read_pictures(list(request.pictures))
    proofs = {**chosen, **synthetic_pictures()}
    measured = len(real.accuracy) if real else 0
    steps = 3 + measured + len(request.precisions) * (1 + len(proofs) + measured)
    task = progress.add_task(request.name or request.architecture, total=steps)

    def advance() -> None:
        progress.advance(task)

    _require_decodable(chosen, real.paths if real else ())
    advance()
    original = _original(request, progress)
    advance()
    with _work_folder() as folder:
        graph = folder / "graph.onnx"
        write_graph(original.graph, original.draft, graph)
        advance()
        baseline = _baseline(original, real, advance)
        one = _Export(request, original, folder, graph, proofs, real, baseline, advance)
        candidates = [_proven(one, precision) for precision in request.precisions]
        return repository.publish(request.out, candidates)


def _baseline(original: Original, real: Pictures | None, advance: Callable[[], None]) -> _Baseline:
    """Measure the original's accuracy; raises AccuracyFailed if it is no better than chance."""
    if real is None or not real.accuracy:
        return _Baseline()
    answer = accuracy.of_original(original.reference)
    figures = accuracy.measure(answer, real.accuracy, original.draft, advance)
    return _Baseline(figures, accuracy_limits.check_baseline(figures, real, original.draft))


def _proven(one: _Export, precision: str) -> Candidate:
    """Return the model in a precision: converted, measured, proven and written to a file.

    Raises ExportError if it loses too much accuracy or fails its receipt.
    """
    converted = one.folder / f"{precision}.onnx"
    draft = variants.convert(one.original.draft, precision, one.graph, converted, one.real)
    config = SessionConfig(one.folder, threads=usable_cores(), varying=draft.input.varies)
    file = open_file(draft, converted, config)
    document = _with_golden_sample(file)
    figures, unusable = one.baseline.figures, one.baseline.unusable
    if one.real is not None and figures is not None and not unusable:
        measured = accuracy_limits.measure(file, one.real, figures, one.advance)
        accuracy_limits.enforce(document.name, measured, one.request.limits)
        document = document.model_copy(update={"accuracy": measured})
    warnings = accuracy_limits.warnings_for(precision, one.real, document)
    warnings += (unusable,) if unusable else ()
    document = _with_warnings(document, warnings)
    made = receipt.prove(one.original.reference, file, one.proofs, one.advance)
    document = document.model_copy(update={"receipt": made})
    # model_copy does not validate: check that the document can be read back.
    document = ModelDocument.model_validate(document.model_dump())
    target = one.folder / f"{precision}-model.onnx"
    document = embed(document, converted, target)
    one.advance()
    return Candidate(document, target, warnings)


@contextmanager
def _work_folder() -> Iterator[Path]:
    """Lend a temporary folder; raises ExportError if its disk is full."""
    try:
        with tempfile.TemporaryDirectory(prefix="visavis-export-") as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExportError(
                f"the temporary folder {tempfile.gettempdir()} is full; an export needs a few "
                "times the size of the weights: set TMPDIR to a folder with more space"
            ) from error
        raise


def _require_decodable(encoded: Mapping[str, bytes], paths: Iterable[Path]) -> None:
    """Raise ExportError, naming the picture, if one cannot be read or decoded."""
    for name, data in encoded.items():
        read_image(name, data)
    for path in paths:
        try:
            read_image(str(path), path.read_bytes())
        except OSError as error:
            raise ExportError(f"the picture {path} can't be read: {error.strerror}") from None


def _validate(request: Request) -> None:
    """Raise InvalidOption for options that cannot work, before any work is done."""
    name = request.architecture
    if name in (yolov5.ANY_DETECTOR, yolov5.ANY_CLASSIFIER) and request.weights in (None, RANDOM):
        raise InvalidOption(
            f"{name} exports a custom checkpoint: give it with --weights FILE, or choose a "
            f"published size, such as {name.replace('yolov5', 'yolov5n')}"
        )
    if unknown := [p for p in request.precisions if p not in PRECISIONS]:
        raise InvalidOption(
            f"--precision {unknown[0]!r} is unknown; choose from {', '.join(PRECISIONS)}"
        )
    if name in torchvision_detectors.NAMES and set(request.precisions) != {"fp32"}:
        raise InvalidOption(
            f"{name} is exported as fp32 only: what it loses in fp16 and int8 has not been "
            "measured on trained weights; leave out --precision. It is faster with a smaller "
            "--size and on a GPU; YOLOv5 has fp16 and int8"
        )
    if "int8" in request.precisions and request.calibration is None:
        raise InvalidOption(
            "int8 needs --calibration FOLDER with about 100 real pictures like those that the "
            "model will receive: the ranges of its activations are measured on them"
        )
    if request.labels is not None and request.calibration is None:
        raise InvalidOption(
            "--labels needs --calibration FOLDER, whose pictures it labels; give class names with "
            "--class-names"
        )
    published = request.name or name
    if not all(re.fullmatch(NAME_PATTERN, variants.variant_name(published, p)) for p in PRECISIONS):
        raise InvalidOption(
            f"--name {request.name!r} is not a valid model name; use letters, digits, "
            "'.', '_' and '-', beginning with a letter or a digit"
        )
    _validate_input_options(request)
    try:
        check_labels(request.class_names or ())
    except ValueError as error:
        raise InvalidOption(f"--class-names: {error}") from None
    for precision in request.precisions:
        repository.require_writable(request.out, variants.variant_name(published, precision))


def _validate_input_options(request: Request) -> None:
    """Raise InvalidOption for --transforms and --size that do not suit the architecture."""
    name, is_resnet = request.architecture, request.architecture in resnet.NAMES
    if request.transforms not in resnet.TRANSFORMS:
        raise InvalidOption(
            f"--transforms {request.transforms!r} is unknown; choose "
            f"{' or '.join(resnet.TRANSFORMS)}"
        )
    if request.transforms != resnet.DEFAULT_TRANSFORMS and not is_resnet:
        raise InvalidOption(f"--transforms is for ResNets only; {name} has one pre-processing")
    if request.size is not None and is_resnet:
        raise InvalidOption(f"--size is for detectors only; the weights fix the size of {name}")
    most = torchvision_detectors.LARGEST_SIZE if name in torchvision_detectors.NAMES else 4096
    if request.size is not None and not 32 <= request.size <= most:
        raise InvalidOption(f"--size is {request.size}; it must be 32 to {most} pixels")


def _original(request: Request, progress: Progress) -> Original:
    """Find the weights and build the model; downloads published weights that are not cached."""
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
    elif name in torchvision_detectors.NAMES:
        state = read_state_dict(weights.path) if weights else None
        original = torchvision_detectors.build(
            name, state, weights, provenance, request.class_names, request.size
        )
    else:
        build: Callable[..., Original] = (
            yolov5u.build_yolov5u
            if name in yolov5u.NAMES
            else yolov5.build_yolov5
            if name in yolov5.DETECTORS
            else yolov5.build_yolov5_classifier
        )
        checkpoint = read_yolo_checkpoint(weights.path, request.class_names) if weights else None
        original = build(name, checkpoint, weights, provenance, request.size)
    update = {"name": request.name or name}
    return replace(original, draft=original.draft.model_copy(update=update))


def _release(name: str, request: Request) -> Release | None:
    if name in (yolov5.ANY_DETECTOR, yolov5.ANY_CLASSIFIER):
        return None
    if name in resnet.NAMES:
        return resnet.release(name, request.transforms)
    if name in torchvision_detectors.NAMES:
        return torchvision_detectors.release(name)
    return yolov5_release(name)


def _provenance(weights: Weights | None) -> Provenance:
    libraries = {}
    for library in _LIBRARIES:
        try:
            libraries[library] = version(library)
        except ImportError:  # only one of the two builds of ONNX Runtime is installed
            continue
    return Provenance(
        weights_source=weights.source if weights else RANDOM,
        weights_sha256=weights.sha256 if weights else None,
        random_weights=weights is None,
        exporter=f"visavis {version('visavis-server')}",
        exported_at=datetime.now(UTC).replace(microsecond=0),
        libraries=libraries,
    )


def _with_warnings(document: ModelDocument, warnings: tuple[str, ...]) -> ModelDocument:
    """Return a variant's document with the warnings on its card; fp32 documents are unchanged."""
    conversion = document.provenance.conversion
    if not (warnings and conversion):
        return document
    conversion = "; ".join((conversion, *(f"warning: {warning}" for warning in warnings)))
    provenance = document.provenance.model_copy(update={"conversion": conversion})
    return document.model_copy(update={"provenance": provenance})


def _with_golden_sample(file: ServedFile) -> ModelDocument:
    document = file.document
    names = checked_names(document)
    sample = golden.sample(names, file.outputs(golden.picture(), names), document.precision)
    return document.model_copy(update={"golden_sample": sample})


def set_threads() -> None:
    """Let PyTorch use every core that this process may use."""
    torch.set_num_threads(usable_cores())
