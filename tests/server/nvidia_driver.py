"""NVIDIA's driver as `libcuda.c` fakes it, built against the real driver's header."""

import ctypes
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from visavis_server.runtime import nvidia

_SOURCE = Path(__file__).with_name("libcuda.c")


def build(folder: Path) -> Path:
    """Return the library; skips the test without a compiler or the header."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    target = folder / "libcuda.so.1"
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", f"-I{_headers()}"]
    subprocess.run([*command, "-o", str(target), str(_SOURCE)], check=True)
    return target


def _headers() -> Path:
    """Return the folder with cuda.h, as PyTorch's dependencies install it."""
    found = importlib.util.find_spec("nvidia")
    for root in map(Path, (found and found.submodule_search_locations) or ()):
        for header in sorted(root.glob("*/include/cuda.h")):
            return header.parent
    pytest.skip("needs NVIDIA's cuda.h: pip install nvidia-cuda-runtime")


class FakeDriver:
    """The driver of a machine with some GPUs."""

    def __init__(self, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.library = ctypes.CDLL(str(library))
        self._monkeypatch = monkeypatch
        monkeypatch.delenv(nvidia.VISIBLE, raising=False)
        self.has(2)

    def has(self, gpus: int) -> None:
        """Set the number of GPUs: a whole one, then a part of one."""
        self._monkeypatch.setenv("FAKE_GPUS", str(gpus))

    @property
    def pinned(self) -> int:
        """The number of allocations that are not freed."""
        return self.library.fake_pinned()


@contextmanager
def in_place(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """Let the server find the fake driver."""
    real = ctypes.CDLL

    def found(name: str, *arguments: object, **options: object) -> ctypes.CDLL:
        return real(str(library) if name == "libcuda.so.1" else name, *arguments, **options)

    monkeypatch.setattr(nvidia.ctypes, "CDLL", found)
    nvidia._driver.cache_clear()
    yield FakeDriver(library, monkeypatch)
    nvidia._driver.cache_clear()
