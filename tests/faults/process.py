"""A server as people run it: a process of its own, on 127.0.0.1, and what can be seen of it."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.surroundings import VISAVIS, Surroundings

SERVING = health_pb2.HealthCheckResponse.SERVING
# For anything that takes a moment: only a fault takes so long.
PATIENCE_S = 60.0


class ServerProcess:
    """`visavis serve` with some settings, in surroundings of its own; its log is in `log`.

    environment: variables besides PATH and HOME.
    """

    command: Sequence[str] = (VISAVIS, "serve")

    def __init__(self, models: Path, folder: Path, *options: str, **environment: str) -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log_file = folder / f"server-{self.port}.log"
        self.surroundings = Surroundings.under(folder / f"server-{self.port}")
        command = [*self.command, "--models", str(models), "--grpc", self.address]
        self._command = [*command, "--device", "cpu", "--log-format", "json", *options]
        self._environment = self.surroundings.environment(environment)
        self.start()

    def start(self) -> None:
        """Start it; after its end once more, at the same address."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.surroundings.elsewhere,
                env=self._environment,
            )
        self.seen = psutil.Process(self.process.pid)

    def __enter__(self) -> Self:
        self.wait_until_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text("utf-8", errors="replace")

    def wait_until_ready(self) -> None:
        """Wait until it says SERVING."""
        with grpc.insecure_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            def serving() -> bool:
                assert self.process.poll() is None, self.log
                try:
                    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
                except grpc.RpcError:
                    return False
                return bool(answer.status == SERVING)

            until(serving, f"the server is not ready: {self.log[-2000:]}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Return its exit code, once it has ended."""
        return self.process.wait(PATIENCE_S)

    @property
    def rss_mib(self) -> float:
        """Its memory that is in RAM."""
        return float(self.seen.memory_info().rss) / (1 << 20)

    @property
    def descriptors(self) -> int:
        """How many files, sockets and the like it has open."""
        return int(self.seen.num_fds())

    @property
    def threads(self) -> int:
        """How many threads it has."""
        return int(self.seen.num_threads())


@contextmanager
def started(
    models: Path, folder: Path, stderr: int | IO[bytes], *options: str, redirection: str = ""
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Start a server with a standard error of one's own; gives the process and its port.

    redirection: more of what a shell does with it: `2>&-`.
    """
    found, port = Surroundings.under(folder), free_port()
    serve = [VISAVIS, "serve", "--models", str(models), "--device", "cpu", *options]
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *serve, "--grpc", f"127.0.0.1:{port}"],
        cwd=found.elsewhere,
        env=found.environment(),
        stderr=stderr,
    )
    try:
        yield process, port
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def until(true: Callable[[], bool], otherwise: str) -> None:
    """Wait until something is true."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)
