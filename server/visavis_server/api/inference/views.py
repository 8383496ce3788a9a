"""The two views of a model in the Open Inference Protocol: tensors, or encoded pictures.

`NAME` takes the model's input tensor and returns one output tensor, whatever the graph's outputs
are. `NAME_image` takes encoded pictures and returns labels and boxes, unless another model has
that name.
"""

import math
from asyncio import to_thread
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import numpy as np

from visavis_server.api.inference.parameters import Parameters, number, truth, whole
from visavis_server.api.inference.tensors import Array, datatype_of
from visavis_server.card import CandidateRows, ClassScores, ModelDocument, Task
from visavis_server.errors import InvalidRequest, listed
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime.budget import Held
from visavis_server.runtime.scheduling.work import Caller
from visavis_server.settings import ImageLimits
from visavis_server.vision.image import decode
from visavis_server.vision.results import (
    Answer,
    Classified,
    ClassifyOptions,
    Detected,
    DetectOptions,
    InvalidOption,
    Options,
    Picture,
)

IMAGE_VIEW: Final = "_image"
"""The suffix of a picture view's name, unless a model has that name itself."""

_MAX_BATCH: Final = 16
# Bytes of a message besides its tensors.
_ENVELOPE_BYTES: Final = 64 << 10
_Readers = Mapping[str, Callable[[Parameters, str], Any]]
_CLASSIFY_OPTIONS: Final[_Readers] = {"top_k": whole}
_DETECT_OPTIONS: Final[_Readers] = {
    "max_detections": whole,
    "score_threshold": number,
    "iou_threshold": number,
    "class_agnostic": truth,
}
_IMAGE: Final = "IMAGE"
_FLOATS: Final = ("FP32", "FP16")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output; shape: without the leading batch dimension, -1 for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class View(Protocol):
    """One view of a model."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The inputs."""
        ...

    @property
    def max_batch(self) -> int:
        """The most images in one request; request and response must fit into a message."""
        ...

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The outputs."""
        ...

    async def infer(
        self, inputs: Mapping[str, Array], parameters: Parameters, caller: Caller
    ) -> dict[str, Array]:
        """Return the outputs by name, each with a leading batch dimension.

        Raises InvalidRequest, and the errors of ServedModel.answer.
        """
        ...


class TensorView:
    """Takes preprocessed inputs; they share batches with pictures."""

    def __init__(self, model: ServedModel, max_message_bytes: int) -> None:
        self._model = model
        document = model.document
        datatype = "FP16" if document.input.dtype == "float16" else "FP32"
        self._largest = model.engine.family.input_shape
        shape = (3, -1, -1) if document.input.varies else self._largest
        self.inputs = (TensorSpec(document.input.tensor, datatype, shape),)
        # Other layouts have several tensors.
        output = document.output
        name = output.tensor if isinstance(output, ClassScores | CandidateRows) else "output0"
        self.outputs = (TensorSpec(name, "FP32", tuple(model.tensor_shape)),)
        largest = 4 * max(math.prod(self._largest), math.prod(self.outputs[0].shape))
        fits = (max_message_bytes - _ENVELOPE_BYTES) // max(largest, 1)
        self.max_batch = max(1, min(_MAX_BATCH, fits))

    async def infer(
        self, inputs: Mapping[str, Array], parameters: Parameters, caller: Caller
    ) -> dict[str, Array]:
        """Return the model's output tensor for one input [b, 3, height, width]."""
        (spec,) = self.inputs
        tensor = _only(inputs, spec.name)
        if (datatype := datatype_of(tensor)) not in _FLOATS:
            raise InvalidRequest(
                "inputs[0].datatype",
                f"{spec.name} is {datatype}; {self._model.name} takes {spec.datatype}",
            )
        if not (self._fits(tensor.shape[1:]) and 1 <= len(tensor) <= self.max_batch):
            most = f", each side 1 to {max(self._largest)}" if -1 in spec.shape else ""
            raise InvalidRequest(
                "inputs[0].shape",
                f"{spec.name} is {list(tensor.shape)}; {self._model.name} takes "
                f"{['1 to ' + str(self.max_batch), *spec.shape]}{most}",
            )
        numbers = await self._model.infer(tensor, caller)
        stacked = numbers[0][None] if len(numbers) == 1 else await to_thread(np.stack, numbers)
        return {self.outputs[0].name: stacked}

    def _fits(self, shape: tuple[int, ...]) -> bool:
        """Return True if an input of this shape, without the batch, can be computed."""
        wanted = self.inputs[0].shape
        return len(shape) == len(wanted) and all(
            size == one if one > 0 else 1 <= size <= most
            for size, one, most in zip(shape, wanted, self._largest, strict=True)
        )


