"""Reads safetensors files, which hold only tensors, by name."""

from pathlib import Path

from torch import Tensor

from visavis_export.errors import CheckpointError

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def is_safetensors(path: Path) -> bool:
    """Return True for a safetensors file: eight bytes give the length of the JSON after them."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    return len(head) == 9 and head[8:] == b"{" and 2 <= length <= _MAX_HEADER_BYTES


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file; raises CheckpointError for a damaged one."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(
            f"{path.name} is a safetensors file, and the package safetensors is not installed; "
            "pip install 'visavis-server[export]'"
        ) from None
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path.name} is a damaged safetensors file ({error}); download or copy it again"
        ) from None
    if not tensors:
        raise CheckpointError(f"{path.name} holds no tensors; give the file with the weights")
    return tensors
