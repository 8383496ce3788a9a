"""Reads the files of torch.save: zip archives, and the format of torch before 1.6."""

import io
import re
import struct
import zipfile
from pathlib import Path

from visavis_export.checkpoints.pickled import Pickled, Storage, read_pickle, shown
from visavis_export.errors import CheckpointError, UnsafeCheckpoint

# A YOLOv5x6 with its optimizer has 1,700 records.
MAX_RECORDS = 100_000
MAX_PICKLE_BYTES = 64 << 20
# The largest published models have some 0.6 GB; a checkpoint in training has up to four times that.
MAX_FILE_BYTES = 8 << 30

# `PROTO 2`, `LONG1` and the magic number: the first bytes of a file of torch before 1.6.
_LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
# First bytes of other formats, and advice for each. ONNX: the fields ir_version and producer_name.
_OTHERS = {
    rb"\x08[\x01-\x20]\x12": "is an ONNX file, which needs no export; put it into the model "
    "repository as NAME/1/model.onnx",
    rb"\x1f\x8b|BZh|\xfd7zXZ": "is compressed; unpack it",
    rb"\x89HDF": "is an HDF5 file, probably from Keras; visavis exports PyTorch models only",
}
_END = b"PK\x05\x06"
_END_64, _LOCATOR_64 = b"PK\x06\x06", b"PK\x06\x07"
_MALFORMED = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
)


def require_usable(path: Path) -> None:
    """Raise CheckpointError for a path that can't be weights, without opening it.

    To open a pipe could take forever, and so could reading a file that is too large.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise CheckpointError(f"{path.name} is a pipe, socket or device; give a regular file")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise CheckpointError(
            f"{path.name} has {size} bytes; files of weights may have up to {MAX_FILE_BYTES}"
        )


def check_torch_file(path: Path) -> None:
    """Raise CheckpointError unless torch.save could have written a file; names the actual format.

    Reads only the first bytes and the archive's directory: the content may still be damaged.
    """
    if path.is_dir():
        raise CheckpointError(f"{path.name} is a folder, not a checkpoint; give a file")
    require_usable(path)
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}") from error
    if not head:
        raise CheckpointError(f"{path.name} is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path.name} is only a Git LFS pointer; run `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path.name} is an HTML page; download the file that it links to")
    if head.startswith(b"PK\x03\x04"):
        with _opened(path):
            pass
    elif not head.startswith(_LEGACY_MAGIC):
        other = next((text for start, text in _OTHERS.items() if re.match(start, head)), None)
        other = other or (
            f"is not a torch checkpoint: it begins with {head[:8]!r}; give a .pt or .pth file "
            "written by torch.save, or a .safetensors file"
        )
        raise CheckpointError(f"{path.name} {other}")


def read_archive(path: Path) -> Pickled:
    """Return the content of a file of torch.save, its pickle inert and its storages filled.

    Reads every record and checks its CRC, including records that are not needed. Raises
    CheckpointError for other, forged or damaged files, and UnsafeCheckpoint, naming the code, for
    code that no checkpoint needs.
    """
    check_torch_file(path)
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except UnsafeCheckpoint as error:
        compiled = "torch._dynamo" in str(error) or "torch._TorchCompile" in str(error)
        place = "belongs to torch.compile" if compiled else "no checkpoint needs"
        model = "model._orig_mod" if compiled else "model"
        raise UnsafeCheckpoint(
            f"{path.name} is refused, because {error}, which {place}; none of its code was run. If "
            "you trust the file, load it where it was trained and save only the model: "
            f"torch.save({model}.state_dict(), FILE) for a ResNet, "
            f"torch.save({{'model': {model}}}, FILE) for a YOLO"
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} is refused: {error}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *_MALFORMED) as error:
        raise CheckpointError(
            f"{path.name} is damaged ({shown(str(error), 100) or type(error).__name__}); "
            "download or copy it again"
        ) from None


def _read_zip(path: Path) -> Pickled:
    with _opened(path) as archive:
        records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if records["data.pkl"].file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(
                f"its pickle has {records['data.pkl'].file_size} bytes; the limit is "
                f"{MAX_PICKLE_BYTES}, a hundred times what a network needs"
            )
        if "byteorder" in records and archive.read(records["byteorder"]) != b"little":
            raise CheckpointError("its numbers are big-endian; save it on a little-endian machine")
        pickled = read_pickle(io.BytesIO(archive.read(records["data.pkl"])))
        for record, info in records.items():
            data = archive.read(info)
            storage = pickled.storages.get(record.removeprefix("data/"))
            if storage is not None and record.startswith("data/"):
                _fill(storage, data, record)
        for key, storage in pickled.storages.items():
            if len(storage.data) != storage.size_bytes:
                raise CheckpointError(f"the record data/{shown(key)} is missing from the archive")
    return pickled


def _opened(path: Path) -> zipfile.ZipFile:
    """Open an archive; raises CheckpointError for compressed, repeated or overlapping records."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            count = _count_records(file, size)
        if count > MAX_RECORDS:
            raise CheckpointError(
                f"{path.name} has {count} records; the limit is {MAX_RECORDS}, and a network has a "
                "few hundred"
            )
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, *_MALFORMED) as error:
        raise CheckpointError(f"{path.name} is cut short; download it again") from error
    infos = archive.infolist()
    names = {info.filename.partition("/")[2] for info in infos}
    complaint = ""
    if "constants.pkl" in names:
        complaint = (
            "is TorchScript, which can't be exported; give the checkpoint that it was made from, "
            "such as best.pt instead of best.torchscript"
        )
    elif "data.pkl" not in names:
        complaint = (
            "is a zip archive, but not a torch checkpoint; if one is in it, unpack it and give that"
        )
    elif len(names) != len(infos):
        complaint = "has two records with the same name; torch never writes that, so it is forged"
    elif any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        complaint = "has compressed records, which torch never writes; save it again with torch"
    elif sum(info.file_size for info in infos) > size:
        complaint = f"has overlapping records: together they exceed the file's {size} bytes"
    if complaint:
        archive.close()
        raise CheckpointError(f"{path.name} {complaint}")
    return archive


