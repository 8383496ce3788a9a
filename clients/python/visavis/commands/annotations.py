"""Writes the annotated pictures that the server returns."""

import os
from pathlib import Path

from visavis.errors import InvalidRequest, InvalidSettings
from visavis.results import AnnotatedImage

# The server returns JPEG for every input format.
_SUFFIX = ".jpg"
_SUFFIXES = {_SUFFIX, ".jpeg"}


class Annotations:
    """The destination of one command's annotated pictures."""

    def __init__(self, path: str | None, pictures: list[str]) -> None:
        """Create the folder for the pictures. Raises InvalidSettings if that fails.

        path: a folder if there are several pictures, if it already is one, or if it ends with a
        slash; otherwise a file, with .jpg added if it has no suffix. None: write nothing.
        """
        self._path = None if path is None else Path(path)
        self._inputs = [Path(name) for name in pictures if name != "-" and _exists(Path(name))]
        self._taken: set[Path] = set()
        if path is None or self._path is None:
            return
        try:
            is_folder = self._path.is_dir()
        except OSError as error:
            raise InvalidSettings(
                f"can't use --annotate {path}: {error.strerror}; choose another path"
            ) from error
        self._folder = len(pictures) > 1 or is_folder or path.endswith(("/", os.sep))
        if not self._folder and self._path.suffix.lower() not in {"", *_SUFFIXES}:
            raise InvalidSettings(
                f"can't use --annotate {path}: annotated pictures are JPEG; choose a .jpg or "
                ".jpeg file, or a folder, with a slash at the end"
            )
        folder = self._path if self._folder else self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidSettings(f"can't create the folder {folder}: {error.strerror}") from error

    def write(self, name: str, image: AnnotatedImage | None) -> Path | None:
        """Write one picture and return its path; None if the command writes no pictures.

        Raises InvalidRequest if the picture is missing or can't be written.
        """
        if self._path is None:
            return None
        if image is None:
            raise InvalidRequest("the server returned no annotated picture")
        target = self._target(self._path, name)
        if any(target.exists() and target.samefile(picture) for picture in self._inputs):
            raise InvalidRequest(f"--annotate would overwrite {target}; choose another path")
        try:
            image.save(target)
        except OSError as error:
            raise InvalidRequest(f"can't write {target}: {error.strerror}") from error
        return target

    def _target(self, path: Path, name: str) -> Path:
        if not self._folder:
            return path if path.suffix else path.with_suffix(_SUFFIX)
        stem = "stdin" if name == "-" else Path(name).stem
        target, number = path / f"{stem}{_SUFFIX}", 1
        while target in self._taken:  # From a/bus.jpg and b/bus.jpg.
            number += 1
            target = path / f"{stem}-{number}{_SUFFIX}"
        self._taken.add(target)
        return target


def _exists(path: Path) -> bool:
    """Return True if a path exists; False if that is unknown: reading it reports the reason."""
    try:
        return path.exists()
    except OSError:
        return False
