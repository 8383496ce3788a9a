"""Files that are tried in a process of their own: what becomes of it, and of the other files."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from visavis_server.errors import CannotLoadNow, ModelFileError
from visavis_server.models import trial as module
from visavis_server.models.model_files import ModelFile
from visavis_server.models.trial import Trial
from visavis_server.models.verified_file import VerifiedFile

from .. import graphs

# Scripts that stand for a process that loads a file, by what becomes of it.
CRASH = "import os; print({}, flush=True); os.abort()"
KILLED = "import os, signal; print({}, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
CHATTY = "import sys\nprint({}, flush=True)\nwhile True: sys.stdout.write('x' * 4096)"
SILENT = "import time; print({}, flush=True); time.sleep(600)"
NONSENSE = "print({}, flush=True); print([1])"
NOTHING = "raise SystemExit(3)"


@pytest.fixture
def trial() -> Iterator[Trial]:
    trial = Trial()
    yield trial
    trial.stop()


def put(folder: Path, name: str, contents: bytes) -> ModelFile:
    return ModelFile(name, 1, graphs.put(folder, name, 1, contents))


def good(folder: Path, name: str = "colors") -> ModelFile:
    return put(folder, name, graphs.export(graphs.classifier(), graphs.classifier_document())[0])


def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Let the trial run a script in the place of its own module, as the interpreter's -m."""
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} -c '''{script}'''\n".replace("'''", '"'))
    fake.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(fake))


async def test_a_verdict_is_the_identity_of_the_file(trial: Trial, tmp_path: Path) -> None:
    file = good(tmp_path)
    trial.begin([file], 60)
    assert await asyncio.wrap_future(trial.verdict(file)) == VerifiedFile(file.path).identity


async def test_a_file_that_hangs_is_named_and_the_rest_is_tried(
    trial: Trial, tmp_path: Path
) -> None:
    files = [
        put(tmp_path, "bad", b"no model"),
        put(tmp_path, "endless", graphs.loop_without_end()),
        good(tmp_path),
    ]
    trial.begin(files, 3)
    with pytest.raises(ModelFileError, match=f"{files[0].path}: not an ONNX model"):
        await asyncio.wrap_future(trial.verdict(files[0]))
    with pytest.raises(CannotLoadNow, match=f"{files[1].path}: .* within 3 s"):
        await asyncio.wrap_future(trial.verdict(files[1]))
    identity = VerifiedFile(files[2].path).identity
    assert await asyncio.wrap_future(trial.verdict(files[2])) == identity


@pytest.mark.parametrize(
    ("script", "why", "may_pass"),
    [
        (CRASH, "the process that loaded it ended by signal 6", False),
        (KILLED, "the process that loaded it ended by signal 9", True),
        (CHATTY, "the trial process wrote too much", False),
        (NONSENSE, "the trial process wrote an invalid verdict", False),
        (SILENT, "it did not load and warm up within 1 s", True),
        (NOTHING, "the trial process ended with exit code 3 before it started", True),
    ],
)
async def test_a_process_that_ends_or_must_be_killed_fails_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str, may_pass: bool
) -> None:
    pretend(monkeypatch, tmp_path, script)
    file = good(tmp_path)
    trial = Trial()
    trial.begin([file], 1)
    with pytest.raises(ModelFileError) as refused:
        await asyncio.wrap_future(trial.verdict(file))
    assert str(refused.value) == f"{file.path}: {why}"
    assert isinstance(refused.value, CannotLoadNow) == may_pass
    trial.stop()


async def test_stopping_kills_the_process(trial: Trial, tmp_path: Path) -> None:
    (process,) = (p for p in psutil.Process().children() if "trial" in " ".join(p.cmdline()))
    file = put(tmp_path, "endless", graphs.loop_without_end())
    trial.begin([file], 600)
    waiting = asyncio.wrap_future(trial.verdict(file))
    await asyncio.sleep(0)
    trial.stop()
    await asyncio.to_thread(process.wait, 10)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_file_that_came_later_has_no_verdict(trial: Trial, tmp_path: Path) -> None:
    trial.begin([], 60)
    with pytest.raises(CannotLoadNow, match="the file was added while the server was starting"):
        await asyncio.wrap_future(trial.verdict(good(tmp_path)))
