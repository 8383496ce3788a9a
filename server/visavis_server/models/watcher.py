"""Watches the model folder: loads new and changed files beside the old ones, then serves them."""

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path

import structlog

from visavis_server.errors import (
    CannotLoad,
    CannotLoadNow,
    ModelFileError,
    ModelNotFound,
    StartupError,
)
from visavis_server.models.loader import Loader
from visavis_server.models.model_files import Look, ModelFile, Stamp, look_at, stamp
from visavis_server.models.repository import Repository
from visavis_server.models.served_model import ServedModel
from visavis_server.models.trial import Verdicts, try_one
from visavis_server.runtime import memory

_log = structlog.get_logger()

# Between two looks at the folder; a file that changes in this time is still being written.
_SETTLES_S = 1.0
# A file that failed for a transient cause is retried after the first time, then after twice as
# long, and so on up to the second.
_RETRY_S, _MAX_RETRY_S = 30.0, 3600.0

Publish = Callable[[Repository], Awaitable[None]]
NewTrial = Callable[[ModelFile, float], Verdicts]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that can't be served.

    again_at: the time of the next attempt, by time.monotonic(); None: when the file changes.
    wait_s: the wait before that attempt.
    """

    stamp: Stamp
    why: str
    again_at: float | None = None
    wait_s: float = 0.0

    @classmethod
    def of(cls, stamp: Stamp, error: StartupError, before: "Refusal | None" = None) -> "Refusal":
        """Return the refusal of a file with this stamp; before: the file's previous refusal."""
        if not isinstance(error, CannotLoadNow):
            return cls(stamp, str(error))
        wait_s = min(before.wait_s * 2, _MAX_RETRY_S) if before and before.wait_s else _RETRY_S
        return cls(stamp, str(error), time.monotonic() + wait_s, wait_s)

    def holds(self, stamp: Stamp) -> bool:
        """Return True if a file with this stamp is still refused."""
        due = self.again_at is not None and time.monotonic() >= self.again_at
        return self.stamp == stamp and not due


def reasons(refused: Mapping[ModelFile, Refusal], root: Path) -> dict[ModelFile, str]:
    """Return why files are refused, for clients: without the path of the repository."""
    return {file: refusal.why.replace(f"{root}/", "") for file, refusal in refused.items()}


