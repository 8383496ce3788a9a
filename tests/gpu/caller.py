"""Callers in a process of their own: `python -m tests.gpu.caller ADDRESS METHOD MODEL ...`.

Prints the number of answers and of errors in the window, as JSON.
"""

import asyncio
import json
import sys
from pathlib import Path

from visavis.bench.channels import Channels
from visavis.bench.load import OK, closed_loop
from visavis.bench.workload import calls_of

_CONNECTIONS = 4
_WARM_UP_S = 0.5


async def load(
    address: str, method: str, model: str, callers: int, seconds: float, files: list[Path]
) -> dict[str, int]:
    """Return how many calls were answered, and how many failed."""
    calls = calls_of(method, (model,), files)
    async with Channels(address, _CONNECTIONS, 60.0) as channels:
        window = await closed_loop(channels.send, [calls], callers, _WARM_UP_S, seconds)
    good = sum(outcome.code == OK for outcome in window.outcomes)
    return {"answered": good, "failed": len(window.outcomes) - good}


if __name__ == "__main__":
    address, method, model, callers, seconds, *files = sys.argv[1:]
    done = asyncio.run(
        load(address, method, model, int(callers), float(seconds), [Path(each) for each in files])
    )
    sys.stdout.write(json.dumps(done) + "\n")
