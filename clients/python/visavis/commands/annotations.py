"""The pictures that the server drew, and where they are written."""

import os
from pathlib import Path

from visavis.errors import InvalidRequest, InvalidSettings
from visavis.results import AnnotatedImage

_SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}


class Annotations:
    """Where the annotated pictures of one command go."""

    def __init__(self, path: Path | None, pictures: list[str]) -> None:
        """Make room for the pictures. Raises InvalidSettings where that can't be done.

        path: a file for one picture; a folder for several, and where it is one already or ends
        with a slash. None: nothing is written.
        """
        self._path = path
        self._inputs = [Path(name) for name in pictures if name != "-" and Path(name).exists()]
        self._taken: set[Path] = set()
        if path is None:
            return
        self._folder = len(pictures) > 1 or path.is_dir() or str(path).endswith(os.sep)
        try:
            (path if self._folder else path.parent).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidSettings(f"can't make the folder {path}: {error.strerror}") from error

    def write(self, name: str, image: AnnotatedImage | None) -> Path | None:
        """Return where one picture was written; None if none is wanted.

        Raises InvalidRequest where there is none, or where it can't be written.
        """
        if self._path is None:
            return None
        if image is None:
            raise InvalidRequest("the server sent no annotated picture")
        target = self._target(self._path, name, _SUFFIXES.get(image.media_type, ".img"))
        if any(target.exists() and target.samefile(picture) for picture in self._inputs):
            raise InvalidRequest(f"--annotate would overwrite {target}; name another place")
        try:
            image.save(target)
        except OSError as error:
            raise InvalidRequest(f"can't write {target}: {error.strerror}") from error
        return target

    def _target(self, path: Path, name: str, suffix: str) -> Path:
        if not self._folder:
            return path if path.suffix else path.with_suffix(suffix)
        stem = "stdin" if name == "-" else Path(name).stem
        target, number = path / f"{stem}{suffix}", 1
        while target in self._taken:  # a/bus.jpg and b/bus.jpg
            number += 1
            target = path / f"{stem}-{number}{suffix}"
        self._taken.add(target)
        return target
