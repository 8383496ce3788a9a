"""Runs an exported file through the server's own code."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from visavis_export.families.original import Found
from visavis_export.graphs.activation import with_activation
from visavis_server.arrays import Image, Tensor
from visavis_server.card import (
    ModelDocument,
    explanation_constants,
    graph_outputs,
    output_names,
)
from visavis_server.models.onnx_file import read_constants
from visavis_server.runtime.providers import CPU, SessionConfig
from visavis_server.runtime.session import Session
from visavis_server.vision.families import family_of, preprocess_one
from visavis_server.vision.heat_maps import Explain, HeatMap
from visavis_server.vision.results import (
    Classified,
    ClassifyOptions,
    Detected,
    DetectOptions,
    Options,
)


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A graph in a session, with the document that describes its input and output.

    constants: the graph's initializers that heat maps need.
    """

    document: ModelDocument
    session: Session
    constants: Sequence[Tensor] = field(default=(), repr=False)

    def run(self, image: Image) -> tuple[list[Tensor], Any]:
        """Return the raw outputs and the geometry that the family's postprocess needs."""
        tensor, geometry = preprocess_one(family_of(self.document), image)
        return self.session.run(tensor, output_names(self.document)), geometry

    def run_all(self, image: Image) -> tuple[list[Tensor], Any]:
        """Return all outputs of the graph, those for heat maps last, and the geometry."""
        tensor, geometry = preprocess_one(family_of(self.document), image)
        return self.session.run(tensor, graph_outputs(self.document)), geometry

    def outputs(self, image: Image, names: list[str]) -> list[Tensor]:
        """Return some of the graph's outputs."""
        tensor, _ = preprocess_one(family_of(self.document), image)
        return self.session.run(tensor, names)

    def answer(self, image: Image, options: Options) -> Classified | Detected:
        """Return the answer for an image, uint8 RGB [H, W, 3]."""
        outputs, geometry = self.run(image)
        return family_of(self.document).postprocess(
            outputs, geometry, options.of(self.document.task)
        )

    def explain(self, image: Image) -> HeatMap:
        """Return the heat map of the best label for an image, uint8 RGB [H, W, 3]."""
        explain = Explain()
        options = Options(ClassifyOptions(explain=explain), DetectOptions(explain=explain))
        chosen, family = options.of(self.document.task), family_of(self.document)
        outputs, geometry = self.run_all(image)
        answer = family.postprocess(outputs[: len(output_names(self.document))], geometry, chosen)
        return family.explain([*outputs, *self.constants], geometry, answer, chosen)


def open_file(draft: ModelDocument, graph: Path, config: SessionConfig) -> ServedFile:
    """Open a graph with the draft of its document, completed by what heat maps need from it."""
    document = with_activation(draft, graph)
    with graph.open("rb") as file:
        constants = read_constants(file, explanation_constants(document), graph)
    return ServedFile(document, Session(graph, CPU, config), constants)


def found(answer: Detected) -> Found:
    """Return a detector's answer in the form that the originals use."""
    boxes = [(d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max) for d in answer.detections]
    return Found(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([d.score for d in answer.detections], np.float32),
        np.array([d.class_id for d in answer.detections], np.int64),
    )
