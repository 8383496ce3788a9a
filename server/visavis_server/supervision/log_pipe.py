"""Carries a worker's log to the supervisor, which writes the log of all."""

import asyncio
import os
from typing import Final

import structlog

from visavis_server import log
from visavis_server.plain_text import escaped

_log = structlog.get_logger()

_CHUNK_BYTES: Final = 1 << 18
# A longer line is no entry of ours.
_MOST_LINE_BYTES: Final = 1 << 20


class LogPipe:
    """Relays whole lines. is_json: every line of the log must be JSON.

    writing: the worker's end; close it once the worker has it.
    """

    def __init__(self, worker: int, *, is_json: bool) -> None:
        self._worker, self._is_json = worker, is_json
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reading, self.read)

    def read(self) -> None:
        """Relay what has arrived; closes itself at the end."""
        while self._reading >= 0:
            try:
                chunk = os.read(self._reading, _CHUNK_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                self.close()
                return
            self._take(chunk)

    def close(self) -> None:
        """Relay no more."""
        if self._reading < 0:
            return
        self._loop.remove_reader(self._reading)
        os.close(self._reading)
        self._reading = -1
        if self._rest:  # the worker ended in the middle of a line
            self._write(self._rest)

    def _take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _MOST_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        if self._is_json:
            for line in lines:
                self._write(line)
        elif lines:
            # At once, so that no other worker's lines come between those of a traceback.
            log.relay(b"\n".join((*lines, b"")).decode("utf-8", "backslashreplace"))

    def _write(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        if not self._is_json or (line.startswith(b"{") and line.endswith(b"}")):
            log.relay(f"{text}\n")
        elif text.strip():
            _log.warning("library wrote", text=escaped(text), worker=self._worker)
