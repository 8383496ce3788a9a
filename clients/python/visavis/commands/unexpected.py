"""Reports errors that no command handles: failures of the system, and bugs of visavis."""

import errno
import os
import traceback
from pathlib import Path

from visavis.commands.console import complain, stderr

TRACEBACK = "VISAVIS_TRACEBACK"
"""The environment variable that turns on tracebacks: any value except empty and 0."""

FAULT = 70
"""The exit code of a bug in visavis: EX_SOFTWARE of sysexits.h."""

_ADVICE = {
    errno.ENOSPC: "free some space, or set TMPDIR to a folder on another disk",
    errno.EDQUOT: "free some space, or set TMPDIR to a folder on another disk",
    errno.EACCES: "give this user access, or choose another path",
    errno.EPERM: "give this user access, or choose another path",
    errno.EROFS: "choose a writable path",
    errno.EMFILE: "raise the limit on open files, `ulimit -n`",
    errno.ENFILE: "raise the system's limit on open files",
    errno.ENAMETOOLONG: "choose a shorter path",
}
_MOST_CHARACTERS = 300


def report(error: Exception) -> int:
    """Print an error to stderr and return the exit code.

    Failures of the system (a full disk, missing permissions, no memory) are ordinary errors. All
    others are bugs of visavis: the message names the place and asks for a report.
    """
    with_traceback = os.environ.get(TRACEBACK, "0") not in ("", "0")
    if with_traceback:
        stderr().print("".join(traceback.format_exception(error)), soft_wrap=True)
    if (text := _system_failure(error)) is not None:
        complain(text)
        return 1
    hint = "" if with_traceback else f"; set {TRACEBACK}=1 for the traceback"
    complain(
        f"internal error: {_brief(error)}, in {_place(error)}. Please report it with the command "
        f"and the output of `visavis doctor`{hint}"
    )
    return FAULT


def _system_failure(error: Exception) -> str | None:
    """Return the message for a failure of the system; None for other errors."""
    if isinstance(error, MemoryError):
        return "out of memory; free some, or give the process more"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    # The message of `tempfile` names the folders that it tried.
    if error.errno == errno.ENOENT and "temporary directory" in str(error.strerror):
        return f"{error.strerror}; set TMPDIR to a writable folder"
    paths = [
        os.fsdecode(p) for p in (error.filename, error.filename2) if isinstance(p, str | bytes)
    ]
    subject = " and ".join(paths)
    text = f"{subject}: {error.strerror}" if subject else str(error.strerror)
    advice = _ADVICE.get(error.errno)
    return f"{text}; {advice}" if advice else text


def _brief(error: Exception) -> str:
    """Return an error's type and the first line of its message."""
    first = next(iter(str(error).splitlines()), "")
    if len(first) > _MOST_CHARACTERS:
        first = f"{first[:_MOST_CHARACTERS]}…"
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    last = frames[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"
