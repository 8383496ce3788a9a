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

    Raises InvalidData for a file of other models: their answers must not be mixed.
    """

    def __init__(self, path: Path, models: Sequence[Model]) -> None:
        self._path = path
        self._heading = {"format": _FORMAT, "models": [_identity(model) for model in models]}
        self.digests: set[tuple[str, str]] = set()
        if path.exists():
            self._check()
            self.digests = {(line["path"], line["sha256"]) for line in self._lines()}
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
        for line in self._lines():
            if line["path"] in wanted:
                last[line["path"]] = _read(line)  # arrays at once: a tenth of JSON's memory
        for path in sorted(last):
            yield last[path]

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._path.open(encoding="utf-8") as file:
            next(file, None)
            for text in file:
                try:
                    yield json.loads(text)
                except ValueError:
                    if text.endswith("\n"):
                        raise InvalidData(f"{self._path} holds a line that is not JSON") from None

    def _check(self) -> None:
        try:
            with self._path.open(encoding="utf-8") as file:
                heading = json.loads(file.readline())
        except (OSError, ValueError) as error:
            raise InvalidData(f"{self._path} cannot be continued: {error}") from None
        if heading != self._heading:
            raise InvalidData(
                f"{self._path} holds the answers of other models; name another file with "
                "--answers, or delete it"
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


def _read(line: Mapping[str, Any]) -> PictureAnswers:
    runs = {name: _read_run(fields) for name, fields in line["runs"].items()}
    width, height = line["size"]
    return PictureAnswers(line["path"], width, height, runs, line["failure"])


def _read_run(fields: Mapping[str, Any]) -> ModelRun:
    return ModelRun(
        tuple(fields.get("classes", ())),
        box_rows(fields.get("boxes", ())),
        fields.get("ms"),
        fields.get("failure", ""),
    )


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
