"""The files that a command writes at its end, tried before its work begins."""

import tempfile
from pathlib import Path

from visavis.errors import InvalidSettings


def require_writable(*files: Path | None) -> None:
    """Raise InvalidSettings unless all files can be written; leaves their contents alone."""
    for file in filter(None, files):
        is_new = not file.exists()
        if not is_new and not (file.is_file() or file.is_dir()):
            continue  # opening a pipe would wait for its reader
        try:
            file.open("ab").close()
            if is_new:
                file.unlink()
        except OSError as error:
            raise InvalidSettings(
                f"can't write {file}: {error.strerror}; choose a file in a writable folder"
            ) from error


def require_writable_folder(folder: Path | None) -> None:
    """Make a folder; raises InvalidSettings unless files can be written there."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InvalidSettings(
            f"can't write to {folder}: {error.strerror}; choose a writable folder"
        ) from error