class ImageView:
    """Takes encoded pictures: BYTES [b, 1], or UINT8 [b, n] with one picture per row."""

    inputs = (TensorSpec(_IMAGE, "BYTES", (1,)),)
    max_batch = _MAX_BATCH

    def __init__(self, model: ServedModel, limits: ImageLimits) -> None:
        self._model = model
        self._limits = limits
        common = (
            TensorSpec("labels", "BYTES", (-1,)),
            TensorSpec("scores", "FP32", (-1,)),
            TensorSpec("class_ids", "INT64", (-1,)),
        )
        detects = model.task is Task.OBJECT_DETECTION
        boxes = (TensorSpec("boxes", "FP32", (-1, 4)), TensorSpec("counts", "INT64", (1,)))
        self.outputs = (*common, *boxes) if detects else common

    async def infer(
        self, inputs: Mapping[str, Array], parameters: Parameters, caller: Caller
    ) -> dict[str, Array]:
        """Return labels, scores and class ids [b, n]; for detectors also boxes [b, n, 4].

        Boxes are xyxy in pixels of the original image. Rows of pictures with fewer than n results
        are padded with empty labels, zeros and the class id -1; `counts` [b, 1] has the number of
        detections.
        """
        options = _read_options(parameters, self._model.document)
        field = "inputs[0].contents"
        pictures = []
        for data in self._pictures(_only(inputs, _IMAGE)):
            held = Held(self._limits.budget, "decoded")
            pictures.append(
                Picture(partial(decode, data, self._limits, field, held.wait_for), held)
            )
        answers = await self._model.answers(pictures, options, caller)
        detects = self._model.task is Task.OBJECT_DETECTION
        return await to_thread(_columns, answers, boxes=detects)

    @staticmethod
    def _pictures(tensor: Array) -> list[bytes]:
        datatype, shape = datatype_of(tensor), list(tensor.shape)
        count = shape[0] if shape else 0
        fits = shape[1:] in ([], [1]) if datatype == "BYTES" else len(shape) == 2
        if datatype not in ("BYTES", "UINT8") or not fits or not 1 <= count <= _MAX_BATCH:
            raise InvalidRequest(
                "inputs[0].shape",
                f"{_IMAGE} is {datatype} {shape}; send 1 to {_MAX_BATCH} encoded pictures as BYTES "
                "[b, 1], or as UINT8 [b, bytes of a picture]",
            )
        if datatype == "BYTES":
            return list(tensor.ravel())
        return [row.tobytes() for row in tensor]


def classified(scores: Array, labels: Sequence[str], most: int) -> Array:
    """Return the best of scores [b, classes] in Triton's format: BYTES [b, most].

    Each element is SCORE:INDEX:LABEL.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :most]
    texts = np.empty(best.shape, object)
    for row, column in np.ndindex(best.shape):
        index = int(best[row, column])
        texts[row, column] = f"{scores[row, index]:f}:{index}:{labels[index]}"
    return texts


def _only(inputs: Mapping[str, Array], name: str) -> Array:
    if set(inputs) != {name}:
        raise InvalidRequest(
            "inputs", f"the inputs are {listed(inputs)}; the model takes exactly one, {name}"
        )
    return inputs[name]


def _read_options(parameters: Parameters, document: ModelDocument) -> Options:
    """Return the options in a request's parameters; unknown parameters are ignored."""
    try:
        classify = ClassifyOptions(**_given(parameters, _CLASSIFY_OPTIONS))
        detect = DetectOptions(**_given(parameters, _DETECT_OPTIONS))
    except InvalidOption as error:
        raise InvalidRequest(error.option, str(error)) from None
    labels = len(document.label_set.labels)
    return Options(ClassifyOptions(top_k=min(classify.top_k, labels)), detect)


def _given(parameters: Parameters, readers: _Readers) -> dict[str, Any]:
    """Return the options that a request sets, by name."""
    read = {name: reader(parameters, name) for name, reader in readers.items()}
    return {name: value for name, value in read.items() if value is not None}


def _columns(answers: Sequence[Answer], boxes: bool) -> dict[str, Array]:
    """Return the results as padded columns; runs in a thread, as its cost grows with them."""
    results = [_items(answer.result) for answer in answers]
    shape = len(results), max(map(len, results))
    labels, scores = np.full(shape, "", object), np.zeros(shape, np.float32)
    class_ids, corners = np.full(shape, -1, np.int64), np.zeros((*shape, 4), np.float32)
    for row, items in enumerate(results):
        for column, item in enumerate(items):
            labels[row, column] = item.label
            scores[row, column] = item.score
            class_ids[row, column] = item.class_id
            if boxes:
                box = item.box
                corners[row, column] = box.x_min, box.y_min, box.x_max, box.y_max
    columns: dict[str, Array] = {"labels": labels, "scores": scores, "class_ids": class_ids}
    if boxes:
        columns["boxes"] = corners
        columns["counts"] = np.array([[len(items)] for items in results], np.int64)
    return columns


def _items(result: Classified | Detected) -> Sequence[Any]:
    return result.classifications if isinstance(result, Classified) else result.detections
