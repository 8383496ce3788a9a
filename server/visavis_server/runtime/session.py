"""ONNX Runtime's sessions: a model file, ready to run on one execution provider."""

import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, Protocol

import onnxruntime as ort
import structlog

from visavis_server.arrays import Tensor
from visavis_server.errors import (
    CannotLoadNow,
    ModelFailed,
    ModelFileError,
    Overloaded,
    ProviderUnavailable,
    VisavisError,
)
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.private_copy import PrivateCopy
from visavis_server.runtime.providers import Provider, SessionConfig, create
from visavis_server.runtime.scheduling.work import Stop

_log = structlog.get_logger()

# How ONNX Runtime's arenas and CUDA's libraries say it.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|bad_alloc|Failed to allocate memory|"
    r"CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
# Of ONNX Runtime's severities.
_FATAL = 4


class Session:
    """Runs one model file: what lies at a path, or a private copy of it.

    input_shape: the input's dimensions, output_shapes: those of each output; None where the file
    fixes none. provider: the execution provider that truly runs it, by ONNX Runtime's name.
    """

    def __init__(self, path: Path | PrivateCopy, provider: Provider, config: SessionConfig) -> None:
        try:
            self._session = create(path, provider, config)
        except Exception as error:
            kind = CannotLoadNow if _OUT_OF_MEMORY.search(str(error)) else ModelFileError
            raise kind(f"{path}: ONNX Runtime can't load it: {error}") from error
        self.provider: str = self._session.get_providers()[0]
        if self.provider != provider.name:
            # ONNX Runtime falls back to the CPU and only prints that it did.
            raise ProviderUnavailable(
                f"{path}: asked for {provider.name}, ONNX Runtime runs it on {self.provider}"
            )
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ModelFileError(f"{path}: has {len(inputs)} inputs; a model takes one image")
        (model_input,) = inputs
        self.input_name: str = model_input.name
        self.input_shape = [d if isinstance(d, int) else None for d in model_input.shape]
        self.input_dtype: Literal["float16", "float32"]
        self.input_dtype = "float16" if "float16" in model_input.type else "float32"
        if self.input_shape and self.input_shape[0] not in (None, 1):
            raise ModelFileError(
                f"{path}: takes {self.input_shape[0]} images at once, no more and no less; export "
                "it with a batch of 1, or with a dynamic one"
            )
        self.output_shapes = {
            output.name: [d if isinstance(d, int) else None for d in output.shape]
            for output in self._session.get_outputs()
        }

    def run(
        self,
        tensor: Tensor,
        output_names: list[str] | None = None,
        *,
        give_back: bool = False,
        stop: Stop | None = None,
    ) -> list[Tensor]:
        """Return the outputs, by default all; tensor: the input [batch, 3, height, width].

        give_back: whether the memory of the run goes back to the system, not to the next run.
        stop: ends the run. Raises ModelFailed if the graph breaks or the run was ended, Overloaded
        if the device has no memory left.
        """
        tensor = tensor.astype(self.input_dtype, copy=False)
        names = output_names or list(self.output_shapes)
        options = ort.RunOptions()
        # What it would write to stderr itself, past our log, comes with the exception too.
        options.log_severity_level = _FATAL
        if give_back:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        if stop is not None:
            stop.on_request(partial(setattr, options, "terminate", True))
        try:
            outputs: list[Tensor] = self._session.run(names, {self.input_name: tensor}, options)
        except Exception as error:
            if stop is not None and stop.requested:
                raise ModelFailed("the run was ended: nobody waits for it") from None
            if _OUT_OF_MEMORY.search(str(error)):
                _log.error("the device has no memory left", error=str(error)[:500])
                raise Overloaded(
                    "the device that runs the model has no memory left; try again later", 1.0
                ) from None
            raise ModelFailed(
                "the model failed on this image; the server's log says why"
            ) from error
        return outputs


class Source(Protocol):
    """Bytes of a model that were verified, for as many sessions as are made of them."""

    @property
    def close(self) -> Callable[[], object]:
        """Give the bytes back; no further sessions are made of them."""
        ...

    def copy(self) -> AbstractContextManager[PrivateCopy]:
        """Lend a private copy of the bytes; raises ModelFileError if they are there no more."""
        ...


class Sessions:
    """The sessions that one model's plan asks for; config: but for its threads and runs.

    All of them come from the bytes that were verified when the file was opened. The session for
    lone runs is made when a run is first alone: a model that idles, or that many call at once,
    does without the memory.
    """

    def __init__(
        self,
        source: Source,
        provider: Provider,
        plan: Plan,
        config: SessionConfig,
    ) -> None:
        # In one session of the CPU provider, the threads of several runs would mix.
        mixed = plan.runs_on == "cores" and plan.threads > 1 and not provider.own_threads
        number, runs = (plan.instances, 1) if mixed else (1, plan.instances)
        each = replace(config, threads=plan.threads, runs=runs)
        with source.copy() as copy:
            self._all = [Session(copy, provider, each) for _ in range(number)]
        self.first = self._all[0]
        self._shared = number == 1
        self._idle: SimpleQueue[Session] = SimpleQueue()
        for session in self._all:
            self._idle.put(session)
        self._exclusive: Session | None = None
        self._check: Callable[[Session, int], None] = lambda session, images: None
        self._lock = threading.Lock()
        self._make_exclusive: Callable[[], Session] | None = None
        if plan.exclusive_threads:
            # Its threads may spin: nothing else runs beside it.
            exclusive = replace(config, threads=plan.exclusive_threads, runs=1, spin=True)
            self._make_exclusive = partial(_copied, source, provider, exclusive)
        else:
            source.close()

    def check(self, check: Callable[[Session, int], None], images: int) -> None:
        """Check every session with some images, and later the one for lone runs with one.

        check: raises StartupError unless a session computes what it should.
        """
        self._check = check
        for session in self._all:
            check(session, images)

    def run(
        self,
        tensor: Tensor,
        output_names: list[str],
        exclusive: bool = False,
        stop: Stop | None = None,
    ) -> list[Tensor]:
        """Return the outputs for a batch; exclusive: on all cores. The rest as in Session.run."""
        if exclusive and self._make_exclusive is not None:
            # Meanwhile lone runs do with one core. The process waits for it before it ends: Python
            # would end a daemon's thread in the middle of ONNX Runtime, which aborts.
            threading.Thread(target=self.make_exclusive, name="lone session", daemon=False).start()
        if exclusive and self._exclusive is not None:
            return self._exclusive.run(tensor, output_names, stop=stop)
        if self._shared:
            return self.first.run(tensor, output_names, stop=stop)
        session = self._idle.get()
        try:
            return session.run(tensor, output_names, stop=stop)
        finally:
            self._idle.put(session)

    def make_exclusive(self) -> None:
        """Make the session for lone runs, unless there is one or none is wanted."""
        with self._lock:
            make, self._make_exclusive = self._make_exclusive, None
        if make is None:
            return
        try:
            session = make()
            self._check(session, 1)
        # It can't be made, gives something else, fails, or the file was overwritten.
        except (VisavisError, MemoryError):
            _log.exception("no session for lone runs: they take one core")
            return
        self._exclusive = session


def _copied(source: Source, provider: Provider, config: SessionConfig) -> Session:
    """Return a session of what was verified; the file is not needed after it."""
    try:
        with source.copy() as copy:
            return Session(copy, provider, config)
    finally:
        source.close()
