"""Runs of a session whose tensors are on a device, through memory that is kept for the next run.

Images are collected in pinned memory and copied to the device at once; outputs return to pinned
memory. Runs have few sizes: a batch is padded to the next one, and the extra outputs are
discarded. The outputs of each image depend on that image alone.
"""

import ctypes
import itertools
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from visavis_server.arrays import Tensor
from visavis_server.runtime import nvidia
from visavis_server.runtime.buffers import Buffers, aligned
from visavis_server.runtime.captures import CAPTURES
from visavis_server.runtime.fixed_batches import padded
from visavis_server.runtime.pinned_memory import PinnedMemory
from visavis_server.runtime.plan import Memory

_GRAPH_ID: Final = "gpu_graph_id"
_NO_GRAPH: Final = "-1"
_TYPES: Final = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}


@dataclass(frozen=True, slots=True)
class Target:
    """The device of a session.

    memory: its memory; tests use the CPU's. gpu: its number. runs: concurrent ones of the session.
    graphs: capture runs as CUDA graphs, and replay them; the session must have one run at a time.
    """

    memory: Memory
    gpu: int = 0
    runs: int = 1
    graphs: bool = False

    def copy_in(self, to: ort.OrtValue, array: Tensor) -> None:
        """Copy an array to the device, without Python's lock."""
        if self.memory == "cuda":
            nvidia.copy_in(to.data_ptr(), array.ctypes.data, array.nbytes, self.gpu)
        else:
            ctypes.memmove(to.data_ptr(), array.ctypes.data, array.nbytes)

    def copy_out(self, array: Tensor, value: ort.OrtValue) -> None:
        """Copy a tensor of the device into an array, without Python's lock."""
        if self.memory == "cuda":
            nvidia.copy_out(array.ctypes.data, value.data_ptr(), array.nbytes, self.gpu)
        else:
            ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)

    def empty(self, shape: Sequence[int], dtype: Any) -> ort.OrtValue:
        """Return an uninitialised tensor on the device."""
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self.memory, self.gpu)


@dataclass(slots=True)
class _Bound:
    """One size of runs with one choice of outputs; used by one thread at a time.

    outputs: their memory on the device, which a graph needs; empty without one. graph_id: names the
    graph.
    """

    binding: Any
    input: ort.OrtValue
    outputs: dict[str, ort.OrtValue]
    graph_id: str = _NO_GRAPH


class _Captured(threading.local):
    """The graphs of a session that the current thread has: ONNX Runtime keeps one for each."""

    def __init__(self) -> None:
        self.graph_ids: set[str] = set()


_Slot = dict[tuple[Any, ...], _Bound]
"""The memory of one concurrent run, for each size and choice of outputs."""


