"""Changes of a graph, each a mistake that exports really have."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

Change = Callable[[onnx.ModelProto], None]
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)


def first(model: onnx.ModelProto, *steps: tuple[str, np.ndarray]) -> None:
    """Put operators before the network: (operator, second operand)."""
    name = model.graph.input[0].name
    current, nodes = name, []
    for index, (operator, operand) in enumerate(steps):
        constant = f"first_constant_{index}"
        model.graph.initializer.append(numpy_helper.from_array(operand, constant))
        attributes = {"axis": 1} if operator == "Gather" else {}
        nodes.append(
            helper.make_node(operator, [current, constant], [f"first_{index}"], **attributes)
        )
        current = f"first_{index}"
    for node in model.graph.node:
        node.input[:] = [current if one == name else one for one in node.input]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def last(model: onnx.ModelProto, operator: str, *operands: np.ndarray, **attributes: int) -> None:
    """Put an operator after the network."""
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before_last" if one == output else one for one in node.output]
    names = []
    for index, operand in enumerate(operands):
        names.append(f"last_constant_{index}")
        model.graph.initializer.append(numpy_helper.from_array(operand, names[-1]))
    model.graph.node.append(
        helper.make_node(operator, ["before_last", *names], [output], **attributes)
    )


def scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def divides(model: onnx.ModelProto) -> None:
    first(model, ("Div", scalar(255)))


def multiplies(model: onnx.ModelProto) -> None:
    first(model, ("Mul", scalar(255)))


def normalises(model: onnx.ModelProto) -> None:
    first(model, ("Sub", MEAN), ("Div", STD))


def swaps(model: onnx.ModelProto) -> None:
    first(model, ("Gather", np.array([2, 1, 0], np.int64)))


def swaps_and_divides(model: onnx.ModelProto) -> None:
    first(model, ("Gather", np.array([2, 1, 0], np.int64)), ("Div", scalar(255)))


def with_weights(model: onnx.ModelProto, change: Callable[[int, np.ndarray], np.ndarray]) -> None:
    """Change the weights of convolutions; change: takes the layer's number and its weights."""
    constants = {one.name: one for one in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    for number, node in enumerate(layers):
        tensor = constants[node.input[1]]
        changed = change(number, numpy_helper.to_array(tensor).copy())
        tensor.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), tensor.name))
