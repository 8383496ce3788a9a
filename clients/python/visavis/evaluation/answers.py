"""Every model's answers on every picture, kept in a file from which a run can go on."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from visavis.cards import Model
from visavis.errors import InvalidData

_FORMAT: Final = 1
_BLOCK_BYTES: Final = 1 << 16
# Of a hundred detectors with a hundred boxes each, half a megabyte.
_MOST_LINE_BYTES: Final = 64 << 20
_MALFORMED: Final = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
_MOST_CHARACTERS: Final = 200
# A model that failed in one of these ways may answer later.
_PASSING: Final = ("CANCELLED:", "DEADLINE_EXCEEDED:", "RESOURCE_EXHAUSTED:", "UNAVAILABLE:")

Rows = npt.NDArray[np.float32]
"""Boxes [n, 6]: x_min, y_min, x_max, y_max in pixels, class id, score."""


@dataclass(frozen=True, slots=True)
class ModelRun:
    """One model on one picture.

    classes: class ids, best first, of a classifier. boxes: of a detector. failure: why there is
    neither. stages_ms: the time of each stage in milliseconds.
    """

    classes: tuple[int, ...] = ()
    boxes: Rows = field(default_factory=lambda: box_rows(()))
    stages_ms: Mapping[str, float] | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class PictureAnswers:
    """One picture: its size in pixels and each model's answer, by name; or why there are none."""

    path: str
    width: int
    height: int
    runs: Mapping[str, ModelRun]
    failure: str = ""


class AnswersFile:
    """Lines of JSON, one for each picture that was answered, below one that says by which models.

    digests: path and SHA-256 of the pictures that need not be asked about again; those that a
    model failed on in passing do. Raises InvalidData for a file of other models: their answers
    must not be mixed.
    """

    def __init__(self, path: Path, models: Sequence[Model]) -> None:
        self._path = path
        self._heading: dict[str, Any] = {
            "format": _FORMAT,
            "models": [_identity(model) for model in models],
        }
        self.digests: set[tuple[str, str]] = set()
        if path.exists():
            self._check()
            self.digests = {
                (answers.path, sha256)
                for sha256, answers in self._pictures()
                if not any(run.failure.startswith(_PASSING) for run in answers.runs.values())
            }
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._heading) + "\n", encoding="utf-8")

    def append(self, file: IO[str], sha256: str, answers: PictureAnswers) -> None:
        """Add a picture; an interruption loses at most the line that is being written."""
        runs = {name: _run_fields(run) for name, run in answers.runs.items()}
        line = {
            "path": answers.path,
            "sha256": sha256,
            "size": [answers.width, answers.height],
            "failure": answers.failure,
            "runs": runs,
        }
        file.write(json.dumps(line, separators=(",", ":")) + "\n")
        file.flush()

    def open(self) -> IO[str]:
        """Return the file to append to, without a last line that was cut off."""
        with self._path.open("rb+") as file:
            file.truncate(_whole_lines(file))
        return self._path.open("a", encoding="utf-8")

    def read(self, wanted: set[str]) -> Iterator[PictureAnswers]:
        """Yield the pictures of these paths; of one that was answered twice, the last answer."""
        last = {}
        for _, answers in self._pictures():
            if answers.path in wanted:
                last[answers.path] = answers
        for path in sorted(last):
            yield last[path]

    def _pictures(self) -> Iterator[tuple[str, PictureAnswers]]:
        """Yield the SHA-256 and the answers of each picture; of a line that was cut off, nothing.

        Raises InvalidData, by line, for what this class has not written.
        """
        with self._path.open("rb") as file:
            file.readline()
            number = 1
            while line := file.readline(_MOST_LINE_BYTES):
                number += 1
                if not line.endswith(b"\n"):
                    if len(line) < _MOST_LINE_BYTES:
                        return
                    raise InvalidData(
                        f"{self._path}, line {number} is longer than {_MOST_LINE_BYTES} bytes; "
                        "delete the file, or name another one with --answers"
                    )
                try:
                    yield _read(json.loads(line))
                except (*_MALFORMED, RecursionError) as error:
                    raise InvalidData(
                        f"{self._path}, line {number} holds no answers ({_brief(error)}); delete "
                        "the line, or name another file with --answers"
                    ) from None

    def _check(self) -> None:
        if not self._path.is_file():
            raise InvalidData(f"{self._path} cannot be continued: it is no regular file")
        try:
            with self._path.open("rb") as file:
                heading = json.loads(file.readline(_MOST_LINE_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidData(f"{self._path} cannot be continued: {_brief(error)}") from None
        if not self._is_same(heading):
            raise InvalidData(
                f"{self._path} holds the answers of other models; name another file with "
                "--answers, or delete it"
            )

    def _is_same(self, heading: Any) -> bool:
        """Return True for a heading of the same models, in any order."""
        own = self._heading["models"]
        return (
            isinstance(heading, dict)
            and heading.get("format") == _FORMAT
            and isinstance(others := heading.get("models"), list)
            and len(others) == len(own)
            and all(model in others for model in own)
        )


def box_rows(boxes: Sequence[Sequence[float]]) -> Rows:
    """Return boxes as an array, of none too."""
    return np.array(boxes, np.float32).reshape(-1, 6)


def _run_fields(run: ModelRun) -> dict[str, Any]:
    # A hundredth of a pixel and a millionth of a score: exact enough, and a third of the size.
    boxes = [
        [*(round(x, 2) for x in row[:4]), int(row[4]), round(row[5], 6)]
        for row in run.boxes.tolist()
    ]
    stages = {name: round(ms, 3) for name, ms in (run.stages_ms or {}).items()}
    fields = {"classes": run.classes, "boxes": boxes, "ms": stages, "failure": run.failure}
    return {name: value for name, value in fields.items() if value}


def _whole_lines(file: IO[bytes]) -> int:
    """Return the length of a file up to its last line break."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _read(line: Mapping[str, Any]) -> tuple[str, PictureAnswers]:
    """Return a picture's SHA-256 and its answers. Raises one of _MALFORMED for other content."""
    runs = {str(name): _read_run(fields) for name, fields in line["runs"].items()}
    width, height = map(int, line["size"])
    failure = line["failure"]
    texts = (line["path"], line["sha256"], failure, *(run.failure for run in runs.values()))
    if not all(isinstance(text, str) for text in texts) or min(width, height) < bool(runs):
        raise ValueError("a path, a failure or a size is wrong")
    return line["sha256"], PictureAnswers(line["path"], width, height, runs, failure)


def _read_run(fields: Mapping[str, Any]) -> ModelRun:
    classes = tuple(map(int, fields.get("classes", ())))
    boxes = box_rows(fields.get("boxes", ()))
    times = {str(name): float(ms) for name, ms in fields.get("ms", {}).items()}
    numbers = np.array([*times.values(), *classes, *boxes[:, 4:].flat], np.float64)
    if not (np.isfinite(numbers).all() and np.isfinite(boxes).all()) or (numbers < 0).any():
        raise ValueError("a number is negative, NaN or infinite")
    return ModelRun(classes, boxes, times or None, fields.get("failure", ""))


def _brief(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def _identity(model: Model) -> dict[str, Any]:
    """Return what tells a model from another of its name."""
    return {
        "model": model.name,
        "version": model.version,
        "precision": model.precision,
        "provider": model.execution_provider,
        "tasks": [task.value for task in model.tasks],
        "labels": hashlib.sha256("\n".join(model.label_set.labels).encode()).hexdigest(),
        "weights": model.provenance.weights_sha256,
        "exported_at": model.provenance.exported_at,
    }
