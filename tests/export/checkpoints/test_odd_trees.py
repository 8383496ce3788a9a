"""Checkpoints with one unexpected value in their pickled tree: read, or refused with an error."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from visavis_export import exporter
from visavis_export.checkpoints import checkpoint
from visavis_export.checkpoints.archive import read_archive
from visavis_export.checkpoints.pickled import Inert, Name, Storage, StoredTensor
from visavis_export.errors import ExportError
from visavis_export.exporter import Request

from .. import originals


def odd_values() -> list[Any]:
    """Return values to put anywhere: wrong types, wrong numbers, names, empty containers."""
    zeros = StoredTensor(Storage(torch.float32, 4, bytearray(16)), 0, (4,), (1,))
    return [
        *(None, True, False, -1, 0, 1, 7, 1 << 40, -(1 << 70), 0.5, float("nan"), -1e300),
        *("", "x", "\x1b[31m\r\n" * 50, "A" * 100_000, b"bytes", [], [[]], {}, {"a": {}}, ()),
        *((1, (2,)), [-1], [None], ["nc"], zeros, Name("os.system")),
        *(Inert("models.common.Conv"), Inert("torch.nn.modules.linear.Linear", (), None)),
    ]


def places(part: Any, seen: set[int]) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key of a tree."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, Inert):
        yield from places(part.state, seen)
    elif isinstance(part, dict | list):
        for key in list(part) if isinstance(part, dict) else range(len(part)):
            yield part, key
            yield from places(part[key], seen)


@pytest.mark.parametrize("kind", ["v6.0", "v5.0", "fused", "classifier"])
def test_an_odd_value_anywhere_is_no_traceback(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml = originals.yaml_of_5_0((0.33, 0.125)) if kind == "v5.0" else originals.small_yaml()
    model: Any = originals.DetectionModel(yaml)
    if kind == "fused":
        originals.fuse(model)
    if kind == "classifier":
        model = originals.ClassificationModel(model, 3, cutoff=7)
    name = "yolov5-cls" if kind == "classifier" else "yolov5"
    path = originals.save(model, tmp_path / "best.pt", opt={"imgsz": 64})
    request = Request(name, tmp_path / "out", weights=str(path))
    root = read_archive(path).content
    monkeypatch.setattr(checkpoint, "read_checkpoint", lambda _: root)
    everywhere, values = list(places(root, set())), odd_values()
    chance = random.Random(5)
    read = refused = 0
    for part, key in chance.sample(everywhere, 60):
        was, part[key] = part[key], chance.choice(values)
        try:
            exporter._original(request, Progress(disable=True))
        except ExportError as error:
            refused += str(error).isprintable() and len(str(error)) < 800
        else:
            read += 1
        part[key] = was
    assert read + refused == 60
    assert refused > 20
    exporter._original(request, Progress(disable=True))


def test_widths_that_are_not_numbers_are_an_error(tmp_path: Path) -> None:
    model = originals.DetectionModel(originals.small_yaml())
    vars(model.get_submodule("model.1.conv"))["out_channels"] = (1, 2)
    path = originals.save(model, tmp_path / "best.pt")
    with pytest.raises(ExportError, match=r"has out_channels = \(1, 2\)"):
        exporter._original(Request("yolov5", tmp_path, weights=str(path)), Progress(disable=True))
