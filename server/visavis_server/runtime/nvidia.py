"""NVIDIA's driver: the GPUs that this process may use, and their memory.

It is called through ctypes, so nothing has to be installed beside the driver. Its header is CUDA's
`cuda.h`.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from ctypes import (
    byref,
    c_char_p,
    c_int,
    c_size_t,
    c_uint,
    c_uint64,
    c_void_p,
    create_string_buffer,
)
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from visavis_server.errors import ProviderUnavailable

VISIBLE = "CUDA_VISIBLE_DEVICES"
_VERSION = Path("/proc/driver/nvidia/version")
_UUID_BYTES, _NAME_BYTES = 16, 128
_LISTING_S = 10.0
_FUNCTIONS: dict[str, list[Any]] = {
    "cuInit": [c_uint],
    "cuDriverGetVersion": [c_void_p],
    "cuDeviceGetCount": [c_void_p],
    "cuDeviceGet": [c_void_p, c_int],
    "cuDeviceGetName": [c_char_p, c_int, c_int],
    "cuDeviceGetUuid_v2": [c_void_p, c_int],
    "cuDeviceTotalMem_v2": [c_void_p, c_int],
    "cuDevicePrimaryCtxRetain": [c_void_p, c_int],
    "cuCtxPushCurrent_v2": [c_void_p],
    "cuCtxPopCurrent_v2": [c_void_p],
    "cuMemGetInfo_v2": [c_void_p, c_void_p],
    "cuMemHostAlloc": [c_void_p, c_size_t, c_uint],
    "cuMemFreeHost": [c_void_p],
    "cuMemcpyHtoD_v2": [c_uint64, c_void_p, c_size_t],
    "cuMemcpyDtoH_v2": [c_void_p, c_uint64, c_size_t],
}


class DriverError(Exception):
    """A function of the driver reported an error."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a part of one (MIG), that CUDA_VISIBLE_DEVICES leaves; number: among these."""

    number: int
    name: str
    uuid: str
    memory_bytes: int

    def __str__(self) -> str:
        """Describe the GPU, for errors and `visavis doctor`."""
        return f"{self.number} ({self.name}, {self.memory_bytes >> 20} MiB, {self.uuid})"


class Driver:
    """The driver's functions; each raises DriverError if it fails. Initializes the driver."""

    def __init__(self) -> None:
        """Raise OSError if there is no driver."""
        self._library = ctypes.CDLL("libcuda.so.1")
        self._contexts: dict[int, c_void_p] = {}
        for name, types in _FUNCTIONS.items():
            getattr(self._library, name).argtypes = types
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function."""
        if status := getattr(self._library, name)(*arguments):
            raise DriverError(f"{name} reports error {status}")

    def within(self, number: int, work: Callable[[], None]) -> None:
        """Do some work in the context of a GPU, which ONNX Runtime uses too."""
        self.call("cuCtxPushCurrent_v2", self._context(number))
        try:
            work()
        finally:
            self.call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def _context(self, number: int) -> c_void_p:
        """Return the primary context of a GPU, kept until the process ends."""
        if number not in self._contexts:
            device, context = c_int(), c_void_p()
            self.call("cuDeviceGet", byref(device), number)
            self.call("cuDevicePrimaryCtxRetain", byref(context), device)
            self._contexts[number] = context
        return self._contexts[number]


@cache
def _driver() -> Driver:
    return Driver()


def missing() -> list[str]:
    """Return what is missing of the driver and its GPUs, in words; empty if nothing is."""
    try:
        return [] if gpus() else [f"the NVIDIA driver finds no GPU{_restriction()}"]
    except OSError:
        return ["the NVIDIA driver is not installed (libcuda.so.1 is not found)"]
    except (DriverError, AttributeError) as error:
        return [f"the NVIDIA driver is unusable: {error}; run nvidia-smi{_restriction()}"]


def gpus() -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves.

    Raises OSError if there is no driver, DriverError if it fails, AttributeError if it is too old.
    """
    driver, count = _driver(), c_int()
    driver.call("cuDeviceGetCount", byref(count))
    return [_gpu(driver, number) for number in range(count.value)]


