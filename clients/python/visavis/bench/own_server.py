"""A server that runs for the duration of a benchmark."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visavis.client import Client
from visavis.errors import ServerFailed, VisavisError

_READY_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class OwnServer:
    """The address and process ID of a server started for a benchmark."""

    address: str
    pid: int


@contextlib.contextmanager
def own_server(
    models: Path,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Iterator[OwnServer]:
    """Serve a repository on a free local port; yields once all models are loaded.

    options: further options of `visavis serve`. environment: variables in addition to those of
    this process. python: the interpreter of the environment with the application. Raises
    ServerFailed, with the end of the server's log, if the server does not become ready.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [python, "-P", "-m", "visavis", "serve", "--models", str(models)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--grpc", address, *options],
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
        )
        try:
            try:
                _wait_until_ready(address, process)
            except VisavisError as error:
                log.seek(0)
                end = log.read().decode(errors="replace").strip()[-2000:]
                raise ServerFailed(f"the server did not become ready: {error}\n{end}") from None
            yield OwnServer(address, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    with Client(address) as client:
        for _ in range(int(_READY_TIMEOUT_S)):
            try:
                return client.wait_until_ready(1.0)
            except VisavisError as error:
                failure = error
            if process.poll() is not None:
                raise ServerFailed(f"it exited with code {process.returncode}")
        raise failure
