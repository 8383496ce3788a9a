"""From a name to proven files in the repository: weights, module, graph, variants, receipts."""

import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from rich.progress import Progress

from visavis_export import accuracy, pictures, receipt, resnet, variants, yolov5, yolov5u
from visavis_export.checkpoint import read_state_dict, read_yolo_checkpoint
from visavis_export.errors import ExportError
from visavis_export.graph import embed, write_graph
from visavis_export.labelled import read_labelled
from visavis_export.original import Original
from visavis_export.precision import PRECISIONS
from visavis_export.served import ServedFile, read_image
from visavis_export.weights import Release, Weights, cache_folder, find, yolov5_release
from visavis_server.card import (
    METADATA_KEY,
    ModelDocument,
    Provenance,
    Task,
    output_names,
    parse_document,
)
from visavis_server.errors import ModelFileError
from visavis_server.models import golden
from visavis_server.models.model_files import ModelFile, scan
from visavis_server.models.onnx_file import read_onnx_file
from visavis_server.names import NAME_PATTERN
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session
from visavis_server.vision.labels import check_labels

RANDOM = "random"
_TRIES = 3
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
    limits: variants.AccuracyLimits = variants.DEFAULT_LIMITS

    @property
    def task(self) -> Task:
        """What the model is capable of."""
        detects = self.architecture in (*yolov5.DETECTORS, *yolov5u.NAMES)
        return Task.OBJECT_DETECTION if detects else Task.CLASSIFICATION


@dataclass(frozen=True, slots=True)
class Exported:
    """What came of it.

    unchanged: the repository had the very same file already. doubts: what was not checked.
    """

    document: ModelDocument
    path: Path
    unchanged: bool
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A proven file that is not in the repository yet."""

    document: ModelDocument
    path: Path
    doubts: tuple[str, ...] = ()


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
    given = pictures.read_pictures(list(request.pictures))
    proofs = {**given, **pictures.synthetic_pictures()}
    asked = len(real.accuracy) if real else 0
    steps = 3 + asked + len(request.precisions) * (1 + len(proofs) + asked)
    task = progress.add_task(request.name or request.architecture, total=steps)

    def advance() -> None:
        progress.advance(task)

    _require_decodable(given, real.paths if real else ())
    advance()
    original = _original(request, progress)
    advance()
    with _work_folder() as folder:
        graph = folder / "graph.onnx"
        write_graph(original.graph, original.draft, graph)
        advance()
        candidates = []
        truth: accuracy.Figures | None = None
        no_baseline = ""
        if real and real.accuracy:
            answer = accuracy.of_original(original.reference)
            truth = accuracy.measure(answer, real.accuracy, original.draft, advance)
            no_baseline = variants.require_sense(truth, real, original.draft)
        for precision in request.precisions:
            converted = folder / f"{precision}.onnx"
            draft = variants.convert(original.draft, precision, graph, converted, real)
            file = ServedFile(
                draft, Session(converted, CPU, SessionConfig(folder, threads=usable_cores()))
            )
            document = _with_golden_sample(file)
            if real and truth is not None and not no_baseline:
                measured = variants.measure(file, real, truth, advance)
                variants.hold(document.name, measured, request.limits)
                document = document.model_copy(update={"accuracy": measured})
            doubts = variants.unchecked(precision, real, document)
            doubts += (no_baseline,) if no_baseline else ()
            document = _with_doubts(document, doubts)
            made = receipt.prove(original.reference, file, proofs, advance)
            document = document.model_copy(update={"receipt": made})
            # Through the schema once more: what is written can be read.
            document = ModelDocument.model_validate(document.model_dump())
            candidate = folder / f"{precision}-model.onnx"
            document = embed(document, converted, candidate)
            candidates.append(_Candidate(document, candidate, doubts))
            advance()
        return _put_all(request.out, candidates)


@contextmanager
def _work_folder() -> Iterator[Path]:
    """Lend a temporary folder; raises ExportError where there is none, or its disk is full."""
    try:
        with tempfile.TemporaryDirectory(prefix="visavis-export-") as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExportError(
                f"the temporary folder {tempfile.gettempdir()} is full; an export takes a few "
                "times the size of the weights: set TMPDIR to a folder with more room"
            ) from error
        raise


def _require_decodable(encoded: Mapping[str, bytes], paths: Iterable[Path]) -> None:
    """Raise ExportError, naming the picture, before any work is done for nothing."""
    for name, data in encoded.items():
        read_image(name, data)
    for path in paths:
        try:
            read_image(str(path), path.read_bytes())
        except OSError as error:
            raise ExportError(f"the picture {path} can't be read: {error.strerror}") from None


def _check(request: Request) -> None:
    """Raise ExportError for what can be seen to be wrong before any work is done."""
    name = request.architecture
    is_resnet = name in resnet.NAMES
    if name in (yolov5.ANY_DETECTOR, yolov5.ANY_CLASSIFIER) and request.weights in (None, RANDOM):
        raise ExportError(
            f"{name} is whatever network a checkpoint of your own holds: give it with --weights "
            f"FILE, or choose a published size, such as {name.replace('yolov5', 'yolov5n')}"
        )
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
    given = request.name or request.architecture
    if not all(re.fullmatch(NAME_PATTERN, variants.variant_name(given, p)) for p in PRECISIONS):
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
        check_labels(request.class_names or ())
    except ValueError as error:
        raise ExportError(f"--class-names: {error}") from None
    for precision in request.precisions:
        _require_writable(request.out, variants.variant_name(given, precision))


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
        checkpoint = read_yolo_checkpoint(weights.path, request.class_names) if weights else None
        original = build(name, checkpoint, weights, provenance, request.size)
    update = {"name": request.name or name}
    return replace(original, draft=original.draft.model_copy(update=update))


def _release(name: str, request: Request) -> Release | None:
    if name in (yolov5.ANY_DETECTOR, yolov5.ANY_CLASSIFIER):
        return None
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


def _with_doubts(document: ModelDocument, doubts: tuple[str, ...]) -> ModelDocument:
    """Return a converted model's document with what was not checked, for its card."""
    conversion = document.provenance.conversion
    if not (doubts and conversion):
        return document
    conversion = "; ".join((conversion, *(f"not checked: {doubt}" for doubt in doubts)))
    provenance = document.provenance.model_copy(update={"conversion": conversion})
    return document.model_copy(update={"provenance": provenance})


