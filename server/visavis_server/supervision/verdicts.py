"""Trials of model files, once for all workers, and which worker loads a file first.

A file that passes its trial may still end the process that loads it: on a GPU, or by a fault that
shows only with more threads. One worker therefore loads each file first while the others wait. A
file that ends two workers is refused, and the rest live on.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from visavis_server.errors import CannotLoadNow, ModelFileError
from visavis_server.models.model_files import ModelFile, Stamp, stamp
from visavis_server.models.trial import Verdicts, try_one

_log = structlog.get_logger()

# A worker may also have been killed by chance while it loaded a file.
_MOST_DEATHS: Final = 2

Verdict = dict[str, str]
"""The identity of a file, or the kind of an error and the reason."""


@dataclass(slots=True)
class _Case:
    """A file with a certain stamp. loading: the worker that loads it first, while it does."""

    stamp: Stamp
    trial: asyncio.Future[Verdict]
    loading: int | None = None
    loaded: bool = False
    deaths: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def change(self) -> None:
        """Wake those that wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class SharedVerdicts:
    """Gives each worker the verdict on a file.

    first: the trial of the files at the start. replaced: called with the identity of a file when
    another has been loaded in its place.
    """

    def __init__(
        self, first: Verdicts, load_timeout_s: float, replaced: Callable[[str], None]
    ) -> None:
        self._first: Verdicts | None = first
        self._load_timeout_s = load_timeout_s
        self._replaced = replaced
        self._cases: dict[ModelFile, _Case] = {}
        self._loaded: dict[ModelFile, str] = {}
        self._one_at_a_time = asyncio.Lock()

    async def verdict(self, worker: int, file: ModelFile) -> Verdict:
        """Return the verdict on a file as it is now, once this worker may load it."""
        case = await self._case(file)
        verdict = await asyncio.shield(case.trial)
        if "identity" not in verdict:
            if verdict["kind"] == CannotLoadNow.__name__:  # the next worker may have more luck
                self._drop(file, case)
            return verdict
        while case.loading is not None:
            await case.changed.wait()
        if case.deaths >= _MOST_DEATHS:
            why = f"{file.path}: {case.deaths} workers ended while they loaded it"
            return {"kind": ModelFileError.__name__, "why": why}
        if not case.loaded:
            case.loading = worker
        return verdict

    def load_ended(self, worker: int, file: ModelFile) -> None:
        """Let the others load a file: this worker has survived it."""
        case = self._cases.get(file)
        if case is not None and case.loading == worker:
            case.loading, case.loaded = None, True
            case.change()
            identity = case.trial.result()["identity"]
            if (before := self._loaded.get(file)) not in (None, identity):
                self._replaced(str(before))
            self._loaded[file] = identity

    def ended(self, worker: int) -> None:
        """Count the end of a worker against the file that it was loading first, if any."""
        for file, case in self._cases.items():
            if case.loading == worker:
                case.loading = None
                case.deaths += 1
                _log.error("a worker ended while it loaded a model", model=str(file), worker=worker)
                case.change()

    def start_ended(self) -> None:
        """Try every file anew from now on, unless its stamp is the same."""
        self._first = None

    async def _case(self, file: ModelFile) -> _Case:
        async with self._one_at_a_time:
            now = await asyncio.to_thread(stamp, file.path)
            case = self._cases.get(file)
            if case is None or case.stamp != now:
                trial = asyncio.ensure_future(self._try(file, self._first))
                case = self._cases[file] = _Case(now, trial)
            return case

    def _drop(self, file: ModelFile, case: _Case) -> None:
        if self._cases.get(file) is case:
            del self._cases[file]

    async def _try(self, file: ModelFile, first: Verdicts | None) -> Verdict:
        """Return what the trial of a file finds."""
        try:
            if first is not None:
                return {"identity": await asyncio.wrap_future(first.verdict(file))}
            trial = await asyncio.to_thread(try_one, file, self._load_timeout_s)
            try:
                return {"identity": await asyncio.wrap_future(trial.verdict(file))}
            finally:
                trial.stop()
        except ModelFileError as error:
            kind = CannotLoadNow if isinstance(error, CannotLoadNow) else ModelFileError
            return {"kind": kind.__name__, "why": str(error)}