class Bindings:
    """Runs a session. Thread-safe.

    session: it has one input, and its shape varies at most in the batch.
    """

    def __init__(self, session: ort.InferenceSession, target: Target) -> None:
        self._session = session
        self._target = target
        (model_input,) = session.get_inputs()
        self._input_name: str = model_input.name
        self._input_type = _TYPES[model_input.type]
        self._one_at_a_time = isinstance(model_input.shape[0], int)
        self._outputs = {output.name: output for output in session.get_outputs()}
        allocate = PinnedMemory(target.gpu).allocate if target.memory == "cuda" else aligned
        # Outputs are still read while the next batch runs.
        self._host = Buffers(2 * target.runs, allocate)
        self._slots: deque[_Slot] = deque()
        self._graph_ids = itertools.count()
        self._captured = _Captured()

    def run(
        self,
        images: Tensor | Sequence[Tensor],
        names: Sequence[str],
        options: ort.RunOptions,
        *,
        graph: bool = True,
    ) -> list[Tensor]:
        """Return the named outputs for images, each [3, height, width].

        graph: the run may use a CUDA graph. Raises ONNX Runtime's exceptions.
        """
        rows = 1 if self._one_at_a_time else padded(len(images))
        batch = self._host.empty(rows, *images[0].shape, dtype=self._input_type)
        for index, image in enumerate(images):
            batch[index] = image
        batch[len(images) :] = 0
        try:
            slot = self._slots.pop()
        except IndexError:
            slot = {}
        key = (*batch.shape, *names, graph)
        with self._turn(slot.get(key), graph=graph):
            if (bound := slot.get(key)) is None:
                bound = slot[key] = self._bind(batch, names, graph=graph)
            self._target.copy_in(bound.input, batch)
            run = self._replay if bound.outputs else self._run
            outputs = run(bound, rows, names, options)
        # After an error the slot is not used again: its memory may be what other runs lack.
        self._slots.append(slot)
        return [output[: len(images)] for output in outputs]

    def _turn(self, bound: _Bound | None, *, graph: bool) -> AbstractContextManager[None]:
        if not self._target.graphs:
            return nullcontext()
        if bound is None:
            captures = graph
        else:
            captures = bool(bound.outputs) and bound.graph_id not in self._captured.graph_ids
        return CAPTURES.capture() if captures else CAPTURES.run()

    def _bind(self, batch: Tensor, names: Sequence[str], *, graph: bool) -> _Bound:
        binding = self._session.io_binding()
        model_input = self._target.empty(batch.shape, self._input_type)
        binding.bind_ortvalue_input(self._input_name, model_input)
        bound = _Bound(binding, model_input, {})
        shapes = {name: self._shape(name, len(batch)) for name in names}
        if self._target.graphs and graph and None not in shapes.values():
            bound.graph_id = str(next(self._graph_ids))
            for name, shape in shapes.items():
                bound.outputs[name] = self._target.empty(shape or (), self._type(name))
                binding.bind_ortvalue_output(name, bound.outputs[name])
        return bound

    def _run(
        self, bound: _Bound, rows: int, names: Sequence[str], options: ort.RunOptions
    ) -> list[Tensor]:
        """Run with outputs in pinned memory, or in ONNX Runtime's where their shape is unknown."""
        arrays = {}
        for name in names:
            if (shape := self._shape(name, rows)) is None:
                bound.binding.bind_output(name, "cpu")
                continue
            array = arrays[name] = self._host.empty(*shape, dtype=self._type(name))
            address = array.ctypes.data
            bound.binding.bind_output(name, "cpu", 0, self._type(name), shape, address)
        if self._target.graphs:
            options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        self._session.run_with_iobinding(bound.binding, options)
        if len(arrays) < len(names):
            values = zip(names, bound.binding.get_outputs(), strict=True)
            arrays |= {name: value.numpy() for name, value in values if name not in arrays}
        return [arrays[name] for name in names]

    def _replay(
        self, bound: _Bound, rows: int, names: Sequence[str], options: ort.RunOptions
    ) -> list[Tensor]:
        """Run by the thread's CUDA graph, which the first run captures; it copies no outputs."""
        options.add_run_config_entry(_GRAPH_ID, bound.graph_id)
        self._session.run_with_iobinding(bound.binding, options)
        self._captured.graph_ids.add(bound.graph_id)
        arrays = []
        for name in names:
            value = bound.outputs[name]
            array = self._host.empty(*value.shape(), dtype=self._type(name))
            self._target.copy_out(array, value)
            arrays.append(array)
        return arrays

    def _type(self, name: str) -> Any:
        return _TYPES[self._outputs[name].type]

    def _shape(self, name: str, rows: int) -> tuple[int, ...] | None:
        """Return the shape of an output for a batch; None if the graph does not tell it."""
        output = self._outputs[name]
        first, *rest = output.shape or (0,)
        if isinstance(first, int) and first != rows:
            return None
        if output.type not in _TYPES or not all(isinstance(size, int) for size in rest):
            return None
        return (rows, *rest)
