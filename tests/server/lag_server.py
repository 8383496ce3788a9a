"""A server that watches its own event loop: `python lag_server.py MODELS [HTTP ADDRESS]`.

It writes where it listens, and for each line on stdin how long the loop stood still at most since
the last one: seconds of wall time, and of the loop's own thread.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

from visavis_server.app import App
from visavis_server.settings import Settings

_TICK_S = 0.001


class _Lag:
    """The longest that the loop has stood still."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    async def watch(self) -> None:
        while True:
            wall, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(_TICK_S)
            self.wall_s = max(self.wall_s, time.perf_counter() - wall - _TICK_S)
            self.cpu_s = max(self.cpu_s, time.thread_time() - cpu)


async def _serve(models: Path) -> None:
    app = App(
        Settings(
            models=models,
            grpc="127.0.0.1:0",
            http="127.0.0.1:0",
            device="cpu",
            cores=2,
            low_memory=True,  # one image in a run: the tests' graphs know no more
            admin=True,
            reflection=True,
            max_message_bytes=32 << 20,
        )
    )
    await app.start()
    lag = _Lag()
    watching = asyncio.create_task(lag.watch())
    _say({"grpc": app.address, "http": app.http_address})
    while await asyncio.to_thread(sys.stdin.readline):
        _say({"wall_s": lag.wall_s, "cpu_s": lag.cpu_s})
        lag.wall_s = lag.cpu_s = 0.0
    watching.cancel()
    await app.stop()


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
