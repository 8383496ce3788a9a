"""What is wrong with a graph is found, named, and placed in the right stage."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from visavis_export.verification.outcome import Stage

from . import graphs
from .conftest import Exported

# ultralytics' export emits warnings.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_ultralytics_own_export_is_the_same(exported: Exported, tmp_path: Path) -> None:
    outcome = exported.verified(tmp_path)
    assert outcome.same and outcome.begins is None and outcome.findings == ()
    assert outcome.declared == "its metadata"
    assert "YOLOv5nu" in outcome.original
    for picture in outcome.pictures:
        assert picture.levels == 0
        assert 0 < picture.stages[Stage.GRAPH].score < 1e-4
        assert picture.answers.both > 5 and picture.answers.same


@pytest.mark.parametrize(
    ("change", "mistakes"),
    [
        (graphs.divides, ["graph divides"]),
        (graphs.multiplies, ["graph multiplies"]),
        (graphs.normalises, ["graph normalises"]),
        (graphs.swaps, ["graph swaps"]),
        (graphs.swaps_and_divides, ["graph swaps", "graph divides"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_graph_does_to_its_input_is_named(
    exported: Exported, tmp_path: Path, change: graphs.Change, mistakes: list[str]
) -> None:
    outcome = exported.verified(tmp_path, exported.changed(tmp_path / "changed.onnx", change))
    assert not outcome.same
    assert outcome.begins is Stage.GRAPH
    assert [one.mistake for one in outcome.findings] == mistakes
    assert all(picture.stages[Stage.PREPROCESSING].same for picture in outcome.pictures)
    assert all(picture.stages[Stage.POSTPROCESSING].same for picture in outcome.pictures)


def test_one_damaged_layer_is_named(exported: Exported, tmp_path: Path) -> None:
    def damage(number: int, weights: np.ndarray) -> np.ndarray:
        if number == 7:
            weights[0] *= 1.5
        return weights

    file = exported.changed(
        tmp_path / "damaged.onnx", lambda model: graphs.with_weights(model, damage)
    )
    outcome = exported.verified(tmp_path, file)
    (finding,) = outcome.findings
    assert outcome.begins is Stage.GRAPH and finding.mistake == "some weights"
    # The eighth convolution: layers 0 and 1, then C3's cv1, m.0.cv1, m.0.cv2, cv2, cv3, then 3.
    assert "the weights of 1 of" in finding.says
    assert "model.3.conv" in finding.says and "by 0.5 of" in finding.says


def test_other_weights_everywhere_are_another_training(exported: Exported, tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def noise(number: int, weights: np.ndarray) -> np.ndarray:
        return weights * (1 + random.normal(0, 0.05, weights.shape))

    file = exported.changed(
        tmp_path / "other.onnx", lambda model: graphs.with_weights(model, noise)
    )
    (finding,) = exported.verified(tmp_path, file).findings
    assert finding.mistake == "other weights"
    assert "from model.0.conv" in finding.says


def test_a_layer_that_computes_something_else_is_named(exported: Exported, tmp_path: Path) -> None:
    def dilate(model: onnx.ModelProto) -> None:
        third = [node for node in model.graph.node if node.op_type == "Conv"][4]
        for attribute in third.attribute:
            if attribute.name == "pads":
                attribute.CopyFrom(helper.make_attribute("pads", [2, 2, 2, 2]))
            if attribute.name == "dilations":
                attribute.CopyFrom(helper.make_attribute("dilations", [2, 2]))

    outcome = exported.verified(tmp_path, exported.changed(tmp_path / "dilated.onnx", dilate))
    (finding,) = outcome.findings
    assert finding.mistake == "operators"
    assert "model.2.m.0.cv2.conv" in finding.says


def test_classes_in_another_order_are_named(exported: Exported, tmp_path: Path) -> None:
    order = np.array([0, 1, 2, 3, *(4 + k for k in (1, 0, *range(2, 80)))], np.int64)
    file = exported.changed(
        tmp_path / "order.onnx", lambda model: graphs.last(model, "Gather", order, axis=1)
    )
    (finding,) = exported.verified(tmp_path, file).findings
    assert finding.mistake == "class order"
    assert "class 1 is the original's class 0" in finding.says


def test_boxes_as_fractions_are_named(exported: Exported, tmp_path: Path) -> None:
    scale = np.array([1 / 320] * 4 + [1] * 80, np.float32).reshape(1, 84, 1)
    file = exported.changed(
        tmp_path / "fractions.onnx", lambda model: graphs.last(model, "Mul", scale)
    )
    assert [one.mistake for one in exported.verified(tmp_path, file).findings] == ["fractions"]


def test_nan_is_named(exported: Exported, tmp_path: Path) -> None:
    file = exported.changed(tmp_path / "nan.onnx", lambda model: graphs.last(model, "Sqrt"))
    outcome = exported.verified(tmp_path, file)
    assert [one.mistake for one in outcome.findings] == ["not finite"]


def test_half_precision_is_the_same_within_what_it_gives(
    exported: Exported, tmp_path: Path
) -> None:
    half = convert_float_to_float16(onnx.load(exported.file), keep_io_types=True)
    onnx.save(half, tmp_path / "half.onnx")
    outcome = exported.verified(tmp_path, tmp_path / "half.onnx")
    assert outcome.precision == "fp16"
    assert any("weights are fp16" in note for note in outcome.notes)
    assert max(one.stages[Stage.GRAPH].score for one in outcome.pictures) > 1e-5
    assert outcome.findings == ()


def test_damaged_weights_are_found_in_half_precision_too(
    exported: Exported, tmp_path: Path
) -> None:
    def damage(number: int, weights: np.ndarray) -> np.ndarray:
        return weights * (1.5 if number == 3 else 1)

    changed = exported.changed(
        tmp_path / "damaged.onnx", lambda model: graphs.with_weights(model, damage)
    )
    half = convert_float_to_float16(onnx.load(changed), keep_io_types=True)
    onnx.save(half, tmp_path / "half.onnx")
    (finding,) = exported.verified(tmp_path, tmp_path / "half.onnx").findings
    assert finding.mistake == "some weights" and "model.2.m.0.cv1" in finding.says


def test_a_file_of_another_network_is_called_one(exported: Exported, tmp_path: Path) -> None:
    def cut(model: onnx.ModelProto) -> None:
        """Keep only the first convolution, and give constant rows."""
        rows = np.zeros((1, 84, 2100), np.float32)
        del model.graph.node[1:]
        model.graph.initializer.append(numpy_helper.from_array(rows, "rows"))
        output = model.graph.output[0].name
        model.graph.node.append(helper.make_node("Identity", ["rows"], [output]))

    outcome = exported.verified(tmp_path, exported.changed(tmp_path / "cut.onnx", cut))
    (finding,) = outcome.findings
    assert finding.mistake == "other network"
