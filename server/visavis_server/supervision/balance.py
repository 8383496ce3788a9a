"""How new connections are spread over the workers, so that each has as many as the others.

The kernel numbers the listening processes by itself. Which number is which worker's is found out:
a connection that is steered to a number is looked for among the open files of the workers.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from visavis_server.supervision.membership import BEAT_S

_log = structlog.get_logger()

# The sum of the weights must fit in 32 bits.
_MOST_ROOM: Final = 1000
_CONNECT_S: Final = 1.0
_LOOKS, _LOOK_S = 50, 0.01
# A busy worker may accept a connection only after the search for it has ended.
_ATTEMPTS: Final = 5
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))

Steer = Callable[[Sequence[int]], Awaitable[bool]]
"""Spreads new connections by the weights of the kernel's numbers; False: it can't be done."""


async def balance(
    address: str,
    serving: Callable[[], Mapping[int, int]],
    busy: Callable[[], Mapping[int, int]],
    steer: Steer,
) -> None:
    """Steer new connections to the workers that have the fewest, for ever.

    address: HOST:PORT. serving: returns the process of each worker; empty until all serve, and
    until then the kernel spreads connections. busy: returns the connections with calls, by worker,
    without workers that hang.
    """
    order: list[int] = []
    steered: list[int] = []
    known: Mapping[int, int] = {}
    attempts = 0
    while True:
        await asyncio.sleep(BEAT_S)
        if not (pids := serving()):
            continue
        if pids != known:
            order, known, attempts = [], pids, _ATTEMPTS
        if not order and attempts:
            order, steered, attempts = await numbered(address, pids, steer), [], attempts - 1
            if not order and serving() == pids:
                await steer([])
                if not attempts:
                    _log.warning(
                        "connections are spread at random", why="they can't be steered here"
                    )
        if order and (wanted := weights(busy(), order)) != steered:
            steered = wanted if await steer(wanted) else []


def weights(busy: Mapping[int, int], order: Sequence[int]) -> list[int]:
    """Return the weights of new connections, by the kernel's numbers.

    busy: the connections with calls, by worker. order: the worker of each number. The emptier a
    worker, the more it gets; one that is not in busy gets none, unless no other can take them.
    """
    if not busy:
        return [1] * len(order)
    most = max(busy.values())
    # Squared, so that most go to the emptiest. Few go to the fullest: many may come at once.
    return [
        min(most - busy[worker] + 1, _MOST_ROOM) ** 2 if worker in busy else 0 for worker in order
    ]


async def numbered(address: str, pids: Mapping[int, int], steer: Steer) -> list[int]:
    """Return which worker has each of the kernel's numbers; empty if that can't be found out.

    address: HOST:PORT. pids: the process of each worker.
    """
    order: list[int | None] = []
    for number in range(len(pids)):
        if not await steer([int(each == number) for each in range(len(pids))]):
            return []
        order.append(await asyncio.to_thread(_owner, address, pids))
    missing = list(pids.keys() - set(order))
    if len(order) > 1 and order.count(None) == len(missing) == 1:
        # One worker hangs and accepts nothing: the remaining number is that of this worker.
        order[order.index(None)] = missing[0]
    found = [worker for worker in order if worker is not None]
    return found if sorted(found) == sorted(pids) else []


def _owner(address: str, pids: Mapping[int, int]) -> int | None:
    """Connect, and return the worker that has accepted the connection; None: unknown."""
    host, _, port = address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    with suppress(OSError), socket.create_connection((host, int(port)), _CONNECT_S) as connection:
        return _accepted_by(connection.getsockname()[1], int(port), pids)
    return None


def _accepted_by(
    peer_port: int, port: int, pids: Mapping[int, int], tables: Sequence[Path] = _TABLES
) -> int | None:
    for _ in range(_LOOKS):
        if inode := _inode(peer_port, port, tables):
            for worker, pid in pids.items():
                if _has_open(pid, f"socket:[{inode}]"):
                    return worker
        time.sleep(_LOOK_S)
    return None


def _inode(peer_port: int, port: int, tables: Sequence[Path]) -> str:
    """Return the inode of the server's end of a connection; "" if it is not there yet."""
    ends = f":{port:04X}", f":{peer_port:04X}"
    for table in tables:
        with suppress(OSError):
            for line in table.read_text("ascii").splitlines()[1:]:
                fields = line.split()
                # Local address, remote address, and the inode, 0 until it has been accepted.
                if fields[1].endswith(ends[0]) and fields[2].endswith(ends[1]) and fields[9] != "0":
                    return fields[9]
    return ""


def _has_open(pid: int, what: str) -> bool:
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except OSError:
        return False
    for name in names:
        with suppress(OSError):  # closed meanwhile
            if os.readlink(f"/proc/{pid}/fd/{name}") == what:  # noqa: PTH115
                return True
    return False
