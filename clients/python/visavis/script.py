"""The script `visavis`: it takes signals before it imports anything that takes time.

In a container it is process 1, for which the kernel discards signals that have no handler: a
server that is stopped in its first second would hear nothing of it.
"""

import os
import signal
import sys


def main() -> int:
    """Run the command and return its exit code."""
    if sys.argv[1:2] == ["serve"]:  # it takes them over when it can drain
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: os._exit(0))
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, frame: None)
    from visavis.commands import main as run

    return run()
