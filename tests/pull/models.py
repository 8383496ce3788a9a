"""Model files for sources."""

import random
import struct
from functools import cache
from pathlib import Path

import onnx

from tests.server import graphs

LARGE_BYTES = 10 << 20


@cache
def model(name: str = "colors", gain: float = 10.0, extra_bytes: int = 0) -> bytes:
    """Return a classifier's file with its document, as the export writes it.

    extra_bytes: makes the part that the digest covers so much longer.
    """
    graph = graphs.classifier(gain)
    if extra_bytes:
        padded = onnx.load_from_string(graph)
        padded.doc_string = random.Random(gain).randbytes(extra_bytes // 2).hex()
        graph = padded.SerializeToString()
    contents, _ = graphs.export(graph, graphs.classifier_document(name=name))
    return contents


def foreign() -> bytes:
    """Return a file without a document, as other exporters write it."""
    return graphs.classifier()


def damaged(contents: bytes, gain: float = 10.0) -> bytes:
    """Return a file in which one bit of a weight is another: still a valid model."""
    place = contents.index(struct.pack("<f", gain))
    return contents[:place] + bytes([contents[place] ^ 1]) + contents[place + 1 :]


def put(root: Path, path: str, contents: bytes) -> Path:
    """Write a file below a folder."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(contents)
    return target


def visible(root: Path) -> dict[str, bytes]:
    """Return the files of a repository that a server would look at, by path."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(root).parts)
    }
