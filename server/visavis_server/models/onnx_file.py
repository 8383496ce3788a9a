"""Reads what the server must know about an .onnx file before it runs the model.

Reads the metadata, a digest of everything else, whether tensors are stored in other files, and
chosen initializers, directly from the protobuf: without the onnx package, and without a parsed
model in memory.
"""

import hashlib
import io
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from visavis_server.arrays import Tensor
from visavis_server.errors import ModelFileError

# ModelProto.metadata_props, a repeated StringStringEntryProto: onnx/onnx.proto.
_METADATA_PROPS = 14
_GRAPH, _INITIALIZER = 7, 5
_CHUNK_BYTES = 1 << 20
# A document with a thousand labels and a receipt takes 60 KB.
_MAX_METADATA_BYTES = 16 << 20
# First bytes, in lower case, of what often lies in place of a model.
_OTHERS = (
    (b"version https://git-lfs", "only a Git LFS pointer; run `git lfs pull`"),
    (b"<!doctype", "but an HTML page; download the file that it links to"),
    (b"<html", "but an HTML page; download the file that it links to"),
    (b"pk\x03\x04", "but a zip archive, as of PyTorch's files; export or unpack it"),
)


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
# The fields of a tensor that hold its shape, type, name and numbers, and the types that are read.
_DIMS, _DATA_TYPE, _FLOAT_DATA, _TENSOR_NAME, _RAW_DATA = 1, 2, 4, 8, 9
_DTYPES = {1: "<f4", 3: "i1", 10: "<f2"}


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
        other = _other_format(file) or f"or truncated ({error})"
        raise ModelFileError(f"{path}: not an ONNX model, {other}") from None
    if _GRAPH not in fields:
        raise ModelFileError(f"{path}: not an ONNX model (it has no graph)")
    if external:
        raise ModelFileError(f"{path}: its weights are in other files; export it as a single file")
    return OnnxFile(metadata, digest.hexdigest())


def _other_format(file: BinaryIO) -> str:
    """Return what lies in place of a model, and what to do; empty if it is not known."""
    file.seek(0)
    head = file.read(64).lstrip().lower()
    return next((what for start, what in _OTHERS if head.startswith(start)), "")


def read_constants(file: BinaryIO, names: Sequence[str], path: Path) -> list[Tensor]:
    """Return initializers of an open .onnx file, as they are stored: float32, float16 or int8.

    path: for errors. Raises ModelFileError if one is missing, or stored in another form.
    """
    found: dict[str, Tensor] = {}
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        for field, graph in _parts(file, end):
            if field == _GRAPH and isinstance(graph, range):
                for number, tensor in _parts(file, graph.stop):
                    if number == _INITIALIZER and isinstance(tensor, range):
                        found |= _tensor(file, tensor.stop, names)
    except (ValueError, KeyError) as error:
        raise ModelFileError(f"{path}: its initializers can't be read ({error})") from None
    if missing := [name for name in names if name not in found]:
        raise ModelFileError(
            f"{path}: its document names the initializer {missing[0]!r}, which the graph lacks; "
            "export the model again"
        )
    return [found[name] for name in names]


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


def _parts(file: BinaryIO, end: int) -> Iterator[tuple[int, int | range]]:
    """Yield the fields of a message that ends at `end`: number, and value or extent in the file.

    The file is at the beginning of the extent, and may be moved within it.
    """
    while file.tell() < end:
        tag = _read_varint(file)
        if tag & 7 == 0:
            yield tag >> 3, _read_varint(file)
            continue
        size = _read_varint(file) if tag & 7 == 2 else {1: 8, 5: 4}[tag & 7]
        extent = range(file.tell(), file.tell() + size)
        yield tag >> 3, extent
        file.seek(extent.stop)


def _tensor(file: BinaryIO, end: int, names: Container[str]) -> dict[str, Tensor]:
    """Return the tensor whose message ends at `end`, by its name; empty if it is not wanted."""
    shape: list[int] = []
    name, data_type, data = "", 0, range(0)
    for field, part in _parts(file, end):
        if isinstance(part, int):
            if field == _DIMS:
                shape.append(part)
            elif field == _DATA_TYPE:
                data_type = part
        elif field == _DIMS:
            while file.tell() < part.stop:
                shape.append(_read_varint(file))
        elif field == _TENSOR_NAME:
            name = _read_exactly(file, len(part)).decode()
        elif field in (_RAW_DATA, _FLOAT_DATA):
            data = part
    if name not in names:
        return {}
    if data_type not in _DTYPES:
        raise ValueError(f"{name!r} has the type {data_type}; float32, float16 and int8 are read")
    file.seek(data.start)
    return {name: np.frombuffer(file.read(len(data)), _DTYPES[data_type]).reshape(shape)}


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
