"""Reads a YOLO checkpoint's yaml against allowlists of modules, activations and numbers.

ultralytics looks up a yaml's modules in its globals and evaluates its activation, so an untrusted
yaml is code there. Here it is data: anything not on the lists is refused by name, and no library
receives the text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from visavis_export.checkpoints.pickled import shown
from visavis_export.errors import CheckpointError

# [from, repeats, module, arguments], as in models/yolov5*.yaml of ultralytics/yolov5.
Layer = Sequence[Any]

MODULES = (
    *("Conv", "Focus", "Bottleneck", "BottleneckCSP", "C3", "SPP", "SPPF"),
    *("nn.Upsample", "Concat", "Detect"),
)
ACTIVATIONS = ("SiLU", "ReLU", "LeakyReLU", "Hardswish", "Identity")
MAX_LAYERS = 200
MAX_REPEATS = 100
MAX_NUMBER = 1 << 14
# `inplace` does not change an activation's result.
_ACTIVATION = re.compile(
    r"(?:torch\.)?nn\.(\w{1,40})\((?:(?:negative_slope=)?(\d{1,2}(?:\.\d{1,9})?))?"
    r"(?:,? ?inplace=(?:True|False))?\)"
)
_WORDS = ("nc", "anchors", "None", "nearest", "bilinear")
_KEYS = (
    *("nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head", "activation"),
    # ultralytics': the multiples of every size, this model's size, and the file's name.
    *("ch", "channels", "scales", "scale", "yaml_file", "end2end", "reg_max"),
)


@dataclass(frozen=True, slots=True)
class Activation:
    """A function between layers: one of ACTIVATIONS. slope: LeakyReLU's, below zero."""

    name: str
    slope: float = 0.01


SILU = Activation("SiLU")


def read_description(yaml: object) -> dict[str, Any]:
    """Return a validated copy of a yaml.

    Keys: nc, depth_multiple, width_multiple, anchors, backbone, head, and activation, an
    Activation. Raises CheckpointError, naming the part, for anything unknown.
    """
    if not isinstance(yaml, dict):
        raise _unknown("the yaml", yaml, "a dict")
    for key in yaml:
        if key not in _KEYS:
            raise _unknown("the yaml's key", key, ", ".join(_KEYS))
    for key, known in {"ch": 3, "channels": 3, "end2end": False, "reg_max": 16}.items():
        if yaml.get(key, known) not in (known, None):
            raise _unknown(f"the yaml's {key}", yaml[key], str(known))
    depth, width = yaml.get("depth_multiple", 1.0), yaml.get("width_multiple", 1.0)
    if (scales := yaml.get("scales")) is not None:
        multiples = scales.get(yaml.get("scale")) if isinstance(scales, dict) else None
        if not isinstance(multiples, list | tuple) or len(multiples) != 3:
            raise _unknown("the yaml's scales", scales, "[depth, width, channels] of its scale")
        depth, width = multiples[:2]
    anchors = yaml.get("anchors", 3)
    return {
        "nc": _whole(yaml.get("nc"), "nc"),
        "depth_multiple": _number(depth, "depth_multiple"),
        "width_multiple": _number(width, "width_multiple"),
        "anchors": (
            [_numbers(scale, "anchors") for scale in _items(anchors, "anchors", 8)]
            if isinstance(anchors, list | tuple)
            else _whole(anchors, "anchors")
        ),
        "backbone": [_layer(row) for row in _items(yaml.get("backbone"), "backbone", MAX_LAYERS)],
        "head": [_layer(row) for row in _items(yaml.get("head"), "head", MAX_LAYERS)],
        "activation": read_activation(yaml.get("activation")),
    }


def read_activation(text: object) -> Activation:
    """Return the activation that a yaml spells as code, such as `nn.LeakyReLU(0.1)`; None: SiLU.

    Raises CheckpointError for activations not in ACTIVATIONS.
    """
    if text is None:
        return SILU
    spelt = _ACTIVATION.fullmatch(text) if isinstance(text, str) and len(text) < 100 else None
    if spelt is None or spelt[1] not in ACTIVATIONS or (spelt[2] and spelt[1] != "LeakyReLU"):
        known = ", ".join(f"nn.{name}()" for name in ACTIVATIONS)
        raise _unknown("the yaml's activation", text, known)
    return Activation(spelt[1], float(spelt[2])) if spelt[2] else Activation(spelt[1])


def _layer(row: object) -> Layer:
    if not isinstance(row, list | tuple) or len(row) != 4:
        raise _unknown("the yaml's layer", row, "[from, repeats, module, arguments]")
    source, repeats, module, arguments = row
    if module not in MODULES:
        raise _unknown("the yaml's module", module, ", ".join(MODULES))
    several = isinstance(source, list | tuple)
    sources = [_source(one) for one in _items(source if several else [source], "from", 8)]
    return [
        sources if several else sources[0],
        _whole(repeats, "repeats", MAX_REPEATS),
        module,
        [_argument(one) for one in _items(arguments, "arguments", 8)],
    ]


def _argument(value: object) -> Any:
    if value is None or isinstance(value, bool) or value in _WORDS:
        return value
    if isinstance(value, list | tuple):
        items = _items(value, "arguments", 8)
        if any(isinstance(one, list | tuple) for one in items):
            return [_numbers(one, "arguments") for one in items]
        return _numbers(items, "arguments")
    return _number(value, "argument")


def _source(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_LAYERS:
        raise _unknown("the yaml's from", value, "a layer's number, or -1 for the previous layer")
    return value


def _whole(value: object, part: str, most: int = MAX_NUMBER) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise _unknown(f"the yaml's {part}", value, f"1 to {most}")
    return value


def _number(value: object, part: str) -> int | float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not 0 <= value <= MAX_NUMBER:  # type: ignore[operator]
        raise _unknown(f"the yaml's {part}", value, f"numbers from 0 to {MAX_NUMBER}")
    return value  # type: ignore[return-value]


def _numbers(values: object, part: str) -> list[int | float]:
    return [_number(value, part) for value in _items(values, part, 64)]


def _items(values: object, part: str, most: int) -> Sequence[Any]:
    if not isinstance(values, list | tuple) or len(values) > most:
        raise _unknown(f"the yaml's {part}", values, f"a list of at most {most} items")
    return values


def _unknown(part: str, value: object, known: str) -> CheckpointError:
    text = repr(shown(value)) if isinstance(value, str) else shown(value)
    return CheckpointError(
        f"{part} is {text}, which is unknown (known: {known}); none of its code was run. "
        "Export a network with other parts to ONNX with its own project's code"
    )
