"""Writes proven files into the model repository, each as the next version of its model."""

import errno
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from visavis_export.errors import ExportError
from visavis_server.card import METADATA_KEY, ModelDocument, parse_document
from visavis_server.errors import ModelFileError
from visavis_server.models.model_files import ModelFile, scan
from visavis_server.models.onnx_file import read_onnx_file

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proven file that is not yet in the repository."""

    document: ModelDocument
    path: Path
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exported:
    """A model file in the repository.

    unchanged: True if the repository already held the same file. warnings: checks that had too
    few pictures or labels to be reliable.
    """

    document: ModelDocument
    path: Path
    unchanged: bool
    warnings: tuple[str, ...] = ()


def require_writable(out: Path, name: str) -> None:
    """Raise ExportError unless the repository accepts a new version of a model."""
    try:
        with _staging_folder(out, name) as staged:
            (staged / "model.onnx").write_bytes(b"0")
    except OSError as error:
        raise _unwritable(out, error) from None


def publish(out: Path, candidates: Iterable[Candidate]) -> tuple[Exported, ...]:
    """Publish the files of an export; all are written before the first is published.

    Raises ExportError if the repository cannot be written.
    """
    with ExitStack() as folders:
        staged = []
        try:
            for candidate in candidates:
                folder = folders.enter_context(_staging_folder(out, candidate.document.name))
                shutil.copyfile(candidate.path, folder / "model.onnx")
                staged.append((candidate, folder))
            return tuple(_publish(out, candidate, folder) for candidate, folder in staged)
        except OSError as error:
            raise _unwritable(out, error) from None


def _unwritable(out: Path, error: OSError) -> ExportError:
    return ExportError(
        f"--out {out} can't be written: {error.strerror}; choose a folder that this user may write "
        "to, on a disk with free space"
    )


@contextmanager
def _staging_folder(out: Path, name: str) -> Iterator[Path]:
    """Lend a hidden folder beside a model's versions; it is deleted afterwards unless renamed.

    The server ignores hidden folders.
    """
    folder = out / name / f".{uuid.uuid4().hex}.part"
    try:
        _make(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # not empty
            folder.parent.rmdir()


def _make(folder: Path) -> None:
    for _ in range(_TRIES):
        # A concurrent export may have just removed the model's folder while it was empty.
        with suppress(FileNotFoundError):
            folder.mkdir(parents=True)
            return
    folder.mkdir(parents=True)


def _publish(out: Path, candidate: Candidate, staged: Path) -> Exported:
    """Rename a folder to the model's next version, unless the latest version is the same file.

    Renaming onto a folder that is not empty fails, so concurrent exports get different versions.
    """
    document, warnings = candidate.document, candidate.warnings
    number = 1
    while True:
        files = [file for file in scan(out) if file.name == document.name]
        if files and (latest := _same(files[-1], document)):
            return Exported(latest, files[-1].path, unchanged=True, warnings=warnings)
        number = max(number, files[-1].version + 1 if files else 1)
        version = out / document.name / str(number)
        try:
            staged.rename(version)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            number += 1
        else:
            return Exported(document, version / "model.onnx", unchanged=False, warnings=warnings)


def _same(file: ModelFile, document: ModelDocument) -> ModelDocument | None:
    """Return a file's document if exporting `document` would only repeat it; None otherwise.

    The file may have been made at another time and with other libraries, its receipt may hold
    more pictures, and it may have an accuracy where the new document has none.
    """
    try:
        text = read_onnx_file(file.path).metadata.get(METADATA_KEY)
        if text is None:
            return None
        latest = parse_document(text, str(file.path))
    except ModelFileError:  # damaged, or of another schema
        return None
    volatile = {"receipt", "golden_sample", "provenance", "accuracy"}
    same = (
        latest.model_dump(exclude=volatile) == document.model_dump(exclude=volatile)
        and latest.provenance.weights_sha256 == document.provenance.weights_sha256
        and _proven_pictures(document) <= _proven_pictures(latest)
        and document.accuracy in (None, latest.accuracy)
    )
    return latest if same else None


def _proven_pictures(document: ModelDocument) -> set[str]:
    return {picture.name for picture in document.receipt.pictures} if document.receipt else set()
