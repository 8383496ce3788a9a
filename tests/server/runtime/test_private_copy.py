"""Private copies are sealed, even while something else refers to their pages for a moment."""

import mmap
import os
import threading
from pathlib import Path

import pytest

from visavis_server.runtime.private_copy import PrivateCopy


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model" * 1000)
    return path


def _copied(path: Path) -> PrivateCopy:
    with path.open("rb") as file:
        return PrivateCopy(file.fileno(), path)


def test_a_copy_is_sealed(model: Path) -> None:
    copy = _copied(model)
    assert copy.read() == model.read_bytes()
    assert isinstance(copy.model, str)
    with (
        open(copy.model, "r+b", buffering=0) as file,
        pytest.raises(OSError, match="not permitted"),
    ):
        file.write(b"x")


def test_a_copy_waits_until_it_can_be_sealed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses to seal a file that has a writable mapping, as it does while it moves."""
    create, timers = os.memfd_create, []

    def mapped(name: str, flags: int) -> int:
        memory = create(name, flags)
        os.ftruncate(memory, 0x1000)
        mapping = mmap.mmap(memory, 0x1000)
        timers.append(threading.Timer(0.2, mapping.close))
        timers[0].start()
        return memory

    monkeypatch.setattr(os, "memfd_create", mapped)
    assert _copied(model).read() == model.read_bytes()
    timers[0].join()
