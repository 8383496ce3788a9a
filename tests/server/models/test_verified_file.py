"""Model files are opened once, and their bytes can't change under those who use them."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from visavis_server.errors import ModelFileError
from visavis_server.models.verified_file import VerifiedFile
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session, Sessions

from .. import graphs

PICTURE = np.ones((1, 3, 8, 8), np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return graphs.put(tmp_path, "colors", 1, graphs.classifier(gain=10))


def logit(session: Session | Sessions) -> float:
    return float(session.run(PICTURE, ["logits"])[0][0, 0])


def open_descriptors(path: Path) -> int:
    """Return how many descriptors of this process lead to a file, and to sealed memory."""
    links = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(link).startswith((str(path), "/memfd:model")) for link in links)


def test_a_session_comes_from_the_bytes_that_were_opened(path: Path, tmp_path: Path) -> None:
    opened = VerifiedFile(path)
    path.write_bytes(graphs.classifier(gain=3))
    with opened.copy() as copy:
        assert logit(Session(copy, CPU, SessionConfig(tmp_path))) == pytest.approx(10)


def test_a_copy_can_be_neither_written_nor_cut(path: Path) -> None:
    with VerifiedFile(path).copy() as copy:
        assert isinstance(copy.model, str)
        with pytest.raises(PermissionError), open(copy.model, "r+b", buffering=0) as file:
            file.write(b"x")
        with pytest.raises(PermissionError):
            os.truncate(copy.model, 0)


def test_later_sessions_come_from_the_same_file_where_another_took_its_place(
    path: Path, tmp_path: Path
) -> None:
    sessions = Sessions(VerifiedFile(path), CPU, Plan(exclusive_threads=2), SessionConfig(tmp_path))
    other = path.with_name("new")
    other.write_bytes(graphs.classifier(gain=3))
    other.rename(path)
    sessions.make_exclusive()
    assert logit(sessions) == pytest.approx(10)
    assert float(sessions.run(PICTURE, ["logits"], exclusive=True)[0][0, 0]) == pytest.approx(10)


def test_no_session_is_created_from_an_overwritten_file(path: Path, tmp_path: Path) -> None:
    opened = VerifiedFile(path)
    opened.release()
    sessions = Sessions(opened, CPU, Plan(exclusive_threads=2), SessionConfig(tmp_path))
    path.write_bytes(graphs.classifier(gain=3))
    with pytest.raises(ModelFileError, match="the file was overwritten"), opened.copy():
        pass
    sessions.make_exclusive()  # logs, and does without
    assert float(sessions.run(PICTURE, ["logits"], exclusive=True)[0][0, 0]) == pytest.approx(10)


@pytest.mark.parametrize("exclusive_threads", [0, 2])
def test_nothing_stays_open_once_all_sessions_are_made(
    path: Path, tmp_path: Path, exclusive_threads: int
) -> None:
    opened = VerifiedFile(path)
    sessions = Sessions(
        opened, CPU, Plan(exclusive_threads=exclusive_threads), SessionConfig(tmp_path)
    )
    opened.release()
    sessions.make_exclusive()
    assert open_descriptors(path) == 0


def test_a_file_that_is_not_used_any_more_is_closed(path: Path) -> None:
    opened = VerifiedFile(path)
    assert open_descriptors(path) == 2
    del opened
    assert open_descriptors(path) == 0


@pytest.mark.parametrize("where", ["model.onnx", "model.json"])
def test_a_fifo_is_refused_at_once(path: Path, where: str) -> None:
    fifo = path.with_name(where)
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    with pytest.raises(ModelFileError, match=f"{where}: not a regular file"):
        VerifiedFile(path)


def test_a_file_that_no_protobuf_can_be_is_refused_unread(path: Path) -> None:
    os.truncate(path, 1 << 40)  # sparse: it takes no disk, and would take all memory
    with pytest.raises(ModelFileError, match=f"has {1 << 40} bytes; the limit is 2147483647"):
        VerifiedFile(path)


def test_a_json_file_that_would_fill_the_memory_is_refused(path: Path) -> None:
    path.with_name("model.json").touch()
    os.truncate(path.with_name("model.json"), 1 << 40)
    with pytest.raises(ModelFileError, match=r"model\.json: the file has .*; the limit is"):
        VerifiedFile(path)


def test_where_there_is_no_sealed_memory_bytes_are_kept(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    opened = VerifiedFile(path)
    path.write_bytes(graphs.classifier(gain=3))
    with opened.copy() as copy:
        assert logit(Session(copy, CPU, SessionConfig(tmp_path))) == pytest.approx(10)


def test_the_json_beside_a_file_counts_for_its_identity(path: Path) -> None:
    identities = {VerifiedFile(path).identity}
    for text in ("", "{}", "null"):
        path.with_name("model.json").write_text(text)
        identities.add(VerifiedFile(path).identity)
    assert len(identities) == 4
