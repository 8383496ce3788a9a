"""Watches the folder of models: what is new or changed is loaded beside the old, then served."""

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
from visavis_server.models.model_files import Look, ModelFile, Stamp, look_at, stamp
from visavis_server.models.repository import Loader, Repository
from visavis_server.models.served_model import ServedModel
from visavis_server.models.trial import Trial
from visavis_server.runtime import memory

_log = structlog.get_logger()

# Between two looks, in which a file that is being written changes.
_SETTLES_S = 1.0
# A file that could not be loaded for a cause that may pass is tried again after this time, then
# after twice as long, and so on up to the second.
_AGAIN_S, _AGAIN_MOST_S = 30.0, 3600.0

Publish = Callable[[Repository], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that can't be served.

    again_at: when it is tried again, by time.monotonic(); None: not until the file changes.
    wait_s: how long that was to wait for.
    """

    stamp: Stamp
    why: str
    again_at: float | None = None
    wait_s: float = 0.0

    @classmethod
    def of(cls, stamp: Stamp, error: StartupError, before: "Refusal | None" = None) -> "Refusal":
        """Return the refusal of a file with a stamp; before: the last one of the same file."""
        if not isinstance(error, CannotLoadNow):
            return cls(stamp, str(error))
        wait_s = min(before.wait_s * 2, _AGAIN_MOST_S) if before and before.wait_s else _AGAIN_S
        return cls(stamp, str(error), time.monotonic() + wait_s, wait_s)

    def holds(self, stamp: Stamp) -> bool:
        """Say whether a file with a stamp is still refused."""
        due = self.again_at is not None and time.monotonic() >= self.again_at
        return self.stamp == stamp and not due


def reasons(refused: Mapping[ModelFile, Refusal], root: Path) -> dict[ModelFile, str]:
    """Return why files are refused, for callers to read: without where the repository lies."""
    return {file: refusal.why.replace(f"{root}/", "") for file, refusal in refused.items()}


class Watcher:
    """Keeps what is served as the folder is.

    A file is loaded when two looks in a row have found it the same, tried in a process of its own
    first, and served once it is verified and warm. One that can't be served is reported once, by
    name and reason, and leaves what was served before it; where the cause may pass it is tried
    again. A file is not served any more when two looks in a row have seen that it was removed; a
    folder that can't be read removes nothing. What is in use stays until its last answer is given,
    and then its memory is free.
    """

    def __init__(
        self,
        look: Look,
        loader: Loader,
        models: Iterable[tuple[ModelFile, ServedModel]],
        publish: Publish,
        load_timeout_s: float,
        refused: Mapping[ModelFile, Refusal] | None = None,
    ) -> None:
        self._folder = look.root
        self._loader = loader
        self._publish = publish
        self._load_timeout_s = load_timeout_s
        self._served = dict(models)
        self._refused = dict(refused or {})
        self._last_look: Mapping[ModelFile, Stamp] = {}
        self._homes = look.homes()
        self._missing: set[ModelFile] = set()
        self._told: set[tuple[str, str]] = set()
        # Told when two looks have found it: a folder that is being copied is not whole yet.
        self._passed_over = self._told_passed_over = frozenset(look.not_served())
        self._trouble = ""
        # What clients have unloaded stays so, until they load it again.
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
            except Exception as error:  # noqa: BLE001  whatever the folder holds, watching goes on
                if str(error) != self._trouble:
                    _log.error("the repository can't be watched", why=str(error))
                self._trouble = str(error)

    async def reload(self) -> None:
        """Load what is new or has changed in the folder, and drop what is gone, now."""
        async with self._one_at_a_time:
            try:
                await self.look()
                await asyncio.sleep(_SETTLES_S)
                await self.look()
            except ModelFileError as error:
                _log.error("the repository can't be read", why=str(error))

    async def load(self, name: str) -> None:
        """Serve all versions of a model as the folder has them now.

        Raises ModelNotFound, and CannotLoad if one can't be served; the others are.
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
                    f"the repository holds no model {name[:128]!r}{why and f' ({why})'}",
                    field="model_name",
                )
            self._unloaded.pop(name, None)
            changed = {f: s for f, s in found.items() if not self._serves(f, s)}
            wrong = [why for f, s in changed.items() if (why := await self._take(f, s))]
            if wrong:
                raise CannotLoad("; ".join(wrong))

    async def unload(self, name: str) -> None:
        """Serve a model no more. Raises ModelNotFound."""
        async with self._one_at_a_time:
            files = [file for file in self._served if file.name == name]
            if not files:
                raise ModelNotFound(f"no model {name[:128]!r} is served", field="model_name")
            self._unloaded[name] = set(files)
            for file in files:
                _log.info("unloaded", model=str(file))
                self._leave(self._served.pop(file))
            await self._publish_all()

    async def look(self) -> None:
        """Load what is new and settled, drop what was removed."""
        look = await asyncio.to_thread(look_at, self._folder)
        found, not_served = look.files, self._not_served()
        settled = {file for file, now in found.items() if self._last_look.get(file) == now}
        self._last_look = found
        self._tell_passed_over(frozenset(look.not_served(self._served)))
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
            # Those before it may have taken long: what has gone meanwhile is not waited for.
            if await asyncio.to_thread(stamp, file.path) == now:
                await self._take(file, now)

    def _tell_passed_over(self, now: frozenset[str]) -> None:
        """Log once what two looks have passed over, with the reason."""
        told = self._told_passed_over & now
        new = (now & self._passed_over) - told
        for why in sorted(new):
            _log.warning("passed over", why=why)
        self._passed_over, self._told_passed_over = now, told | new

    async def _drop_removed(self, look: Look) -> None:
        """Serve no more what this look and the last one have seen to be removed."""
        self._homes.update(look.homes())
        missing = {file for file in self._served if file not in look.files}
        kept = {file: why for file in missing if (why := look.kept_by(file, self._homes))}
        told = {(str(file), why) for file, why in kept.items()}
        for model, why in sorted(told - self._told):
            _log.warning("not removed", model=model, why=why)
        self._told = told
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
        """Serve a file in place of what was served under its name and version.

        Returns why it can't be served, or nothing.
        """
        try:
            model = await self._load(file)
            if model.origin.stamp != found:
                raise ModelFileError(f"{file.path}: it changed while it was loaded")
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
        """Return the model of a file that has passed its trial; raises StartupError."""
        trial = await asyncio.to_thread(Trial, polite=True)
        try:
            trial.begin([file], self._load_timeout_s)
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
        """Note when the last answer of a model is given, and give its memory back then."""
        loop, name = asyncio.get_running_loop(), f"{model.name}/{model.version}"

        def left() -> None:
            _log.info("left", model=name)
            loop.run_in_executor(None, memory.give_back)

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: the server has ended
                # The call that held the model last has nothing to do with it.
                loop.call_soon_threadsafe(left, context=Context())

        weakref.finalize(model, tell).atexit = False
