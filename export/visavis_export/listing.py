"""The models that can be exported, with their sizes."""

from collections.abc import Iterator, Mapping
from typing import Final

from visavis_export.errors import InvalidOption
from visavis_server.errors import correction

# Millions of parameters, as torchvision's documentation and the model tables of ultralytics/yolov5
# v7.0 and ultralytics give them.
PARAMETERS: Final[Mapping[str, Mapping[str, float]]] = {
    "ResNet, classification": {
        "resnet18": 11.7,
        "resnet34": 21.8,
        "resnet50": 25.6,
        "resnet101": 44.5,
        "resnet152": 60.2,
    },
    "YOLOv5, detection": {
        "yolov5n": 1.9,
        "yolov5s": 7.2,
        "yolov5m": 21.2,
        "yolov5l": 46.5,
        "yolov5x": 86.7,
    },
    "YOLOv5 at 1280 px, detection": {
        "yolov5n6": 3.2,
        "yolov5s6": 12.6,
        "yolov5m6": 35.7,
        "yolov5l6": 76.8,
        "yolov5x6": 140.7,
    },
    "YOLOv5, classification": {
        "yolov5n-cls": 2.5,
        "yolov5s-cls": 5.4,
        "yolov5m-cls": 12.9,
        "yolov5l-cls": 26.5,
        "yolov5x-cls": 48.1,
    },
    "YOLOv5u, detection": {
        "yolov5nu": 2.6,
        "yolov5su": 9.1,
        "yolov5mu": 25.1,
        "yolov5lu": 53.2,
        "yolov5xu": 97.2,
    },
    "torchvision, detection": {
        "retinanet_resnet50_fpn": 34.0,
        "retinanet_resnet50_fpn_v2": 38.2,
        "fasterrcnn_resnet50_fpn": 41.8,
        "fasterrcnn_resnet50_fpn_v2": 43.7,
    },
}
OF_ANY_SIZE: Final = ("yolov5", "yolov5-cls")
"""Names for checkpoints of other sizes than the published ones."""

NAMES: Final = (*(name for sizes in PARAMETERS.values() for name in sizes), *OF_ANY_SIZE)
"""Every name that can be exported."""


def require_known(name: str) -> None:
    """Raise InvalidOption, with the closest name, unless a name can be exported."""
    if name not in NAMES:
        raise InvalidOption(
            f"{name!r} is not a known model{correction(name, NAMES)}; `visavis export` lists them "
            "all"
        )


def listing() -> Iterator[str]:
    """Yield the lines of the list."""
    yield "Models, with their parameters in millions (an fp32 file has 4 bytes for each):"
    for family, sizes in PARAMETERS.items():
        yield f"\n{family}"
        yield from (f"  {name:<28}{millions:>6.1f}" for name, millions in sizes.items())
    yield f"\nCheckpoints of other sizes: {', '.join(OF_ANY_SIZE)}, with --weights FILE."
    yield "To begin: visavis export resnet50 yolov5n"
