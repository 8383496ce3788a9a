"""Files that a path may lead to instead of the expected one; reading some of them never ends."""

import os
from pathlib import Path


def put(path: Path, kind: str) -> None:
    """Make a `pipe`, a link to a `device`, a `folder`, or a `large` file of 1 TiB without data."""
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "large":
            with path.open("wb") as sparse:
                sparse.truncate(1 << 40)
        case _:
            raise ValueError(kind)
