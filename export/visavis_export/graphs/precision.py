"""Converts an fp32 graph to fp16 or int8.

int8 is static QDQ: activations uint8, weights int8 with a scale per output channel. README,
"Precision", compares the alternatives.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorData,
    TensorsData,
)
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from visavis_export.graphs.calibration import measure_ranges, silu_inputs
from visavis_export.graphs.rounding import round_together
from visavis_server.arrays import Tensor

PRECISIONS = ("fp32", "fp16", "int8")

_QUANTIZED = ["Add", "Concat", "Conv", "Gemm", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid"]
# Convolutions at the start of a SiLU network that stay fp32: on the largest maps with the fewest
# channels, integers save no time, and SiLU in integers is slowest.
_STEM = 2


def write_fp16(graph: Path, target: Path) -> None:
    """Write an fp32 graph with fp16 weights and arithmetic; its input and outputs stay fp32.

    A GPU casts them faster than the CPU could before the transfer.
    """
    model = onnx.load(graph)
    model = convert_float_to_float16(
        model,
        keep_io_types=True,
        # GPUs support fp16 Resize; keeping it in fp32 would cost two casts.
        op_block_list=[op for op in DEFAULT_OP_BLOCK_LIST if op != "Resize"],
        # A detector decodes coordinates, and fp16 has whole pixels only up to 2,048.
        node_block_list=sorted(_decoding(model)),
    )
    _tidy(model)
    target.write_bytes(model.SerializeToString())


def _tidy(model: onnx.ModelProto) -> None:
    """Remove duplicate casts and casts to fp16 and straight back; sort the nodes.

    The converter adds one cast per reader, and casts between fp32 nodes that follow each other.
    """
    nodes = {node.name: node for node in model.graph.node}
    casts = {node.output[0]: node for node in nodes.values() if node.op_type == "Cast"}
    outputs = {output.name for output in model.graph.output}
    renamed: dict[str, str] = {}
    for name, node in casts.items():
        before = casts.get(node.input[0])
        if before is not None and before.name.endswith("_cast_to_fp16_node"):
            source = before.input[0]
            renamed |= {source: name} if name in outputs else {name: source}
            del nodes[node.name]
    for node in nodes.values():
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    used = {name for node in nodes.values() for name in node.input} | outputs
    del model.graph.node[:]
    model.graph.node.extend(node for node in nodes.values() if used & set(node.output))
    OnnxModel(model).topological_sort()


def _decoding(model: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes that decode a detector's boxes; empty if there are none.

    They are the nodes between its last activations and its outputs.
    """
    outputs = {output.name for output in model.graph.output}
    ends = {node.op_type for node in model.graph.node if outputs & set(node.output)}
    return set() if "Gemm" in ends or ends <= {"Conv"} else _head(model)


def write_int8(graph: Path, inputs: Iterable[Tensor], target: Path) -> int:
    """Write an fp32 graph as int8; returns the number of convolutions that stay fp32.

    inputs: real pictures, pre-processed, [1, 3, height, width] each.

    The nodes after a detector's last activations stay fp32: boxes and scores need more than 256
    steps.
    """
    inputs = list(inputs)
    model, fp32 = onnx.load(graph), onnx.load(graph)
    kept = _stem(model) | _head(model)
    with tempfile.TemporaryDirectory(prefix="visavis-calibration-") as folder:
        ranges = measure_ranges(graph, inputs, Path(folder))
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(
                CalibrationMethod.MinMax,
                {
                    name: TensorData(lowest=np.float32(low), highest=np.float32(high))
                    for name, (low, high) in ranges.items()
                },
            ),
            nodes_to_quantize=[],
            nodes_to_exclude=sorted(kept),
            op_types_to_quantize=_QUANTIZED,
            # Quantizing the logits would save nothing: no node reads them.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
        quantizer.quantize_model()
        int8 = quantizer.model.model
        OnnxModel(int8).topological_sort()
        round_together(fp32, int8, inputs, Path(folder))
    target.write_bytes(int8.SerializeToString())
    return sum(node.op_type == "Conv" and node.name in kept for node in fp32.graph.node)


def _stem(model: onnx.ModelProto) -> set[str]:
    """Return the names of the first _STEM convolutions and their SiLUs; empty without SiLUs."""
    silus = silu_inputs(model)
    first = [n.output[0] for n in model.graph.node if n.op_type == "Conv"][:_STEM]
    if not silus.keys() >= set(first):
        return set()
    inside = {*first, *(silus[name] for name in first)}
    return {
        node.name
        for node in model.graph.node
        if inside & set(node.output) or (node.op_type == "Sigmoid" and node.input[0] in inside)
    }


def _head(model: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes after the last activations, Relu or SiLU, of all branches.

    Excludes a classifier's Gemm, which is int8 except for its output.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    activations = {n.output[0] for n in model.graph.node if n.op_type == "Relu"}
    activations |= set(silu_inputs(model).values())
    head: set[str] = set()
    tensors = [output.name for output in model.graph.output]
    while tensors:
        name = tensors.pop()
        node = producers.get(name)
        if node is not None and name not in activations and node.name not in head:
            if node.op_type != "Gemm":
                head.add(node.name)
            tensors.extend(node.input)
    return head
