"""The pictures that the server drew, and where they are written."""

import os
from pathlib import Path

from visavis.errors import InvalidRequest, InvalidSettings
from visavis.results import AnnotatedImage

# The server draws JPEG, whatever the picture was.
_SUFFIX = ".jpg"
_SUFFIXES = {_SUFFIX, ".jpeg"}


class Annotations:
    """Where the annotated pictures of one command go."""

    def __init__(self, path: str | None, pictures: list[str]) -> None:
        """Make room for the pictures. Raises InvalidSettings where that can't be done.

        path: a file for one picture, which gets .jpg where it has no suffix; a folder for
        several, and where it is one already or ends with a slash. None: nothing is written.
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
                f"--annotate {path} can't be used: {error.strerror}; name another place"
            ) from error
        self._folder = len(pictures) > 1 or is_folder or path.endswith(("/", os.sep))
        if not self._folder and self._path.suffix.lower() not in {"", *_SUFFIXES}:
            raise InvalidSettings(
                f"--annotate {path} can't be used: the picture is a JPEG; name a .jpg or .jpeg "
                "file, or a folder with a slash at its end"
            )
        folder = self._path if self._folder else self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidSettings(f"can't make the folder {folder}: {error.strerror}") from error

    def write(self, name: str, image: AnnotatedImage | None) -> Path | None:
        """Return where one picture was written; None if none is wanted.

        Raises InvalidRequest where there is none, or where it can't be written.
        """
        if self._path is None:
            return None
        if image is None:
            raise InvalidRequest("the server sent no annotated picture")
        target = self._target(self._path, name)
        if any(target.exists() and target.samefile(picture) for picture in self._inputs):
            raise InvalidRequest(f"--annotate would overwrite {target}; name another place")
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
        while target in self._taken:  # a/bus.jpg and b/bus.jpg
            number += 1
            target = path / f"{stem}-{number}{_SUFFIX}"
        self._taken.add(target)
        return target


def _exists(path: Path) -> bool:
    """Say whether a path leads to something; reading it says why it can't be told."""
    try:
        return path.exists()
    except OSError:
        return False
