"""The models and pictures that clients are tried with: published ones, or small ones made here.

The small models have the names of the published ones, which the programs ask for, and answers that
can be worked out by hand: their classifiers name the colour that is nearest to the mean of the
picture, their detectors find spots of colour on grey.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.server import graphs
from visavis_server.card import (
    LabelSet,
    Letterbox,
    ModelDocument,
    ModelInput,
    Provenance,
    ShorterSide,
)

Pixels = NDArray[np.uint8]

# Labels of the small classifiers, in red, green and blue.
COLORS = {
    "grey": (0.45, 0.45, 0.45),
    "rose": (0.60, 0.40, 0.40),
    "moss": (0.40, 0.60, 0.40),
    "slate": (0.40, 0.40, 0.60),
    "ochre": (0.60, 0.60, 0.35),
    "violet": (0.60, 0.35, 0.60),
    "teal": (0.35, 0.60, 0.60),
    "white": (0.95, 0.95, 0.95),
    "black": (0.05, 0.05, 0.05),
}
# Those of the small detectors.
SPOTS = ("red", "green", "blue")
# Side of a cell in pixels of the input.
CELL = 32
# The grey between the spots, and how far it varies from pixel to pixel.
GREY, GRAIN = 110, 12


@dataclass(frozen=True)
class Samples:
    """Models and pictures. real: they are the published ones.

    models: a repository with resnet18, resnet50, yolov5n and yolov5n-cls, whose weights are random.
    put_smaller: adds a detector "yolov5n-320", which disagrees, to a copy of it. bus: a picture
    with five detections, and its best label. pictures: 200 more.
    """

    real: bool
    models: Path
    put_smaller: Callable[[Path], object]
    bus: Path
    best: str
    zidane: Path
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class Spot:
    """A spot of colour. x, y: its middle in pixels of the picture. strength: up to 1."""

    label: str
    x: float
    y: float
    strength: float = 1.0


BUS = (
    Spot("red", 150, 240),
    Spot("green", 640, 190, 0.9),
    Spot("blue", 390, 540, 0.8),
    Spot("red", 180, 880, 0.7),
    Spot("green", 650, 850, 0.55),
)
ZIDANE = (Spot("blue", 300, 200), Spot("red", 820, 360, 0.9), Spot("green", 1100, 600, 0.8))


def small(folder: Path) -> Samples:
    """Return small models and pictures, made in a folder."""
    models, pictures = folder / "models", folder / "pictures"
    pictures.mkdir()
    # One sees all of a picture but its edges, the other its middle.
    _put(models, nearest_color(gain=12.0), _classifier("resnet50", side=40))
    _put(models, nearest_color(gain=4.0), _classifier("resnet18", side=64))
    _put(models, _random_classifier(), _classifier("yolov5n-cls", side=40, random=True))
    _put(models, spots(640), _detector("yolov5n", 640))
    bus, zidane = pictures / "bus.jpg", pictures / "zidane.jpg"
    _save(scene(810, 1080, BUS, seed=1), bus)
    _save(scene(1280, 720, ZIDANE, seed=2), zidane)
    return Samples(
        real=False,
        models=models,
        put_smaller=lambda other: _put(other, spots(320), _detector("yolov5n-320", 320)),
        bus=bus,
        best="grey",
        zidane=zidane,
        pictures=tuple(_varied(pictures / "varied", 200)),
    )


def scene(width: int, height: int, found: Iterable[Spot], seed: int) -> Pixels:
    """Return a picture of coloured spots on grey, about a cell wide once letterboxed to 640."""
    pixels = np.random.default_rng(seed).normal(GREY, GRAIN, (height, width, 3))
    across = 0.9 * CELL * max(width, height) / 640
    y, x = np.mgrid[:height, :width]
    for spot in found:
        near = np.exp(-((x - spot.x) ** 2 + (y - spot.y) ** 2) / (2 * across**2))
        paint = np.where(np.array(SPOTS) == spot.label, 140.0, -GREY)
        pixels += spot.strength * near[..., None] * paint
    return pixels.clip(0, 255).astype(np.uint8)


def nearest_color(gain: float) -> bytes:
    """Return a graph whose logits are highest for the colour nearest to the mean of its input."""
    colors = np.array(list(COLORS.values()), np.float32)
    # |mean - color|² without |mean|², which all colours share.
    constants = {
        "axes": np.array([2, 3]),
        "weights": gain * 2 * colors.T,
        "bias": -gain * (colors**2).sum(axis=1),
    }
    return _graph(_MEANS, constants, 32, {"logits": ["batch", len(COLORS)]})


def spots(side: int) -> bytes:
    """Return a graph with a candidate row for each cell: its score is the cell's saturation.

    A box is a quarter of the side. At 640, the boxes of cells around the middle of a spot overlap
    with that of the middle by more than 0.45, and are suppressed; at 320, not all of them.
    """
    cells = side // CELL
    middles = (np.mgrid[:cells, :cells][::-1].reshape(2, -1).T + 0.5) * CELL
    boxes = np.concatenate((middles, np.full_like(middles, side / 4)), axis=1)
    constants = {
        "grid": np.array([0, 3, cells, CELL, cells, CELL]),
        "within": np.array([3, 5]),
        "channels": np.array([1]),
        "last": np.array([2]),
        "flat": np.array([0, 1 + len(SPOTS), cells**2]),
        "tiny": np.float32(1e-6),
        "zero": np.float32(0),
        "boxes": boxes[None].astype(np.float32),
    }
    return _graph(_CELLS, constants, side, {"output0": ["batch", cells**2, 5 + len(SPOTS)]})


_MEANS = (
    helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
    helper.make_node("Gemm", ["means", "weights", "bias"], ["logits"]),
)
_CELLS = (
    helper.make_node("Reshape", ["images", "grid"], ["cells"]),
    helper.make_node("ReduceMean", ["cells", "within"], ["colors"], keepdims=0),  # [b, 3, n, n]
    helper.make_node("ReduceMax", ["colors", "channels"], ["most"], keepdims=1),
    helper.make_node("ReduceMin", ["colors", "channels"], ["least"], keepdims=1),
    helper.make_node("Sub", ["most", "least"], ["saturation"]),
    helper.make_node("Add", ["most", "tiny"], ["scale"]),
    helper.make_node("Div", ["colors", "scale"], ["classes"]),
    helper.make_node("Concat", ["saturation", "classes"], ["scores"], axis=1),
    helper.make_node("Reshape", ["scores", "flat"], ["columns"]),
    helper.make_node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
    # The boxes are constant; this gives them the batch.
    helper.make_node("ReduceMax", ["rows", "last"], ["any"], keepdims=1),
    helper.make_node("Mul", ["any", "zero"], ["nothing"]),
    helper.make_node("Add", ["boxes", "nothing"], ["placed"]),
    helper.make_node("Concat", ["placed", "rows"], ["output0"], axis=2),
)


def _random_classifier() -> bytes:
    random = np.random.default_rng(3)
    constants = {
        "axes": np.array([2, 3]),
        "weights": random.normal(size=(3, len(COLORS))).astype(np.float32),
        "bias": random.normal(size=len(COLORS)).astype(np.float32),
    }
    return _graph(_MEANS, constants, 32, {"logits": ["batch", len(COLORS)]})


def _graph(
    nodes: Iterable[onnx.NodeProto],
    constants: dict[str, NDArray[np.generic] | np.generic],
    side: int,
    outputs: dict[str, list[int | str]],
) -> bytes:
    shape = ["batch", 3, side, side]
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, of)
            for name, of in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", graphs.OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _classifier(name: str, side: int, *, random: bool = False) -> ModelDocument:
    source = "random" if random else "by hand"
    return graphs.classifier_document(
        name=name,
        label_set=LabelSet(name="nine-colors", labels=tuple(COLORS)),
        input=ModelInput(tensor="images", width=32, height=32, resize=ShorterSide(size=side)),
        provenance=Provenance(weights_source=source, exporter="the tests", random_weights=random),
    )


def _detector(name: str, side: int) -> ModelDocument:
    resize = Letterbox(unpad="exact")
    return graphs.detector_document(
        name=name,
        label_set=LabelSet(name="spots", labels=SPOTS),
        input=ModelInput(tensor="images", width=side, height=side, resize=resize),
    )


def _put(models: Path, graph: bytes, document: ModelDocument) -> None:
    graphs.put(models, document.name, 1, graphs.export(graph, document)[0])


def _save(pixels: Pixels, path: Path) -> None:
    Image.fromarray(pixels).save(path, "JPEG", quality=90)


def _varied(folder: Path, count: int) -> Iterable[Path]:
    """Yield pictures of many sizes, with up to six spots each."""
    folder.mkdir()
    random = np.random.default_rng(4)
    for number in range(count):
        width, height = (int(side) for side in random.integers(160, 400, 2))
        some = [
            Spot(SPOTS[random.integers(3)], *(random.random(2) * (width, height)))
            for _ in range(random.integers(7))
        ]
        path = folder / f"{number:03}.jpg"
        _save(scene(width, height, some, seed=number), path)
        yield path
