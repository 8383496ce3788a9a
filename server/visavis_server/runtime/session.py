"""Sessions of ONNX Runtime: a model file, loaded for one execution provider."""

import re
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Literal, Protocol

import numpy as np
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
from visavis_server.runtime.bindings import Bindings, Target
from visavis_server.runtime.captures import CAPTURES
from visavis_server.runtime.fixed_batches import sizes
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.private_copy import PrivateCopy
from visavis_server.runtime.providers import Provider, SessionConfig, create
from visavis_server.runtime.scheduling.work import Stop

_log = structlog.get_logger()

# The messages of ONNX Runtime's arenas, which may have a limit, of CUDA's libraries and TensorRT.
_OUT_OF_MEMORY = re.compile(
    r"out[ _]?of[ _]?memory|bad_alloc|Failed to allocate memory|"
    r"Available memory of \d+ is smaller than requested|"
    r"CUDNN_STATUS_(INTERNAL_ERROR_DEVICE_)?ALLOC(ATION)?_FAILED|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
# A graph with a node on the CPU can't be captured.
_NOT_CAPTURED = re.compile(r"graph capture", re.IGNORECASE)
_TOO_NEW = re.compile(
    r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"
    r"|Opset (\d+) is under development.* till opset (\d+)",
    re.DOTALL,
)
_FATAL = 4  # a severity of ONNX Runtime
_DTYPES: Final[dict[str, Literal["float16", "float32"]]] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}


class Session:
    """Runs one model file, from its path or a private copy.

    input_shape: the input's dimensions, output_shapes: those of each output; None where they are
    dynamic. provider: the execution provider that really runs it, by ONNX Runtime's name.
    """

    def __init__(self, path: Path | PrivateCopy, provider: Provider, config: SessionConfig) -> None:
        self._session, config = _created(path, provider, config)
        self.provider: str = self._session.get_providers()[0]
        if self.provider != provider.name:
            # ONNX Runtime falls back to the CPU with no more than a printed warning.
            raise ProviderUnavailable(
                f"{path}: {provider.name} was requested, but ONNX Runtime uses {self.provider}"
            )
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ModelFileError(
                f"{path}: the model has {len(inputs)} inputs; it must have one, the image"
            )
        (model_input,) = inputs
        self.input_name: str = model_input.name
        self.input_shape = [d if isinstance(d, int) else None for d in model_input.shape]
        if model_input.type not in _DTYPES:
            raise ModelFileError(
                f"{path}: the model's input is {model_input.type}; it must be tensor(float) or "
                "tensor(float16): export it without its pre-processing, with a float input"
            )
        self.input_dtype = _DTYPES[model_input.type]
        if len(self.input_shape) == 4 and self.input_shape[0] not in (None, 1):
            raise ModelFileError(
                f"{path}: the model has a fixed batch size of {self.input_shape[0]}; export it "
                "with a batch size of 1, or a dynamic one"
            )
        self.output_shapes = {
            output.name: [d if isinstance(d, int) else None for d in output.shape]
            for output in self._session.get_outputs()
        }
        self._bindings: Bindings | None = None
        if provider.on_device and not config.varying:
            target = Target(provider.memory, config.gpu, config.runs, config.cuda_graphs)
            self._bindings = Bindings(self._session, target)

    def run(
        self,
        images: Tensor | Sequence[Tensor],
        output_names: list[str] | None = None,
        *,
        give_back: bool = False,
        stop: Stop | None = None,
    ) -> list[Tensor]:
        """Return the outputs, by default all; images: the input, each [3, height, width].

        give_back: return the run's memory to the system instead of keeping it for the next run.
        stop: ends the run. Raises ModelFailed if the graph fails or the run was stopped, Overloaded
        if the device is out of memory.
        """
        names = output_names or list(self.output_shapes)
        options = ort.RunOptions()
        # Errors would go to stderr past the log; the exception has their text too.
        options.log_severity_level = _FATAL
        if give_back:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        if stop is not None:
            stop.on_request(partial(setattr, options, "terminate", True))
        try:
            if self._bindings is not None:
                return self._bindings.run(images, names, options, graph=not give_back)
            batch = np.asarray(images, self.input_dtype)
            outputs: list[Tensor] = self._session.run(names, {self.input_name: batch}, options)
        except Exception as error:
            if stop is not None and stop.requested:
                raise ModelFailed("the run was stopped: all its callers have left") from None
            if _OUT_OF_MEMORY.search(str(error)):
                _log.error("device out of memory", error=str(error)[:500])
                raise Overloaded(
                    "the device that runs the model is out of memory; try again later", 1.0
                ) from None
            raise ModelFailed("the model failed on this image; see the server's log") from error
        return outputs


