"""Finds in a graph what class activation maps are computed from: the weights of its last layer."""

from pathlib import Path

import onnx

from visavis_export.errors import ExportError
from visavis_server.card import ClassScores, ModelDocument


def with_activation(document: ModelDocument, path: Path) -> ModelDocument:
    """Return the document of a graph with the names of the initializers for heat maps.

    The weights of a variant may have other names than those of its fp32 graph. Raises ExportError
    if the last layer is not linear.
    """
    output = document.output
    if not isinstance(output, ClassScores) or output.activation is None:
        return document
    graph = onnx.load(path).graph
    producers = {name: node for node in graph.node for name in node.output}
    layer = producers[output.tensor]
    while layer.op_type == "Cast":
        layer = producers[layer.input[0]]
    transposed = any(each.name == "transB" and each.i for each in layer.attribute)
    if layer.op_type != "Gemm" or not transposed:
        raise ExportError(f"the last layer of {document.name} is a {layer.op_type}, not linear")
    weights, scales = layer.input[1], ""
    if dequantized := producers.get(weights):
        weights, scales = dequantized.input[0], dequantized.input[1]
    activation = output.activation.model_copy(update={"weights": weights, "scales": scales})
    return document.model_copy(
        update={"output": output.model_copy(update={"activation": activation})}
    )