def _count_records(file: io.BufferedReader, size: int) -> int:
    """Return the number of records that an archive announces, without reading its directory."""
    file.seek(max(0, size - (1 << 16) - 42))
    tail = file.read()
    plain = tail[-22:].startswith(_END) and tail.endswith(b"\0\0")  # the same rule as zipfile's
    at = len(tail) - 22 if plain else tail.rfind(_END)
    (count,) = struct.unpack_from("<H", tail, at + 10) if at >= 0 else (0,)
    locator = tail[max(0, at - 20) : max(0, at)]
    if not locator.startswith(_LOCATOR_64):
        return count
    file.seek(struct.unpack_from("<Q", locator, 8)[0])
    end = file.read(56)
    return struct.unpack_from("<Q", end, 32)[0] if end.startswith(_END_64) else count


def _read_legacy(path: Path) -> Pickled:
    """Return the content of a file of torch before 1.6.

    It holds four pickles, the keys of the storages, and the bytes of each storage.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        pickles = io.BytesIO(file.read(min(MAX_PICKLE_BYTES, size)))
        for _ in ("magic number", "version of the protocol", "sizes of numbers"):
            read_pickle(pickles)
        pickled = read_pickle(pickles)
        keys = read_pickle(pickles).content
        file.seek(pickles.tell())
        for key in keys:
            storage = pickled.storages[key]
            (elements,) = struct.unpack("<q", file.read(8))
            if elements != storage.elements:
                raise CheckpointError(f"the storage {shown(key)} is declared with two sizes")
            _fill(storage, file.read(min(storage.size_bytes, size)), shown(key))
    if set(keys) != set(pickled.storages):
        raise CheckpointError("a storage of its tensors is missing")
    return pickled


def _fill(storage: Storage, data: bytes, record: str) -> None:
    if len(data) != storage.size_bytes:
        raise CheckpointError(
            f"the record {shown(record)} has {len(data)} bytes, but its tensors need "
            f"{storage.size_bytes}; the file is damaged or forged"
        )
    storage.data = bytearray(data)
