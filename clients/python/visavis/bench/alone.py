"""The cost of a model on a server that runs nothing else."""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from visavis.bench.measurement import Round
from visavis.bench.own_server import own_server
from visavis.bench.process import Watched
from visavis.bench.rounds import Benchmark, Load, Plan
from visavis.bench.workload import calls_of
from visavis.cards import Model, Task
from visavis.errors import InvalidSettings

MOST_PICTURES: Final = 64
"""Pictures that are sent again and again: they are held in memory."""
_CALLERS: Final = 8
_WARM_UP_S: Final = 1.0


def measured_alone(
    repository: Path, model: Model, pictures: Sequence[Path], seconds: float
) -> Round:
    """Return a model's throughput, CPU time and memory on a server of its own.

    repository: a folder of models with this one. pictures: at most MOST_PICTURES are sent. Raises
    ServerFailed, and InvalidSettings without psutil.
    """
    method = "detect" if Task.DETECTION in model.tasks else "classify"
    calls = calls_of(method, (model.name,), pictures[:MOST_PICTURES])
    with _only(repository, model.name) as folder, own_server(folder) as server:
        plan = Plan(
            server.address,
            [calls],
            [Load(callers=_CALLERS)],
            seconds=seconds,
            warm_up_s=_WARM_UP_S,
            rounds=1,
        )
        (row,) = asyncio.run(Benchmark(plan, Watched(server.pid)).run())
    return row.median


@contextmanager
def _only(repository: Path, name: str) -> Iterator[Path]:
    """Yield a repository with one of a repository's models: its folder, or its files."""
    with tempfile.TemporaryDirectory() as folder:
        own = [one for one in repository.iterdir() if name in (one.name, one.stem)]
        if not own:
            raise InvalidSettings(f"{repository} has no model {name!r}")
        for one in own:
            Path(folder, one.name).symlink_to(one.resolve(), target_is_directory=one.is_dir())
        yield Path(folder)
