"""What no command expects: the machine's refusals, and our own faults, each in one sentence."""

import errno
import os
import traceback
from pathlib import Path

from visavis.commands.console import complain, stderr

TRACEBACK = "VISAVIS_TRACEBACK"
"""The variable that asks for the traceback: any value but nothing and 0."""

FAULT = 70
"""The exit code of a fault of our own; sysexits.h calls it EX_SOFTWARE."""

_ADVICE = {
    errno.ENOSPC: "free some space, or set TMPDIR to a folder on another disk",
    errno.EDQUOT: "free some space, or set TMPDIR to a folder on another disk",
    errno.EACCES: "give this user access, or name another path",
    errno.EPERM: "give this user access, or name another path",
    errno.EROFS: "name a path that can be written to",
    errno.EMFILE: "raise the limit on open files, `ulimit -n`",
    errno.ENFILE: "raise the system's limit on open files",
    errno.ENAMETOOLONG: "name a shorter path",
}
_MOST_CHARACTERS = 300


def tell(error: Exception) -> int:
    """Print what went wrong to stderr; returns the exit code.

    The machine's refusals (a full disk, a folder without access, no memory) are errors like any
    other. The rest are faults of ours: the text asks to report them and says where they happened.
    """
    wanted = os.environ.get(TRACEBACK, "0") not in ("", "0")
    if wanted:
        stderr().print("".join(traceback.format_exception(error)), soft_wrap=True)
    if (text := _machine(error)) is not None:
        complain(text)
        return 1
    more = "" if wanted else f"; {TRACEBACK}=1 in the environment prints the traceback"
    complain(
        f"a fault of visavis itself: {_brief(error)}, in {_place(error)}. Please report it with "
        f"the command and what `visavis doctor` prints{more}"
    )
    return FAULT


def _machine(error: Exception) -> str | None:
    """Return the machine's refusal in words; None for other errors."""
    if isinstance(error, MemoryError):
        return "there is no memory left; free some, or give the process more"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    # `tempfile` words its own errors: they name the folders that it tried.
    if error.errno == errno.ENOENT and "temporary directory" in str(error.strerror):
        return f"{error.strerror}; set TMPDIR to a folder that can be written to"
    paths = [
        os.fsdecode(p) for p in (error.filename, error.filename2) if isinstance(p, str | bytes)
    ]
    subject = " and ".join(paths)
    text = f"{subject}: {error.strerror}" if subject else str(error.strerror)
    advice = _ADVICE.get(error.errno)
    return f"{text}; {advice}" if advice else text


def _brief(error: Exception) -> str:
    """Return an error's kind and the first line of its text."""
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
