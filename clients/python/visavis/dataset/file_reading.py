"""Reads the files that a user names: regular ones, of limited size, as bytes, text or JSON."""

import json
import stat
from pathlib import Path
from typing import Any

from visavis.errors import InvalidData


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """Return a file's contents.

    Raises InvalidData for a larger file, and for a pipe or a device, which could be read forever.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InvalidData(f"{path} is a folder, pipe or device; give a regular file")
        if status.st_size > most_bytes:
            raise InvalidData(f"{path} is larger than {most_bytes} bytes; give a smaller file")
        return path.read_bytes()
    except OSError as error:
        raise InvalidData(f"can't read {path}: {error.strerror}") from None


def read_text(path: Path, most_bytes: int) -> str:
    """Return the contents of a UTF-8 file, without the byte order mark of Notepad and Excel."""
    try:
        return read_bytes(path, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidData(f"{path} is not UTF-8; save it as UTF-8") from None


def parse_json(text: str | bytes, where: str) -> Any:
    """Return the value of JSON from others. Raises InvalidData, which says where it was."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{where} is not JSON: {error}") from None
