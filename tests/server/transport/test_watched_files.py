"""Files that a thread reloads when they change."""

import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from visavis_server.errors import StartupError
from visavis_server.transport import watched_files
from visavis_server.transport.watched_files import WatchedFiles

Watched = WatchedFiles[bytes]


def parse(contents: list[bytes]) -> bytes:
    if b"nonsense" in contents[0]:
        raise StartupError("it is nonsense")
    return contents[0]


def watched(path: Path) -> Watched:
    return WatchedFiles("things", [path], parse)


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
    """Create a sparse file of a terabyte."""
    with path.open("wb") as file:
        file.truncate(1 << 40)
    return path


def test_a_change_is_noticed_by_itself(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "_CHECK_EVERY_S", 0.01)
    parsed = threading.Event()

    def parse_and_set(contents: list[bytes]) -> bytes:
        if contents[0] == b"new":
            parsed.set()
        return contents[0]

    files = WatchedFiles("things", [file], parse_and_set)
    file.write_bytes(b"new")
    assert parsed.wait(10)
    files.look()
    assert files.value == b"new"


def test_a_check_can_be_requested_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "_CHECK_EVERY_S", 600)
    files, looked = watched(file), threading.Event()
    monkeypatch.setattr(files, "look", looked.set)
    files.look_soon()
    assert looked.wait(10)


@pytest.mark.parametrize(
    "now", ["a FIFO", "a device", "a folder", "nothing", "a terabyte", "wrong"]
)
def test_unreadable_files_keep_the_value_and_are_logged_once(
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
        (error,) = logs
        assert error["why"] == "it is nonsense"
    else:
        (error,) = logs
        assert str(file) in error["why"]


@pytest.mark.parametrize("what", ["fifo", "/dev/zero", "/dev/tty", "folder", "terabyte"])
def test_only_regular_files_of_limited_size_are_read(fifo: Path, tmp_path: Path, what: str) -> None:
    path = {"fifo": fifo, "folder": tmp_path}.get(what, Path(what))
    if what == "terabyte":
        path = large(tmp_path / "large")
    with pytest.raises(
        StartupError, match=f"{path} is (not a regular file|larger than 1048576 bytes)"
    ):
        watched(path)


def test_a_mount_that_hangs_blocks_no_call(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "_CHECK_EVERY_S", 0.01)
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


def test_the_thread_ends_with_its_object(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "_CHECK_EVERY_S", 0.01)
    before = set(threading.enumerate())
    files = watched(file)
    (thread,) = set(threading.enumerate()) - before
    del files
    thread.join(10)
    assert not thread.is_alive()