class Watcher:
    """Keeps the served models in step with the folder.

    A file is loaded once two consecutive looks find it unchanged. It is tried in a separate process
    first, and served once it is verified and warmed up. A file that can't be served is reported
    once, with its name and the reason; the file served before it stays. Transient failures are
    retried. A file stops being served once two consecutive looks find it removed; an unreadable
    folder removes nothing. A model in use stays until its last answer; then its memory is freed.
    """

    def __init__(
        self,
        look: Look,
        loader: Loader,
        models: Iterable[tuple[ModelFile, ServedModel]],
        publish: Publish,
        load_timeout_s: float,
        refused: Mapping[ModelFile, Refusal] | None = None,
        new_trial: NewTrial = try_one,
    ) -> None:
        self._folder = look.root
        self._loader = loader
        self._publish = publish
        self._load_timeout_s = load_timeout_s
        self._new_trial = new_trial
        self._served = dict(models)
        self._refused = dict(refused or {})
        self._last_look: Mapping[ModelFile, Stamp] = {}
        self._homes = look.homes()
        self._missing: set[ModelFile] = set()
        self._reported_kept: set[tuple[str, str]] = set()
        # Reported once two looks have seen it: a folder that is being copied is incomplete.
        self._passed_over = self._reported_passed_over = frozenset(look.not_served())
        self._trouble = ""
        # Models that clients unloaded stay unloaded until a client loads them.
        self._unloaded: dict[str, set[ModelFile]] = {}
        self._one_at_a_time = asyncio.Lock()
        self.loads = 0
        self.refusals = 0

    async def watch(self, every_s: float) -> None:
        """Look at the folder again and again, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            try:
                async with self._one_at_a_time:
                    await self.look()
                self._trouble = ""
            except Exception as error:  # noqa: BLE001  no content of the folder ends the watch
                if str(error) != self._trouble:
                    _log.error("the repository can't be watched", why=str(error))
                self._trouble = str(error)

    async def reload(self) -> None:
        """Load new and changed files and drop removed ones now."""
        async with self._one_at_a_time:
            try:
                await self.look()
                await asyncio.sleep(_SETTLES_S)
                await self.look()
            except ModelFileError as error:
                _log.error("the repository can't be read", why=str(error))

    async def load(self, name: str) -> None:
        """Serve all versions of a model that the folder holds now.

        Raises ModelNotFound. Raises CannotLoad if a version can't be served, after loading the
        others.
        """
        async with self._one_at_a_time:
            try:
                look = await asyncio.to_thread(look_at, self._folder)
            except ModelFileError as error:
                raise CannotLoad(str(error)) from None
            found = {file: seen for file, seen in look.files.items() if file.name == name}
            if not found:
                why = "; ".join(look.not_served(name=name))
                raise ModelNotFound(
                    f"the repository has no model {name[:128]!r}{why and f' ({why})'}",
                    field="model_name",
                )
            self._unloaded.pop(name, None)
            changed = {f: s for f, s in found.items() if not self._serves(f, s)}
            errors = [why for f, s in changed.items() if (why := await self._take(f, s))]
            if errors:
                raise CannotLoad("; ".join(errors))

    async def unload(self, name: str) -> None:
        """Stop serving a model. Raises ModelNotFound."""
        async with self._one_at_a_time:
            files = [file for file in self._served if file.name == name]
            if not files:
                raise ModelNotFound(f"model {name[:128]!r} is not being served", field="model_name")
            self._unloaded[name] = set(files)
            for file in files:
                _log.info("unloaded", model=str(file))
                self._leave(self._served.pop(file))
            await self._publish_all()

    async def look(self) -> None:
        """Load new files that are complete, and drop removed ones."""
        look = await asyncio.to_thread(look_at, self._folder)
        found, not_served = look.files, self._not_served()
        settled = {file for file, now in found.items() if self._last_look.get(file) == now}
        self._last_look = found
        self._report_passed_over(frozenset(look.not_served(self._served)))
        await self._drop_removed(look)
        self._refused = {
            file: refused
            for file, refused in self._refused.items()
            if file in found or look.kept_by(file, self._homes)
        }
        for name in self._unloaded:
            self._unloaded[name] = {file for file in found if file.name == name}
        if self._not_served() != not_served:
            await self._publish_all()
        for file, now in found.items():
            known = self._serves(file, now) or self._has_refused(file, now)
            if known or file not in settled or file.name in self._unloaded:
                continue
            # Loading the files before it took time: skip a file that has changed or gone since.
            if await asyncio.to_thread(stamp, file.path) == now:
                await self._take(file, now)

    def _report_passed_over(self, now: frozenset[str]) -> None:
        """Log each path that two looks have passed over once, with the reason."""
        reported = self._reported_passed_over & now
        new = (now & self._passed_over) - reported
        for why in sorted(new):
            _log.warning("passed over", why=why)
        self._passed_over, self._reported_passed_over = now, reported | new

    async def _drop_removed(self, look: Look) -> None:
        """Stop serving files that this look and the last one found removed."""
        self._homes.update(look.homes())
        missing = {file for file in self._served if file not in look.files}
        kept = {file: why for file in missing if (why := look.kept_by(file, self._homes))}
        reported = {(str(file), why) for file, why in kept.items()}
        for model, why in sorted(reported - self._reported_kept):
            _log.warning("not removed", model=model, why=why)
        self._reported_kept = reported
        removed = missing - kept.keys()
        gone = removed & self._missing
        self._missing = removed
        for file in gone:
            _log.info("removed", model=str(file))
            self._leave(self._served.pop(file))
        if gone:
            await self._publish_all()

    def _serves(self, file: ModelFile, seen: Stamp) -> bool:
        return file in self._served and self._served[file].origin.stamp == seen

    def _has_refused(self, file: ModelFile, seen: Stamp) -> bool:
        return file in self._refused and self._refused[file].holds(seen)

    async def _take(self, file: ModelFile, found: Stamp) -> str:
        """Load a file and replace the model served under its name and version.

        Returns why it can't be served; "" on success.
        """
        try:
            model = await self._load(file)
            if model.origin.stamp != found:
                raise ModelFileError(f"{file.path}: the file changed while it was being loaded")
        except StartupError as error:
            before = self._refused.get(file)
            self._refused[file] = Refusal.of(found, error, before)
            self.refusals += 1
            if before is None or (before.stamp, before.why) != (found, str(error)):
                serving = file in self._served
                _log.error("refused", model=str(file), why=str(error), serving=serving)
                await self._publish_all()
            return str(error)
        replaced = self._served.get(file)
        self._served[file] = model
        self._refused.pop(file, None)
        self.loads += 1
        _log.info("loaded", model=str(file), plan=str(model.plan))
        if replaced:
            self._leave(replaced)
        await self._publish_all()
        return ""

    async def _load(self, file: ModelFile) -> ServedModel:
        """Return the model of a file once its trial has passed; raises StartupError."""
        trial = await asyncio.to_thread(self._new_trial, file, self._load_timeout_s)
        try:
            return await asyncio.to_thread(self._loader.load, file, trial.verdict(file))
        finally:
            trial.stop()

    async def _publish_all(self) -> None:
        await self._publish(Repository(self._served.values(), self._not_served()))

    def _not_served(self) -> dict[ModelFile, str]:
        """Return the files of the folder that are not served, and why."""
        unloaded = {file: "unloaded" for files in self._unloaded.values() for file in files}
        return reasons(self._refused, self._folder) | unloaded

    def _leave(self, model: ServedModel) -> None:
        """Log when the last answer of a model is given, and release its memory then."""
        loop, name = asyncio.get_running_loop(), f"{model.name}/{model.version}"

        def left() -> None:
            _log.info("left", model=name)
            loop.run_in_executor(None, memory.give_back)

        def report() -> None:
            with suppress(RuntimeError):  # the loop is closed: the server has stopped
                # A fresh context: this runs in that of the call that held the model last.
                loop.call_soon_threadsafe(left, context=Context())

        # The engine: a run that was abandoned may still hold it after the last answer.
        weakref.finalize(model.engine, report).atexit = False
