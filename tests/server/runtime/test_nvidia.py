"""NVIDIA's driver, through a fake that is built against its own header."""

import gc
import stat
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from visavis_server.errors import ProviderUnavailable
from visavis_server.runtime import nvidia
from visavis_server.runtime.buffers import Buffers
from visavis_server.runtime.pinned_memory import PinnedMemory

from ..nvidia_driver import FakeDriver

WHOLE = "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf"
PART = "MIG-b0b1b2b3-b4b5-b6b7-b8b9-babbbcbdbebf"


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that lists one GPU."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: Fake H200 (UUID: {WHOLE})"\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("driver")
def test_the_visible_gpus_are_described() -> None:
    assert nvidia.missing() == []
    assert nvidia.gpus() == [
        nvidia.Gpu(0, "Fake H200", WHOLE, 16 << 30),
        nvidia.Gpu(1, "Fake A100 MIG 1g.10gb", PART, 32 << 30),
    ]
    assert nvidia.version().endswith("supports CUDA 13.0")
    assert nvidia.free_bytes(1) == 4 << 30


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("wanted", "number"),
    [("0", 0), ("1", 1), (WHOLE, 0), (PART, 1), (WHOLE[:12], 0), (PART.upper(), 1)],
)
def test_a_gpu_is_found_by_its_number_or_its_uuid(wanted: str, number: int) -> None:
    assert nvidia.numbered(wanted) == number


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("wanted", ["2", "GPU-00000000", "MIG-a0a1a2a3"])
def test_a_gpu_that_is_not_visible_is_refused_with_those_that_are(wanted: str) -> None:
    with pytest.raises(ProviderUnavailable) as refused:
        nvidia.numbered(wanted)
    assert str(refused.value) == (
        f"the GPU {wanted} is not visible to this process; those that are: "
        f"0 (Fake H200, 16384 MiB, {WHOLE}); 1 (Fake A100 MIG 1g.10gb, 32768 MiB, {PART})"
    )


@pytest.mark.usefixtures("listing")
def test_a_restriction_is_named_with_all_gpus_of_the_machine(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.has(1)
    monkeypatch.setenv(nvidia.VISIBLE, "GPU-7")
    named = f"(CUDA_VISIBLE_DEVICES is 'GPU-7'; this machine has GPU 0: Fake H200 (UUID: {WHOLE}))"
    with pytest.raises(ProviderUnavailable) as refused:
        nvidia.numbered("3")
    assert named in str(refused.value)
    driver.has(0)
    nvidia._driver.cache_clear()
    assert nvidia.missing() == [
        f"the NVIDIA driver is unusable: cuInit reports error 100; run nvidia-smi {named}"
    ]


def test_a_part_of_a_gpu_is_made_visible_unless_the_user_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(nvidia.VISIBLE, "1")
    nvidia.restrict(PART)
    assert nvidia.os.environ[nvidia.VISIBLE] == "1"
    monkeypatch.delenv(nvidia.VISIBLE)
    for whole in ("0", WHOLE):
        nvidia.restrict(whole)
        assert nvidia.VISIBLE not in nvidia.os.environ
    nvidia.restrict(PART)
    assert nvidia.os.environ[nvidia.VISIBLE] == PART
    monkeypatch.delenv(nvidia.VISIBLE)


def test_without_a_driver_this_is_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(nvidia.ctypes, "CDLL", missing)
    nvidia._driver.cache_clear()
    assert nvidia.missing() == [
        "the NVIDIA driver is not installed (libcuda.so.1 is not found)",
    ]


def test_pinned_memory_is_pooled_and_freed(driver: FakeDriver) -> None:
    before = driver.pinned
    buffers = Buffers(1, PinnedMemory(0).allocate)
    first, second = buffers.empty(2, 8), buffers.empty(2, 8)
    first[:], second[:] = 1, 2
    assert first.ctypes.data % 4096 == second.ctypes.data % 4096 == 0
    assert (first.sum(), second.sum()) == (16, 32)
    assert driver.pinned == before + 2
    del first, second
    gc.collect()
    assert driver.pinned == before + 1  # one is kept
    del buffers
    gc.collect()
    assert driver.pinned == before


def test_memory_that_cannot_be_pinned_is_replaced_and_logged_once(driver: FakeDriver) -> None:
    before, memory = driver.pinned, PinnedMemory(0)
    with capture_logs() as logs:
        large = [memory.allocate(2 << 20) for _ in range(2)]
    assert [each.nbytes for each in large] == [2 << 20] * 2
    (entry,) = logs
    assert entry["why"] == "cuMemHostAlloc reports error 2"
    assert driver.pinned == before


@pytest.mark.usefixtures("driver")
def test_copies_go_where_they_should() -> None:
    here, there = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    nvidia.copy_in(there.ctypes.data, here.ctypes.data, 32 * 4, 0)
    assert there.tolist() == [*range(32), *[0] * 32]
    back = np.zeros(64, np.float32)
    nvidia.copy_out(back.ctypes.data, there.ctypes.data, 64 * 4, 1)
    assert back.tolist() == there.tolist()


@pytest.mark.usefixtures("driver")
def test_an_error_of_the_driver_is_named() -> None:
    with pytest.raises(nvidia.DriverError, match="cuDeviceGet reports error 101"):
        nvidia.free_bytes(5)
