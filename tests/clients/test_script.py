"""The script `visavis` before it imports the command."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.surroundings import Surroundings

# The command itself is replaced by one that says which signals would end the process by default.
_SIGNALS = """
import signal, sys, types
stand_in = types.ModuleType("visavis.commands")
named = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests were started by
ends = lambda name: signal.getsignal(getattr(signal, name)) == signal.SIG_DFL
stand_in.main = lambda: print(*filter(ends, named))
sys.modules["visavis.commands"] = stand_in
from visavis.script import main
sys.argv = ["visavis", *sys.argv[1:]]
main()
"""


@pytest.mark.usefixtures("minimal_surroundings")
@pytest.mark.parametrize(
    ("command", "fatal"), [("serve", []), ("detect", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])]
)
def test_only_a_server_handles_signals_before_its_imports(command: str, fatal: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SIGNALS, command], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == fatal


# The same, as a file that can be started again.
_SCRIPT = """#!{python}
import json, os, pathlib, signal, sys, types
from visavis import script
script._LARGE_PAGES = pathlib.Path({large_pages!r})
if {is_secure}:  # as glibc does for a program with more rights than its user
    os.environ.pop("GLIBC_TUNABLES", None)
stand_in = types.ModuleType("visavis.commands")
def command():
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    print(json.dumps([os.environ.get("GLIBC_TUNABLES"), len(blocked), sys.argv[1:], os.getpid()]))
stand_in.main = command
sys.modules["visavis.commands"] = stand_in
script.main()
"""
_ASKS = "glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    ("system", "command", "already", "then"),
    [
        ("always [madvise] never", "serve", {}, _ASKS),
        ("[always] madvise never", "serve", {}, None),
        ("always madvise [never]", "serve", {}, None),
        (None, "serve", {}, None),
        ("always [madvise] never", "detect", {}, None),
        ("always [madvise] never", "serve", {"GLIBC_TUNABLES": "other"}, "other"),
    ],
)
def test_a_server_requests_large_pages_if_the_system_grants_them_on_request(
    tmp_path: Path, system: str | None, command: str, already: dict[str, str], then: str | None
) -> None:
    if system is not None:
        (tmp_path / "enabled").write_text(system)
    assert said_by(tmp_path, command, already, is_secure=False) == [then, 0]


def test_a_server_restarts_once_even_if_its_variable_is_removed(tmp_path: Path) -> None:
    (tmp_path / "enabled").write_text("always [madvise] never")
    assert said_by(tmp_path, "serve", {}, is_secure=True) == [None, 0]


def said_by(folder: Path, command: str, already: dict[str, str], *, is_secure: bool) -> list[Any]:
    """Return the variable of a script that was started, and how many signals it blocks."""
    script, large_pages = folder / "visavis", str(folder / "enabled")
    script.write_text(
        _SCRIPT.format(python=sys.executable, large_pages=large_pages, is_secure=is_secure)
    )
    script.chmod(0o755)
    found = Surroundings.under(folder)
    with subprocess.Popen(
        [str(script), command, "--option"],
        cwd=found.elsewhere,
        env=found.environment(already),
        stdout=subprocess.PIPE,
    ) as started:
        try:
            output, _ = started.communicate(timeout=20)
        finally:
            started.kill()
    variable, blocked, arguments, pid = json.loads(output)
    assert (arguments, pid) == ([command, "--option"], started.pid)
    return [variable, blocked]
