"""Files that are read beside whoever uses them."""

import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from visavis_server.errors import StartupError
from visavis_server.transport import watched_files
from visavis_server.transport.watched_files import WatchedFiles

Watched = WatchedFiles[bytes]


def understand(contents: list[bytes]) -> bytes:
    if b"nonsense" in contents[0]:
        raise StartupError("it is nonsense")
    return contents[0]


def watched(path: Path) -> Watched:
    return WatchedFiles("things", [path], understand)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def large(path: Path) -> Path:
    """Make a file of a terabyte that takes no room."""
    with path.open("wb") as file:
        file.truncate(1 << 40)
    return path


def test_a_change_is_noticed_without_anybody_who_asks(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_files, "_LOOK_EVERY_S", 0.01)
    understood = threading.Event()

    def told(contents: list[bytes]) -> bytes:
        if contents[0] == b"new":
            understood.set()
        return contents[0]

    files = WatchedFiles("things", [file], told)
    file.write_bytes(b"new")
    assert understood.wait(10)
    files.look()
    assert files.value == b"new"


def test_a_look_can_be_wanted_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "_LOOK_EVERY_S", 600)
    files, looked = watched(file), threading.Event()
    monkeypatch.setattr(files, "look", looked.set)
    files.look_soon()
    assert looked.wait(10)


@pytest.mark.parametrize(
    "now", ["a FIFO", "a device", "a folder", "nothing", "a terabyte", "wrong"]
)
def test_what_cannot_be_read_leaves_what_was_and_is_told_once(
    file: Path, fifo: Path, tmp_path: Path, now: str
) -> None:
    files = watched(file)
    file.unlink()
    match now:
        case "a FIFO":
            fifo.rename(file)
        case "a device":
            file.symlink_to("/dev/zero")
        case "a folder":
            file.mkdir()
        case "a terabyte":
            large(file)
        case "wrong":
            file.write_bytes(b"nonsense")
    with capture_logs() as logs:
        for _ in range(3):
            files.look()
    assert files.value == b"old"
    if now == "wrong":
        (told,) = logs
        assert told["why"] == "it is nonsense"
    else:
        (told,) = logs
        assert str(file) in told["why"]


@pytest.mark.parametrize("what", ["fifo", "/dev/zero", "/dev/tty", "folder", "terabyte"])
def test_only_regular_files_of_limited_size_are_read(fifo: Path, tmp_path: Path, what: str) -> None:
    path = {"fifo": fifo, "folder": tmp_path}.get(what, Path(what))
    if what == "terabyte":
        path = large(tmp_path / "large")
    with pytest.raises(StartupError, match=f"{path} is (no regular file|over 1048576 bytes)"):
        watched(path)


def test_a_mount_that_hangs_holds_up_nobody(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "_LOOK_EVERY_S", 0.01)
    files = watched(file)
    hangs, goes_on = threading.Event(), threading.Event()

    def read(path: Path) -> bytes:
        hangs.set()
        goes_on.wait(10)
        return b"old"

    monkeypatch.setattr(watched_files, "_contents_of", read)
    assert hangs.wait(10)
    assert files.value == b"old"  # at once
    goes_on.set()


def test_nothing_is_watched_for_nobody(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "_LOOK_EVERY_S", 0.01)
    before = set(threading.enumerate())
    files = watched(file)
    (thread,) = set(threading.enumerate()) - before
    del files
    thread.join(10)
    assert not thread.is_alive()
