"""Every command reports an unexpected error in one sentence."""

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from visavis.commands import EXIT_CODES, application, main

Captured = pytest.CaptureFixture[str]
Ended = tuple[int, str]


@pytest.fixture
def ended_by(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> Callable[[Exception], Ended]:
    """Return a function that runs a failing command and returns its exit code and stderr."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("VISAVIS_TRACEBACK", raising=False)

    def ended_by(error: Exception) -> Ended:
        def fail(args: list[str], prog: str) -> int:
            raise error

        module = SimpleNamespace(main=fail)
        monkeypatch.setattr(application, "application_installed", lambda: True)
        importlib = SimpleNamespace(import_module=lambda name: module)
        monkeypatch.setattr(application, "importlib", importlib)
        code = main(["export", "resnet50"])
        return code, capsys.readouterr().err

    return ended_by


def test_a_fault_is_one_line_that_asks_for_a_report(
    ended_by: Callable[[Exception], Ended],
) -> None:
    code, text = ended_by(ValueError("300 lines\n" * 300))
    assert code == 70
    assert "please report it" in EXIT_CODES[code]
    assert text.count("\n") == 1
    assert "internal error: ValueError: 300 lines, in test_unexpected.py, line" in text
    assert "Please report it" in text
    assert "VISAVIS_TRACEBACK=1" in text
    assert "Traceback" not in text


def test_the_traceback_is_printed_on_request(
    ended_by: Callable[[Exception], Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVIS_TRACEBACK", "1")
    code, text = ended_by(ValueError("odd"))
    assert code == 70
    assert "Traceback (most recent call last)" in text
    assert "ValueError: odd" in text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free some space, or set TMPDIR"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "/root/x: Permission"),
        (OSError(errno.EMFILE, "Too many open files", "a"), "raise the limit on open files"),
        (OSError(errno.EIO, "Input/output error", b"raw"), "visavis: raw: Input/output error\n"),
        (MemoryError(), "out of memory"),
    ],
    ids=repr,
)
def test_failures_of_the_system_are_not_reported_as_bugs(
    error: Exception, expected: str, ended_by: Callable[[Exception], Ended]
) -> None:
    code, text = ended_by(error)
    assert code == 1
    assert expected in text
    assert "report" not in text
    assert text.count("\n") == 1


def test_a_missing_temporary_folder_is_reported_with_the_variable_that_sets_it(
    ended_by: Callable[[Exception], Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError) as raised:
        tempfile.gettempdir()
    code, text = ended_by(raised.value)
    assert code == 1
    assert f"{tmp_path}/none" in text.replace("\n", "")
    assert "set TMPDIR to a writable folder" in text


def test_a_library_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def fail(name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(application, "application_installed", lambda: True)
    monkeypatch.setattr(application, "importlib", SimpleNamespace(import_module=fail))
    assert main(["serve"]) == 2
    assert "can't load a library: libGL.so.1" in capsys.readouterr().err