def _with_golden_sample(file: ServedFile) -> ModelDocument:
    outputs, _ = file.run(golden.picture())
    document = file.document
    sample = golden.sample(output_names(document), outputs, document.precision)
    return document.model_copy(update={"golden_sample": sample})


def _require_writable(out: Path, name: str) -> None:
    """Raise ExportError unless a version of a model can be written into the repository."""
    try:
        with _part(out, name) as part:
            (part / "model.onnx").write_bytes(b"0")
    except OSError as error:
        raise _unwritable(out, error) from None


def _put_all(out: Path, candidates: Iterable[_Candidate]) -> tuple[Exported, ...]:
    """Put the files of an export into the repository; all are written before any is published."""
    with ExitStack() as parts:
        written = []
        try:
            for candidate in candidates:
                part = parts.enter_context(_part(out, candidate.document.name))
                shutil.copyfile(candidate.path, part / "model.onnx")
                written.append((candidate, part))
            return tuple(_publish(out, candidate, part) for candidate, part in written)
        except OSError as error:
            raise _unwritable(out, error) from None


def _unwritable(out: Path, error: OSError) -> ExportError:
    return ExportError(
        f"--out {out} can't be written: {error.strerror}; name a folder that this user may write "
        "to, on a disk with room"
    )


@contextmanager
def _part(out: Path, name: str) -> Iterator[Path]:
    """Lend a folder beside a model's versions, which is gone afterwards unless it was renamed.

    It is hidden: no server takes it for a version.
    """
    part = out / name / f".{uuid.uuid4().hex}.part"
    try:
        _make(part)
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):  # It holds something.
            part.parent.rmdir()


def _make(folder: Path) -> None:
    for _ in range(_TRIES):
        # Another export may just have removed the model's folder, which was empty.
        with suppress(FileNotFoundError):
            folder.mkdir(parents=True)
            return
    folder.mkdir(parents=True)


def _publish(out: Path, candidate: _Candidate, part: Path) -> Exported:
    """Rename a folder to the model's next version, unless the last one holds the same file.

    A rename onto a version that holds anything fails: of two exports at once, each gets its own.
    """
    document, doubts = candidate.document, candidate.doubts
    number = 1
    while True:
        files = [file for file in scan(out) if file.name == document.name]
        if files and (last := _same(files[-1], document)):
            return Exported(last, files[-1].path, unchanged=True, doubts=doubts)
        number = max(number, files[-1].version + 1 if files else 1)
        version = out / document.name / str(number)
        try:
            part.rename(version)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            number += 1
        else:
            return Exported(document, version / "model.onnx", unchanged=False, doubts=doubts)


def _same(file: ModelFile, document: ModelDocument) -> ModelDocument | None:
    """Return the document of a file that a new one would only repeat.

    It may differ in when and how it was made, its receipt may hold more pictures, and its
    accuracy may be one that the new one doesn't have.
    """
    try:
        text = read_onnx_file(file.path).metadata.get(METADATA_KEY)
        if text is None:
            return None
        last = parse_document(text, str(file.path))
    except ModelFileError:  # damaged, or of another schema: worth a new version
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
