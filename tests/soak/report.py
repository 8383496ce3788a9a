"""The input of a trial, and the rows that it returns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from visavis.bench.channels import Channels
from visavis.bench.load import Outcome, closed_loop
from visavis.bench.workload import Call

from tests.benchmark.site import Site
from tests.faults.conftest import slow
from tests.faults.process import ServerProcess
from tests.server import graphs

REFUSED = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True)
class Row:
    """One line of the report; holds: True if the promise was kept."""

    what: str
    promised: str
    seen: str
    holds: bool


@dataclass(frozen=True)
class Soak:
    """The site and length of a trial; 1 is the whole length, less is for a first try."""

    site: Site
    length: float
    folder: Path

    @cached_property
    def slow(self) -> Path:
        """A repository with a model that takes SLOW_S."""
        folder = self.folder / "slow"
        graphs.put(folder, "slow", 1, slow())
        return folder

    @contextmanager
    def server(self, models: Path, *options: str) -> Iterator[ServerProcess]:
        """Serve a repository."""
        with ServerProcess(models, self.folder, *options) as server:
            yield server


Trial = Callable[[Soak], Sequence[Row]]


def counted(counts: Mapping[str, int]) -> str:
    """Return counts in words, largest first: `32,407 refused, 17,593 decoded`."""
    largest = sorted(counts.items(), key=lambda each: -each[1])
    return ", ".join(f"{count:,} {name}" for name, count in largest) or "none"


def percent(share: float, digits: int = 0) -> str:
    """Return a share as `91 %`."""
    return f"{100 * share:.{digits}f} %"


async def peak_per_s(server: ServerProcess, calls: Sequence[Call], seconds: float) -> float:
    """Return the most answers per second that a server gives."""
    async with Channels(server.address, 8, 60.0) as channels:
        window = await closed_loop(channels.send, [calls], 8, 3.0, max(5.0, seconds))
    return len(window.outcomes) / (window.closed - window.opened)


def took_s(outcome: Outcome) -> float:
    return outcome.done - outcome.sent
