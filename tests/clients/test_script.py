"""The script `visavis` before it imports the command."""

import subprocess
import sys

import pytest

# The command itself is replaced by one that says which signals would end the process by default.
_SIGNALS = """
import signal, sys, types
stand_in = types.ModuleType("visavis.commands")
named = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
ends = lambda name: signal.getsignal(getattr(signal, name)) == signal.SIG_DFL
stand_in.main = lambda: print(*filter(ends, named))
sys.modules["visavis.commands"] = stand_in
from visavis.script import main
sys.argv = ["visavis", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(
    ("command", "fatal"), [("serve", []), ("detect", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])]
)
def test_only_a_server_takes_signals_before_its_imports(command: str, fatal: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SIGNALS, command], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == fatal
