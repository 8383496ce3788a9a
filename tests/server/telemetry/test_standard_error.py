"""Captured standard error. Each test runs a separate process, whose streams it can break."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("minimal_surroundings")

BEGINNING = """
import logging, os, sys, threading, warnings
import structlog
from visavis_server.telemetry.standard_error import captured
log = structlog.get_logger()
"""


def entries(text: str) -> list[dict[str, Any]]:
    """Return the log's entries; fails at a line that is not an entry."""
    return [json.loads(line) for line in text.splitlines()]


def program(body: str) -> list[str]:
    """Return the command that runs code with standard error captured."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return [sys.executable, "-c", f"{BEGINNING}\nwith captured('json', 'debug'):\n{lines}\n"]


def ran(body: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(program(body), capture_output=True, text=True, check=False, timeout=60)


def test_output_of_native_code_becomes_entries_with_control_characters_escaped() -> None:
    done = ran(r"""os.write(2, b'libpng warning: x\x1b[31m\n{"event": "forged"}\nno line break')""")
    found = entries(done.stderr)
    assert {entry["event"] for entry in found} == {"library wrote"}
    assert [entry["text"] for entry in found] == [
        r"libpng warning: x\x1b[31m",
        '{"event": "forged"}',
        "no line break",
    ]


def test_a_flood_is_bounded_and_counted() -> None:
    # Slowly enough for the pipe: output that overflows it is lost.
    done = ran(
        """
for _ in range(100):
    os.write(2, b'line' * 4 + b'\\n' * 100)
    os.write(2, b'more\\n' * 99)
    threading.Event().wait(0.002)
"""
    )
    found = entries(done.stderr)
    assert len(found) <= 52
    suppressed = [entry["suppressed"] for entry in found if entry["event"] == "more of the same"]
    assert suppressed == [100 * 100 - 50]


def test_a_line_without_end_is_cut_into_bounded_entries() -> None:
    done = ran(
        "for _ in range(15):\n    os.write(2, b'x' * 4000)\n    threading.Event().wait(0.01)"
    )
    found = entries(done.stderr)
    assert sum(len(entry["text"]) for entry in found) == 60_000
    assert max(len(entry["text"]) for entry in found) <= 4096


def test_native_code_that_overflows_the_pipe_does_not_block() -> None:
    # ctypes.PyDLL holds Python's global lock during a call, as extensions may: the pipe isn't read.
    done = ran(
        """
import ctypes
ctypes.PyDLL(None).write(2, b'x' * (1 << 20), 1 << 20)
ctypes.PyDLL(None).write(2, b'x' * (1 << 20), 1 << 20)
log.info('goes on')
"""
    )
    assert any(entry["event"] == "goes on" for entry in entries(done.stderr))
    assert done.returncode == 0


def test_pythons_own_reports_are_entries() -> None:
    done = ran(
        r"""
warnings.warn('old\n{"event": "forged"}')
logging.getLogger('asyncio').error('lost %s', 'task')
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger('grpc').exception('failed')
thread = threading.Thread(target=lambda: 1 / 0, name='core')
thread.start(); thread.join()
class ExecuteBatchError(Exception): pass
try:
    raise ExecuteBatchError
except ExecuteBatchError:
    logging.getLogger('grpc._cython.cygrpc').exception('a client hung up')
class Odd:
    def __del__(self): 1 / 0
Odd()
print('printed', file=sys.stderr)
"""
    )
    found = entries(done.stderr)
    said = {entry.get("library"): entry for entry in found if entry["event"] == "library wrote"}
    assert r"old\n{\"event\": \"forged\"}".replace('\\"', '"') in said["py.warnings"]["text"]
    assert said["asyncio"]["text"] == "lost task"
    assert "grpc._cython.cygrpc" not in said
    assert "ZeroDivisionError" in said["grpc"]["exception"]
    assert said[None]["text"] == "printed"
    (thread,) = (entry for entry in found if entry["event"] == "thread ended by an error")
    assert thread["thread"] == "core" and "ZeroDivisionError" in thread["exception"]
    assert any(entry["event"] == "error ignored" for entry in found)


def test_a_blocked_reader_loses_entries_and_learns_how_many() -> None:
    process = subprocess.Popen(
        program(
            """
for number in range(20_000):
    log.info('entry', number=number)
print('logged', flush=True)
sys.stdin.read()
"""
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == b"logged\n"
        # From now on there is a reader.
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    found = entries(error.decode())
    numbers = [entry["number"] for entry in found if entry["event"] == "entry"]
    assert numbers == sorted(numbers)
    dropped = sum(e["number"] for e in found if e["event"] == "log entries dropped")
    assert dropped > 0
    assert len(numbers) + dropped == 20_000
    assert process.returncode == 0


def test_shutdown_does_not_wait_for_a_blocked_reader() -> None:
    process = subprocess.Popen(
        program("for number in range(5_000):\n    log.info('entry', number=number)"),
        stderr=subprocess.PIPE,
    )
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_full_disk_changes_no_exit_code() -> None:
    with open("/dev/full", "w") as full:
        command = program("log.info('entry')\nos.write(2, b'x\\n')")
        done = subprocess.run(command, stderr=full, check=False, timeout=60)
    assert done.returncode == 0


def test_entries_lost_to_a_full_disk_are_reported_once_there_is_room(tmp_path: Path) -> None:
    command = program(
        """
import resource
from visavis_server.log import flush
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
for number in range(100):
    log.info('entry', number=number)
flush(30)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.info('room')
"""
    )
    with (tmp_path / "log").open("wb") as log:
        assert subprocess.run(command, stderr=log, check=False, timeout=60).returncode == 0
    room, told = entries((tmp_path / "log").read_text())
    assert room["event"] == "room"
    assert (told["event"], told["number"]) == ("log entries dropped", 100)


def test_closed_streams_are_reserved_so_that_no_file_gets_their_numbers(tmp_path: Path) -> None:
    *python, code = program(
        f"""
log.info('entry')
print('printed', file=sys.stderr)
opened = os.open(os.devnull, os.O_RDONLY)
with open({str(tmp_path / "seen")!r}, 'w') as seen:
    seen.write(str(opened))
"""
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *python, code]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    assert int((tmp_path / "seen").read_text()) > 2
