"""The ranges of tensors, on graphs small enough to calculate by hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from visavis_export.graphs.calibration import STEPS, least_error, measure_ranges, silu, silu_inputs


def save(path: Path, *weights: float) -> Path:
    """Write a graph that multiplies by each weight in turn, each time followed by a SiLU."""
    nodes, constants, name = [], [], "image"
    for index, weight in enumerate(weights):
        constants.append(from_array(np.full((1, 1, 1, 1), weight, np.float32), f"w{index}"))
        nodes += [
            make_node("Conv", [name, f"w{index}"], [f"conv{index}"], name=f"conv{index}"),
            make_node("Sigmoid", [f"conv{index}"], [f"sigmoid{index}"], name=f"sigmoid{index}"),
            make_node(
                "Mul", [f"conv{index}", f"sigmoid{index}"], [f"silu{index}"], name=f"m{index}"
            ),
        ]
        name = f"silu{index}"
    floats = TensorProto.FLOAT
    graph = make_graph(
        nodes,
        "silus",
        [make_tensor_value_info("image", floats, ["batch", 1, 4, 4])],
        [make_tensor_value_info(name, floats, ["batch", 1, 4, 4])],
        constants,
    )
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10), path)
    return path


def image(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 16, dtype=np.float32).reshape(1, 1, 4, 4)


def test_late_in_a_graph_the_range_covers_every_value(tmp_path: Path) -> None:
    graph = save(tmp_path / "graph.onnx", 1.0, 1.0)
    ranges = measure_ranges(graph, [image(0, 1), image(0, 50)], tmp_path)
    assert ranges["conv1"] == pytest.approx((0, 50))
    assert ranges["silu1"] == pytest.approx((0, 50))


def test_the_input_of_a_silu_has_a_range_down_to_minus_6(tmp_path: Path) -> None:
    graph = save(tmp_path / "graph.onnx", 1.0, -40.0)
    ranges = measure_ranges(graph, [image(0, 1)], tmp_path)
    assert ranges["conv1"] == pytest.approx((-6, 0))
    # What is already above stays as it is.
    graph = save(tmp_path / "graph.onnx", 1.0, -2.0)
    low, _ = measure_ranges(graph, [image(0, 1)], tmp_path)["conv1"]
    assert low == pytest.approx(-2 * silu(np.array(1.0)))


def test_the_graphs_input_keeps_its_whole_range(tmp_path: Path) -> None:
    ranges = measure_ranges(save(tmp_path / "graph.onnx", 1.0, 1.0), [image(0, 1)], tmp_path)
    assert ranges["image"] == (0.0, 1.0)


def test_one_stray_value_does_not_widen_an_early_range() -> None:
    values = np.append(np.random.default_rng(0).normal(0, 1, 1_000_000), 20).astype(np.float32)
    low, high = least_error(values, (float(values.min()), 20.0))
    assert high < 12
    assert low < -3


def test_even_values_use_the_whole_range() -> None:
    values = np.random.default_rng(0).uniform(-2, 6, 100_000).astype(np.float32)
    low, high = least_error(values, (-2.0, 6.0))
    assert (low, high) == (-2.0, 6.0)


def test_the_error_is_measured_after_the_function() -> None:
    values = np.random.default_rng(0).uniform(-60, 6, 100_000).astype(np.float32)
    low, high = least_error(values, (-60.0, 6.0), silu)
    assert -12 < low < -3
    assert high == 6

    def error(bottom: float) -> float:
        step = (high - bottom) / STEPS
        rounded = np.clip(np.round(values / step), np.round(bottom / step), None) * step
        return float(np.mean((silu(rounded) - silu(values.astype(float))) ** 2))

    assert error(low) < error(-60.0) / 10


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_a_constant_tensor_has_a_range(value: float) -> None:
    low, high = least_error(np.full(100, value, np.float32), (value, value))
    assert low <= value <= high or value == 0


def test_a_product_with_another_sigmoid_is_not_a_silu(tmp_path: Path) -> None:
    model = onnx.load(save(tmp_path / "graph.onnx", 1.0))
    assert silu_inputs(model) == {"conv0": "silu0"}
    model.graph.node[2].input[0] = "image"
    assert silu_inputs(model) == {}
