"""Watches the folder of models: what is new or changed is loaded beside the old, then served."""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from contextvars import Context
from pathlib import Path

import structlog

from server import memory
from server.errors import CannotLoad, ModelFileError, ModelNotFound, StartupError
from server.repository import Loader, ModelFile, Repository, scan
from server.served_model import ServedModel
from server.trial import try_out

_log = structlog.get_logger()

Stamp = tuple[int, ...]
"""What changes when a file does."""

Publish = Callable[[Repository], Awaitable[None]]


class Watcher:
    """Keeps what is served as the folder is.

    A file is loaded when two looks in a row have found it the same, tried out in a process of
    its own first, and served once it is verified and warm. One that can't be served is reported
    once, by name and reason, and leaves what was served before it. What is in use stays until
    its last answer is given, and then its memory is free.
    """

    def __init__(
        self,
        folder: Path,
        loader: Loader,
        models: Iterable[tuple[ModelFile, Stamp, ServedModel]],
        publish: Publish,
        load_timeout_s: float,
    ) -> None:
        self._folder = folder
        self._loader = loader
        self._publish = publish
        self._load_timeout_s = load_timeout_s
        self._served = {file: (seen, model) for file, seen, model in models}
        self._refused: dict[ModelFile, Stamp] = {}
        self._last_look: dict[ModelFile, Stamp] = {}
        self._trouble = ""
        # What clients have unloaded stays so, until they load it again.
        self._unloaded: set[str] = set()
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

    async def load(self, name: str) -> None:
        """Serve all versions of a model as the folder has them now.

        Raises ModelNotFound, and CannotLoad if one can't be served; the others are.
        """
        async with self._one_at_a_time:
            files = await asyncio.to_thread(scan, self._folder)
            found = {file: stamp(file) for file in files if file.name == name}
            if not found:
                raise ModelNotFound(
                    f"the repository holds no model {name[:128]!r}", field="model_name"
                )
            self._unloaded.discard(name)
            changed = {f: s for f, s in found.items() if s != self._served.get(f, (None,))[0]}
            wrong = [why for f, s in changed.items() if (why := await self._take(f, s))]
            if wrong:
                raise CannotLoad("; ".join(wrong))

    async def unload(self, name: str) -> None:
        """Serve a model no more. Raises ModelNotFound."""
        async with self._one_at_a_time:
            files = [file for file in self._served if file.name == name]
            if not files:
                raise ModelNotFound(f"no model {name[:128]!r} is served", field="model_name")
            self._unloaded.add(name)
            for file in files:
                _log.info("unloaded", model=str(file))
                self._leave(self._served.pop(file)[1])
            await self._publish_all()

    async def look(self) -> None:
        """Load what is new and settled, drop what is gone."""
        found = await asyncio.to_thread(lambda: {f: stamp(f) for f in scan(self._folder)})
        settled = {file for file, now in found.items() if self._last_look.get(file) == now}
        self._last_look = found
        gone = [file for file in self._served if file not in found]
        for file in gone:
            _log.info("removed", model=str(file))
            self._leave(self._served.pop(file)[1])
        if gone:
            await self._publish_all()
        self._refused = {f: s for f, s in self._refused.items() if f in found}
        for file, now in found.items():
            known = (self._refused.get(file), self._served.get(file, (None,))[0])
            if file in settled and now not in known and file.name not in self._unloaded:
                await self._take(file, now)

    async def _take(self, file: ModelFile, found: Stamp) -> str:
        """Serve a file in place of what was served under its name and version.

        Returns why it can't be served, or nothing.
        """
        try:
            await try_out(file, self._load_timeout_s)
            model = await asyncio.to_thread(self._loader.load, file)
            if stamp(file) != found:
                raise ModelFileError(f"{file.path}: it changed while it was loaded")
        except StartupError as error:
            self._refused[file] = found
            self.refusals += 1
            _log.error("refused", model=str(file), why=str(error), serving=file in self._served)
            return str(error)
        before = self._served.get(file)
        self._served[file] = (found, model)
        self._refused.pop(file, None)
        self.loads += 1
        _log.info("loaded", model=str(file), plan=str(model.plan))
        if before:
            self._leave(before[1])
        await self._publish_all()
        return ""

    async def _publish_all(self) -> None:
        await self._publish(Repository(model for _, model in self._served.values()))

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


def stamp(file: ModelFile) -> Stamp:
    """Return what changes when a file, or the JSON beside it, does."""
    stamps: list[int] = []
    for path in (file.path, file.path.with_suffix(".json")):
        try:
            status = path.stat()
        except OSError:
            stamps.append(0)
        else:
            stamps += (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
    return tuple(stamps)
