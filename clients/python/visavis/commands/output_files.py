"""The files that a command writes at its end, tried before its work begins."""

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