def _created(
    path: Path | PrivateCopy, provider: Provider, config: SessionConfig
) -> tuple[ort.InferenceSession, SessionConfig]:
    """Return ONNX Runtime's session, and its options: without CUDA graphs if they don't work."""
    try:
        # A session takes memory of the device, which CUDA refuses while a graph is captured.
        with CAPTURES.run() if config.cuda_graphs else nullcontext():
            return create(path, provider, config), config
    except Exception as error:
        if config.cuda_graphs and _NOT_CAPTURED.search(str(error)):
            _log.warning("no CUDA graphs for this model", model=str(path), why=str(error)[:500])
        else:
            kind = CannotLoadNow if _OUT_OF_MEMORY.search(str(error)) else ModelFileError
            raise kind(f"{path}: {_why_not_loaded(error)}") from error
    return _created(path, provider, replace(config, cuda_graphs=False))


def _why_not_loaded(error: Exception) -> str:
    if found := _TOO_NEW.search(str(error)):
        what, (version, most) = "IR version" if found[1] else "opset", filter(None, found.groups())
        return (
            f"its {what} is {version}, and ONNX Runtime {ort.__version__} reads up to {most}; "
            "export it with an older opset, or update ONNX Runtime"
        )
    return f"ONNX Runtime can't load the file: {error}"


class Source(Protocol):
    """The verified bytes of a model, from which any number of sessions can be created."""

    @property
    def close(self) -> Callable[[], object]:
        """Release the bytes; no more sessions can be created."""
        ...

    def copy(self) -> AbstractContextManager[PrivateCopy]:
        """Open a private copy of the bytes; raises ModelFileError if they are gone."""
        ...


class Sessions:
    """The sessions that one model's plan needs. config: its threads and runs are replaced.

    All are created from the bytes that were verified when the file was opened. The session for
    exclusive runs is created at the first one: an idle model, or one with many callers, saves the
    memory.
    """

    def __init__(
        self,
        source: Source,
        provider: Provider,
        plan: Plan,
        config: SessionConfig,
    ) -> None:
        # In one session of the CPU provider, concurrent runs would share threads. CUDA graphs of
        # one session share its memory, so they must not be replayed concurrently.
        separate = config.cuda_graphs or (
            plan.runs_on == "cores" and plan.threads > 1 and not provider.own_threads
        )
        number, runs = (plan.instances, 1) if separate else (1, plan.instances)
        each = replace(
            config, threads=plan.threads, runs=runs, gpu_bytes=config.gpu_bytes // number
        )
        with source.copy() as copy:
            self._all = [Session(copy, provider, each) for _ in range(number)]
        self.first = self._all[0]
        self._sizes = sizes if provider.on_device and not config.varying else _one_size
        self._shared = number == 1
        self._idle: SimpleQueue[Session] = SimpleQueue()
        for session in self._all:
            self._idle.put(session)
        self._exclusive: Session | None = None
        self._check: Callable[[Session, int], None] = lambda session, images: None
        self._lock = threading.Lock()
        self._make_exclusive: Callable[[], Session] | None = None
        if plan.exclusive_threads:
            # Its threads may spin: nothing else runs then.
            exclusive = replace(config, threads=plan.exclusive_threads, runs=1, spin=True)
            self._make_exclusive = partial(_copied, source, provider, exclusive)
        else:
            source.close()

    def check(self, check: Callable[[Session, int], None], images: int) -> None:
        """Check every session with a batch of images, and the exclusive one, later, with one image.

        On a device it is checked with every size of batches up to that, largest first: memory that
        sufficed for those is enough for the others. check: raises StartupError if a session
        computes wrong results.
        """
        self._check = check
        for session in self._all:
            for size in reversed(self._sizes(images)):
                check(session, size)

    def run(
        self,
        images: Tensor | Sequence[Tensor],
        output_names: list[str],
        exclusive: bool = False,
        stop: Stop | None = None,
    ) -> list[Tensor]:
        """Return the outputs for a batch; exclusive: on all cores. Otherwise as Session.run."""
        if exclusive and self._make_exclusive is not None:
            # Until it is ready, exclusive runs use one core. The thread is no daemon, so that the
            # process waits for it: ONNX Runtime aborts if Python ends a thread in its middle.
            threading.Thread(
                target=self.make_exclusive, name="exclusive session", daemon=False
            ).start()
        if exclusive and self._exclusive is not None:
            return self._exclusive.run(images, output_names, stop=stop)
        if self._shared:
            return self.first.run(images, output_names, stop=stop)
        session = self._idle.get()
        try:
            return session.run(images, output_names, stop=stop)
        finally:
            self._idle.put(session)

    def make_exclusive(self) -> None:
        """Create the session for exclusive runs, once, if the plan needs it."""
        with self._lock:
            make, self._make_exclusive = self._make_exclusive, None
        if make is None:
            return
        try:
            session = make()
            self._check(session, 1)
        # It can't be created, fails, computes wrong results, or the file was overwritten.
        except (VisavisError, MemoryError):
            _log.exception("no session for exclusive runs: they use one core")
            return
        self._exclusive = session


def _one_size(images: int) -> tuple[int, ...]:
    return (images,)


def _copied(source: Source, provider: Provider, config: SessionConfig) -> Session:
    """Create a session from the verified bytes, and release them."""
    try:
        with source.copy() as copy:
            return Session(copy, provider, config)
    finally:
        source.close()
