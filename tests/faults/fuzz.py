"""`python -m tests.faults.fuzz TARGET [LIBFUZZER_OPTION...] [FOLDER]`: fuzz untrusted input.

Targets: pictures, files, requests, models, documents. FOLDER: inputs to start from. A finding ends
the process with a non-zero exit code, and is written to a file.
"""

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["visavis_server"]):
    from visavis.v1 import vision_pb2 as pb

    from visavis_server.api.vision import queries
    from visavis_server.card import parse_document
    from visavis_server.errors import InvalidRequest, ModelFileError
    from visavis_server.models.onnx_file import parse_onnx_file
    from visavis_server.settings import ImageLimits
    from visavis_server.vision.image import decode, read_file

LIMITS = ImageLimits(encoded_bytes=1 << 20, decoded_bytes=4_000_000)
STARTS = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBP", b"")
LOSSLESS = b"RIFF\xff\xff\x00\x00WEBPVP8L\xff\x00\x00\x00\x2f"


def pictures(data: bytes) -> None:
    """Decode what begins as a picture does."""
    start = STARTS[data[0] % len(STARTS)] if data else b""
    try:
        decode(start + data[1:], LIMITS)
    except InvalidRequest as refused:
        assert refused.field == "image.encoded"  # noqa: PT017  atheris knows no pytest


def files(data: bytes) -> None:
    """Read the structure of what begins as a picture does, a lossless WebP's codes too."""
    starts = (*STARTS[:3], LOSSLESS)
    start = starts[data[0] % len(starts)] if data else b""
    try:
        read_file(start + data[1:].ljust(300, b"\0"), LIMITS).minimal()
    except InvalidRequest as refused:
        assert refused.field == "image.encoded"  # noqa: PT017  as above


def requests(data: bytes) -> None:
    """Read a request as the service does, up to the pixels."""
    kinds = (pb.ClassifyRequest, pb.DetectRequest, pb.CompareRequest)
    try:
        request = kinds[data[0] % len(kinds) if data else 0].FromString(data[1:])
    except Exception:  # noqa: BLE001  no message: refused before anything reads it
        return
    read: Any = {
        pb.ClassifyRequest: queries.read_classify,
        pb.DetectRequest: queries.read_detect,
        pb.CompareRequest: queries.read_compare,
    }[type(request)]
    try:
        read(request, LIMITS).picture.decode()
    except InvalidRequest as refused:
        assert refused.field  # noqa: PT017  as above


def models(data: bytes) -> None:
    """Read the structure of a model file."""
    with suppress(ModelFileError):
        parse_onnx_file(io.BytesIO(data), Path("fuzzed.onnx"))


def documents(data: bytes) -> None:
    """Parse the document that a model file carries in its metadata."""
    with suppress(ModelFileError):
        parse_document(data, "fuzzed")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "pictures": pictures,
    "files": files,
    "requests": requests,
    "models": models,
    "documents": documents,
}

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