def _gpu(driver: Driver, number: int) -> Gpu:
    device, size = c_int(), c_size_t()
    name, uuid = create_string_buffer(_NAME_BYTES), create_string_buffer(_UUID_BYTES)
    driver.call("cuDeviceGet", byref(device), number)
    driver.call("cuDeviceGetName", name, _NAME_BYTES, device)
    driver.call("cuDeviceGetUuid_v2", uuid, device)
    driver.call("cuDeviceTotalMem_v2", byref(size), device)
    words = name.value.decode(errors="replace")
    digits = uuid.raw.hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    kind = "MIG" if " MIG " in words else "GPU"
    return Gpu(number, words, f"{kind}-{'-'.join(parts)}", size.value)


def restrict(wanted: str) -> None:
    """Make a part of a GPU (MIG-…) visible; call it before anything initializes CUDA.

    Without CUDA_VISIBLE_DEVICES, CUDA shows a process only the first part. A variable that the
    user has set is left as it is.
    """
    if wanted.upper().startswith("MIG-"):
        os.environ.setdefault(VISIBLE, wanted)


def numbered(wanted: str) -> int:
    """Return the number of a GPU that is given by its number or its UUID (GPU-…, MIG-…).

    A UUID may be shortened, as in CUDA_VISIBLE_DEVICES. Raises ProviderUnavailable, listing the
    GPUs that are visible, unless it names one of them; and as `gpus` does.
    """
    visible = gpus()
    if wanted.isdecimal():
        found = [gpu for gpu in visible if gpu.number == int(wanted)]
    else:
        found = [gpu for gpu in visible if gpu.uuid.lower().startswith(wanted.lower())]
    if len(found) == 1:
        return found[0].number
    listing = "; ".join(map(str, visible)) or "none"
    problem = "is not visible to this process" if not found else "names several GPUs"
    raise ProviderUnavailable(
        f"the GPU {wanted} {problem}{_restriction()}; those that are: {listing}"
    )


def free_bytes(number: int) -> int:
    """Return the memory of a GPU that no process uses. Raises DriverError."""
    free, total = c_size_t(), c_size_t()
    driver = _driver()
    driver.within(number, partial(driver.call, "cuMemGetInfo_v2", byref(free), byref(total)))
    return free.value


def version() -> str:
    """Return the versions of the driver and of the newest CUDA that it supports."""
    number = c_int()
    _driver().call("cuDriverGetVersion", byref(number))
    cuda = f"supports CUDA {number.value // 1000}.{number.value % 1000 // 10}"
    try:
        first = _VERSION.read_text("ascii", errors="replace").splitlines()[0]
    except (OSError, IndexError):  # not Linux, or a container without it
        return cuda
    return f"{first.removeprefix('NVRM version:').strip()}; {cuda}"


def pinned(size_bytes: int, number: int) -> int:
    """Return the address of new memory of this machine that a GPU copies from and to directly.

    Raises OSError, DriverError or AttributeError if there is none.
    """
    driver, address = _driver(), c_void_p()
    # Without flags, it is pinned for the context of this GPU alone.
    driver.within(
        number, partial(driver.call, "cuMemHostAlloc", byref(address), size_bytes, c_uint(0))
    )
    assert address.value
    return address.value


def unpin(address: int, number: int) -> None:
    """Free what `pinned` returned. Raises DriverError, as at the end of the process."""
    driver = _driver()
    driver.within(number, partial(driver.call, "cuMemFreeHost", c_void_p(address)))


def copy_in(device: int, host: int, size_bytes: int, number: int) -> None:
    """Copy from this machine's memory to a GPU's; both are addresses. Raises DriverError."""
    driver = _driver()
    driver.within(number, partial(driver.call, "cuMemcpyHtoD_v2", device, host, size_bytes))


def copy_out(host: int, device: int, size_bytes: int, number: int) -> None:
    """Copy from a GPU's memory to this machine's; both are addresses. Raises DriverError."""
    driver = _driver()
    driver.within(number, partial(driver.call, "cuMemcpyDtoH_v2", host, device, size_bytes))


def _restriction() -> str:
    """Return the user's restriction, and where the machine's GPUs are listed."""
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return ""
    return f" ({VISIBLE} is {visible!r}; this machine has {_listing()})"


def _listing() -> str:
    """Return the GPUs of this machine, MIG's parts included, as nvidia-smi lists them."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return "no nvidia-smi to list them"
    try:
        listed = subprocess.run(
            [tool, "-L"], capture_output=True, text=True, timeout=_LISTING_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"an nvidia-smi that fails ({error})"
    return "; ".join(line.strip() for line in listed.stdout.splitlines()) or "none"
