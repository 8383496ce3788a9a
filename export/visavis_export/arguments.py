"""Arguments that several commands share, read from files."""

from pathlib import Path

import typer


def read_names(path: Path | None) -> tuple[str, ...] | None:
    """Return the class names in a text file, one per line; None for no file.

    Raises typer.BadParameter if it can't be read.
    """
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise typer.BadParameter(f"--class-names {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(
            f"--class-names {path} is not UTF-8 text; save it as UTF-8, one name per line"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())
