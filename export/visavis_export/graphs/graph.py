"""Exports PyTorch modules as ONNX graphs, and embeds documents in them.

Pre-processing, most of YOLOv5's heads and the decoding of its boxes are not part of the graph;
README, "What is in the graph", gives the measurements.
"""

import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from visavis_export.errors import ExportError
from visavis_server.card import METADATA_KEY, ModelDocument, graph_outputs
from visavis_server.models.onnx_file import metadata_bytes, read_onnx_file

# The newest opset that every execution provider supports: CUDA's lacks Resize-19.
OPSET = 18


def write_graph(module: nn.Module, document: ModelDocument, path: Path) -> None:
    """Write a module in evaluation mode as an ONNX graph.

    Only the batch size is dynamic; if the input's size varies, only its height and width are.
    document: names the input, its size and the outputs. Raises ExportError if PyTorch can't
    export the module.
    """
    example = torch.zeros(2, 3, document.input.height, document.input.width)
    dynamic = {0: torch.export.Dim("batch", min=1)}
    if document.input.varies:
        example = example[:1]
        dynamic = {2: torch.export.Dim("height", min=1), 3: torch.export.Dim("width", min=1)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's exporter uses deprecated parts of PyTorch
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=[document.input.tensor],
                output_names=graph_outputs(document),
                dynamic_shapes=(dynamic,),
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"PyTorch can't export {document.name}: {error}") from error
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def embed(document: ModelDocument, graph: Path, target: Path) -> ModelDocument:
    """Write a graph with its document as `target`; returns the document with the digest."""
    document = document.model_copy(update={"digest": read_onnx_file(graph).digest})
    # Appended metadata leaves the bytes that the digest covers unchanged.
    target.write_bytes(
        graph.read_bytes() + metadata_bytes({METADATA_KEY: document.model_dump_json()})
    )
    return document


def _strip(model: onnx.ModelProto) -> None:
    """Remove debugging information, which includes paths of the exporting machine."""
    del model.metadata_props[:]
    model.doc_string = ""
    for part in (model.graph, *model.functions):
        part.doc_string = ""
        for entry in (*part.node, *part.value_info):
            entry.doc_string = ""
            del entry.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
