"""Draws the pictures on which both sides differ: the file's answer beside the original's."""

import re
from collections.abc import Mapping
from pathlib import Path

from visavis_export.errors import ExportError
from visavis_export.pictures.files import read_image
from visavis_export.verification.outcome import Outcome, PictureOutcome
from visavis_server.vision.annotate import Panel, side_by_side

_MAX_BYTES = 4_000_000


def draw(outcome: Outcome, pictures: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write a JPEG for each picture that differs; returns their paths.

    pictures: encoded, by name. Raises ExportError if the folder can't be written.
    """
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in outcome.pictures:
            if one.same and one.answers.same:
                continue
            target = _target(folder, one.name, written)
            target.write_bytes(_drawn(one, pictures[one.name]))
            written.append(target)
    except OSError as error:
        raise ExportError(f"--annotate {folder} can't be written: {error.strerror}") from None
    return written


def _drawn(one: PictureOutcome, encoded: bytes) -> bytes:
    answers = one.answers
    begins = next(
        (f"the {stage.value}" for stage, it in one.stages.items() if not it.same), "the answer"
    )
    panels = [
        Panel(
            "file",
            f"{answers.only_file} only here; the difference begins in {begins}",
            answers.file,
        ),
        Panel(
            "PyTorch",
            f"{answers.only_original} only here, {answers.both} in both",
            answers.original,
        ),
    ]
    return side_by_side(read_image(one.name, encoded), panels, _MAX_BYTES)


def _target(folder: Path, name: str, taken: list[Path]) -> Path:
    stem = re.sub(r"[^\w.-]+", "-", Path(name).stem) or "picture"
    target, number = folder / f"{stem}.jpg", 1
    while target in taken:
        number += 1
        target = folder / f"{stem}-{number}.jpg"
    return target
