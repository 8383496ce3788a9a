"""The calls of a benchmark, built and serialised before the measurement."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visavis import calls
from visavis.cards import Model, Task
from visavis.errors import FieldViolation, InvalidRequest, InvalidSettings
from visavis.images import image_message
from visavis.v1 import vision_pb2 as pb

METHODS = ("classify", "detect", "compare")
TASKS = {"classify": Task.CLASSIFICATION, "detect": Task.DETECTION}


@dataclass(frozen=True, slots=True)
class Call:
    """One serialised request. picture: file name. models: names of the models that it calls."""

    method: str
    picture: str
    models: tuple[str, ...]
    request: bytes


def models_asked(method: str, cards: Sequence[Model], wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the models that a method calls.

    wanted: the names to choose from; empty for all. Raises InvalidRequest for an unknown name, or
    if `classify` or `detect` would call no model or several.
    """
    known = {card.name: card for card in cards}
    for name in wanted:
        if name not in known:
            raise _invalid(f"unknown model {name!r}; the server has: {', '.join(known)}")
    names = tuple(wanted or sorted(known))
    if method not in TASKS:
        return names
    task = TASKS[method]
    capable = [name for name in names if task in known[name].tasks]
    if len(capable) == 1:
        return (capable[0],)
    if capable:
        raise _invalid(f"{method} uses one model; choose it with --model: {', '.join(capable)}")
    raise _invalid(f"no model is capable of {task}; considered: {', '.join(names) or 'none'}")


def calls_of(
    method: str, models: tuple[str, ...], pictures: Sequence[Path], *, raw: bool = False
) -> list[Call]:
    """Return one call per picture. raw: True to send decoded pixels instead of the file.

    Raises InvalidRequest for an unreadable picture.
    """
    return [
        Call(method, path.name, models, _request(method, models, _image(path, raw=raw)))
        for path in pictures
    ]


def _request(method: str, models: tuple[str, ...], image: pb.Image) -> bytes:
    if method == "classify":
        return calls.classify_request(image, models[0]).SerializeToString()
    if method == "detect":
        return calls.detect_request(image, models[0]).SerializeToString()
    return calls.compare_request(image, models=models).SerializeToString()


def _image(path: Path, *, raw: bool) -> pb.Image:
    try:
        return image_message(_pixels(path)) if raw else image_message(path)
    except OSError as error:
        raise _invalid(f"can't read {path}: {error.strerror or error}") from error


def _pixels(path: Path) -> pb.Image:
    try:
        from PIL import Image

        from visavis.pillow_pictures import upright
    except ModuleNotFoundError:
        raise InvalidSettings(
            "--raw needs Pillow; install it: pip install 'visavis[bench]'"
        ) from None
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as file:
            picture = upright(file)
    # ultralytics, if it was imported, replaces Pillow's open by one that may miss a package.
    except (OSError, SyntaxError, ValueError, ImportError, Image.DecompressionBombError) as error:
        raise _invalid(f"can't decode {path}: {error}") from error
    return pb.Image(
        raw=pb.RawImage(
            format=pb.PIXEL_FORMAT_RGB,
            width=picture.width,
            height=picture.height,
            data=picture.tobytes(),
        )
    )


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, violations=(FieldViolation("image", message),))
