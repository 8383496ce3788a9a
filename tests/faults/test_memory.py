"""One budget of bytes for all calls: what does not fit is refused, and the server lives on."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from visavis.v1 import vision_pb2 as pb

from tests.server.pictures import encoded, noise

from .attacks import HungUp, RawConnection
from .calls import OK, channel, classify, ended, health, stub_of
from .memory_group import memory_group
from .process import ServerProcess, free_port

LARGEST = (32 << 20) - 100
# Where the server of today's main is killed by each of these tests.
LIMIT = 512 << 20
REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED
LimitedServer = Callable[..., ServerProcess]


@pytest.fixture
def serve_in(models: Path, tmp_path: Path) -> Iterator[LimitedServer]:
    """Return a function that starts a server in a cgroup with so many bytes of memory."""
    with ExitStack() as stack:

        def start(limit_bytes: int, *options: str, **environment: str) -> ServerProcess:
            try:
                group = stack.enter_context(memory_group(limit_bytes))
            except OSError as error:
                pytest.skip(f"no cgroup with a limit of memory can be made here: {error}")
            server = ServerProcess(models, tmp_path, *options, **environment)
            group.take(server.process.pid)
            return stack.enter_context(server)

        yield start


@contextmanager
def attacked(attack: Callable[[threading.Event], None], times: int) -> Iterator[None]:
    """Be under an attack, which is told when it is over."""
    over = threading.Event()
    with ThreadPoolExecutor(times) as threads:
        attacks: list[Future[None]] = [threads.submit(attack, over) for _ in range(times)]
        try:
            time.sleep(3)
            yield
        finally:
            over.set()
    for each in attacks:
        each.result()


async def neighbours_are_served(server: ServerProcess) -> None:
    """Assert that calls on connections of their own are answered, and health at once."""
    for _ in range(4):
        async with channel(server.address) as one:
            began = time.monotonic()
            assert await health(one) == 1
            assert time.monotonic() - began < 5.0
            outcome = await ended(stub_of(one).Classify(classify(), timeout=30))
            assert outcome.code is OK, outcome.error
            assert outcome.seconds < 6.0


@pytest.mark.parametrize(
    ("connections", "size"),
    [(1, LARGEST), (12, 4 << 20), (20, LARGEST)],
    ids=["one of 16 x 32 MiB", "12 of 16 x 4 MiB", "20 of 16 x 32 MiB"],
)
async def test_messages_that_stall_fit_the_memory_and_starve_nobody(
    serve_in: LimitedServer, connections: int, size: int
) -> None:
    server = serve_in(LIMIT)

    def attack(over: threading.Event) -> None:
        with suppress(HungUp), closing(RawConnection(server.port)) as attacker:
            while not over.is_set():
                while attacker.calls < 16 and not over.is_set():
                    attacker.stall(attacker.open_call(), size)
                attacker.events(0.2)

    with attacked(attack, connections):
        await neighbours_are_served(server)
    await neighbours_are_served(server)


async def test_bodies_that_stall_over_http_fit_the_memory_and_starve_nobody(
    serve_in: LimitedServer,
) -> None:
    port = free_port()
    server = serve_in(LIMIT, "--http", f"127.0.0.1:{port}")
    head = (
        "POST /visavis.v1.VisionService/Classify HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/proto\r\ncontent-length: {LARGEST}\r\n\r\n"
    )

    def attack(over: threading.Event) -> None:
        while not over.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as one:
                one.sendall(head.encode() + bytes(LARGEST - 1))
                one.settimeout(1)
                one.recv(1 << 16)

    with attacked(attack, 20):
        await neighbours_are_served(server)
    await neighbours_are_served(server)


async def test_calls_that_are_never_read_fit_the_memory_and_starve_nobody(
    serve_in: LimitedServer,
) -> None:
    """256 calls on each of 8 connections, of which gRPC itself keeps what comes unread."""
    server = serve_in(LIMIT)

    def attack(over: threading.Event) -> None:
        with suppress(HungUp), closing(RawConnection(server.port)) as attacker:
            while not over.is_set():
                while attacker.calls < 256 and not over.is_set():
                    attacker.stall(attacker.open_call(), LARGEST, patience=1)
                attacker.events(0.2)

    with attacked(attack, 8):
        await neighbours_are_served(server)
    await neighbours_are_served(server)


def _photograph() -> pb.Image:
    """Return a JPEG of about 2 MB."""
    return pb.Image(encoded=encoded(noise(1200, 1600, 3), "JPEG", quality=92))


def _frame() -> pb.Image:
    """Return a 4K frame as a camera gives it: 25 MB."""
    raw = pb.RawImage(format=pb.PIXEL_FORMAT_RGB, width=3840, height=2160, data=bytes(3840 * 6480))
    return pb.Image(raw=raw)


@pytest.mark.parametrize(
    ("image", "callers", "seconds"), [(_photograph, 64, 8.0), (_frame, 24, 12.0)]
)
async def test_more_honest_callers_than_memory_are_answered_or_refused(
    serve_in: LimitedServer, image: Callable[[], pb.Image], callers: int, seconds: float
) -> None:
    server = serve_in(LIMIT)
    request = pb.ClassifyRequest(image=image(), model="slow")
    end = time.monotonic() + seconds
    codes: Counter[grpc.StatusCode] = Counter()

    async def caller() -> None:
        async with channel(server.address) as one:
            while time.monotonic() < end:
                outcome = await ended(stub_of(one).Classify(request, timeout=30))
                codes[outcome.code] += 1
                if outcome.code is not OK:
                    await asyncio.sleep(min(outcome.retry_after_s or 1.0, 1.0))

    await asyncio.gather(*(caller() for _ in range(callers)))
    assert codes[OK] > 10
    assert set(codes) <= {OK, REFUSED}
    await neighbours_are_served(server)


async def test_messages_that_stall_on_a_unix_socket_block_nobody(
    models: Path, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/socket"
    server = ServerProcess(models, tmp_path, "--grpc", address)
    server.address = address
    with server:

        def attack(over: threading.Event) -> None:
            with suppress(HungUp), closing(RawConnection(f"{tmp_path}/socket")) as attacker:
                while not over.is_set():
                    while attacker.calls < 16 and not over.is_set():
                        attacker.stall(attacker.open_call(), LARGEST)
                    attacker.events(0.2)

        with attacked(attack, 2):
            await neighbours_are_served(server)
