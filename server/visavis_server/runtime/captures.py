"""Turns between runs on a device and captures of CUDA graphs.

While one thread captures, CUDA refuses all other threads what most runs need, such as memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Final


class Captures:
    """Any number of runs at once, or one capture alone. A waiting capture goes first."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._runs = 0
        self._capturing = False

    @contextmanager
    def run(self) -> Iterator[None]:
        """Wait for a capture to end, and keep others from beginning. Don't nest."""
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing)
            self._runs += 1
        try:
            yield
        finally:
            with self._changed:
                self._runs -= 1
                self._changed.notify_all()

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Wait until nothing runs, and keep everything else from beginning."""
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing)
            self._capturing = True
            self._changed.wait_for(lambda: not self._runs)
        try:
            yield
        finally:
            with self._changed:
                self._capturing = False
                self._changed.notify_all()


CAPTURES: Final = Captures()
"""Of this process: its sessions with CUDA graphs take turns."""
