"""Reads what the server must know about an .onnx file before it runs the model.

Reads the metadata, a digest of everything else, and whether tensors are stored in other files,
directly from the protobuf: without the onnx package, and without a parsed model in memory.
"""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from visavis_server.errors import ModelFileError

# ModelProto.metadata_props, a repeated StringStringEntryProto: onnx/onnx.proto.
_METADATA_PROPS = 14
_GRAPH = 7
_CHUNK_BYTES = 1 << 20
# A document with a thousand labels and a receipt takes 60 KB.
_MAX_METADATA_BYTES = 16 << 20


# The fields through which tensors are reached, by message and field number: onnx/onnx.proto. A
# tensor with field 13 or 14 set is stored in another file.
_NESTED = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A file's key-value metadata, and the SHA-256 of everything else, in hexadecimal."""

    metadata: dict[str, str]
    digest: str


def read_onnx_file(path: Path) -> OnnxFile:
    """Return the metadata and the digest of the .onnx file at a path.

    Raises ModelFileError if it is not a regular file, and as parse_onnx_file does.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: not a regular file")
    try:
        with path.open("rb") as file:
            return parse_onnx_file(file, path)
    except OSError as error:
        raise ModelFileError(f"{path}: can't be read ({error.strerror})") from None


def parse_onnx_file(file: BinaryIO, path: Path) -> OnnxFile:
    """Return the metadata and the digest of an open .onnx file; path: for errors.

    The digest covers graph and weights. It does not cover the metadata, which carries it. Raises
    ModelFileError if the file is not an ONNX model, or if its weights are in other files: the
    digest does not cover them, and they may change while in use.
    """
    digest = hashlib.sha256()
    metadata: dict[str, str] = {}
    fields: set[int] = set()
    try:
        while tag := _read_varint(file):
            field, wire_type = tag >> 3, tag & 7
            fields.add(field)
            if field == _METADATA_PROPS and wire_type == 2:
                key, value = _entry(_read_exactly(file, _read_varint(file)))
                metadata[key] = value
            else:
                digest.update(_varint(tag))
                for chunk in _read_field(file, wire_type):
                    digest.update(chunk)
        end = file.tell()
        file.seek(0)
        external = _has_external_data(file, "model", end)
    except (ValueError, KeyError, RecursionError) as error:
        raise ModelFileError(f"{path}: not an ONNX model, or truncated ({error})") from None
    if _GRAPH not in fields:
        raise ModelFileError(f"{path}: not an ONNX model (it has no graph)")
    if external:
        raise ModelFileError(f"{path}: its weights are in other files; export it as a single file")
    return OnnxFile(metadata, digest.hexdigest())


def metadata_bytes(metadata: dict[str, str]) -> bytes:
    """Return the bytes that add key-value pairs to an .onnx file when appended to it."""
    encoded = b""
    for key, value in metadata.items():
        entry = b"".join(
            _varint(number << 3 | 2) + _varint(len(text.encode())) + text.encode()
            for number, text in ((1, key), (2, value))
        )
        encoded += _varint(_METADATA_PROPS << 3 | 2) + _varint(len(entry)) + entry
    return encoded


def _read_field(file: BinaryIO, wire_type: int) -> Iterable[bytes]:
    if wire_type == 0:
        yield _varint(_read_varint(file))
    elif wire_type in (1, 5):
        yield _read_exactly(file, 8 if wire_type == 1 else 4)
    elif wire_type == 2:
        size = _read_varint(file)
        yield _varint(size)
        while size:
            chunk = _read_exactly(file, min(size, _CHUNK_BYTES))
            yield chunk
            size -= len(chunk)
    else:
        raise ValueError(f"wire type {wire_type}")


def _has_external_data(file: BinaryIO, message: str, end: int) -> bool:
    """Return True if a message that ends at `end` holds a tensor stored in another file."""
    while file.tell() < end:
        tag = _read_varint(file)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value = _read_varint(file)
            if message == "tensor" and field == _DATA_LOCATION and value:
                return True
            continue
        size = _read_varint(file) if wire_type == 2 else {1: 8, 5: 4}[wire_type]
        after = file.tell() + size
        if after > end:  # seeking past the end of the file would succeed
            raise ValueError("a field is longer than its message")
        if message == "tensor" and field == _EXTERNAL_DATA:
            return True
        nested = _NESTED[message].get(field)
        if nested and wire_type == 2 and _has_external_data(file, nested, after):
            return True
        file.seek(after)
    return False


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    if size > _MAX_METADATA_BYTES:
        raise ValueError(f"a metadata entry takes {size} bytes; the limit is {_MAX_METADATA_BYTES}")
    data = file.read(size)
    if len(data) < size:
        raise ValueError("unexpected end of file")
    return data


def _read_varint(file: BinaryIO) -> int:
    """Return the next variable-length integer; 0 at the end of the file."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            if shift:
                raise ValueError("unexpected end of file")
            return 0
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a varint is too long")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _entry(data: bytes) -> tuple[str, str]:
    """Return the key and the value of one StringStringEntryProto."""
    file = io.BytesIO(data)
    texts = {1: "", 2: ""}
    while tag := _read_varint(file):
        if tag & 7 != 2:
            raise ValueError("a metadata entry is not text")
        texts[tag >> 3] = _read_exactly(file, _read_varint(file)).decode()
    return texts[1], texts[2]
