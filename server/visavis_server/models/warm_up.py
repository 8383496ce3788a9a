"""Verifies at load that a graph and its document match, and that every session computes right."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from visavis_server.arrays import Tensor
from visavis_server.card import (
    ClassScores,
    FasterRcnnRows,
    ModelDocument,
    RetinanetHeads,
    Yolov5Heads,
    graph_outputs,
    output_names,
)
from visavis_server.errors import ModelFileError
from visavis_server.models import golden
from visavis_server.runtime.session import Session, Sessions
from visavis_server.vision.families import Family, family_of, preprocess_one
from visavis_server.vision.results import Options


def warm_up(
    document: ModelDocument,
    sessions: Sessions,
    batch: int,
    where: str,
    constants: Sequence[Tensor] = (),
    *,
    bf16: bool = False,
) -> None:
    """Run a batch of golden pictures through every session and verify the outputs.

    batch: the plan's largest batch. where: the file, for errors. constants: the initializers that
    heat maps need. bf16: the sessions compute in bfloat16, so the tolerance is wider. Raises
    ModelFileError if the graph and the document don't match, or if an output differs from the
    golden sample.
    """
    session, family = sessions.first, family_of(document)
    if missing := set(graph_outputs(document)) - set(session.output_shapes):
        raise ModelFileError(f"{where}: the graph has no output {', '.join(missing)}")
    tensor, _ = preprocess_one(family, golden.picture())
    for expected, actual in zip(session.input_shape, tensor.shape, strict=True):
        if expected not in (None, actual):
            raise ModelFileError(
                f"{where}: the graph's input is {session.input_shape}, but its document says "
                f"{list(tensor.shape)}"
            )
    tolerance = golden.BF16_TOLERANCE if bf16 else 0.0
    # The sessions keep this check. It must not hold the engine, which holds the sessions: the
    # cycle would keep the weights in memory until a garbage collection.
    sessions.check(partial(_check, document, family, constants, tolerance, where), batch)


def _check(
    document: ModelDocument,
    family: Family,
    constants: Sequence[Tensor],
    tolerance: float,
    where: str,
    session: Session,
    images: int,
) -> None:
    """Raise ModelFileError unless a session gives the expected outputs for golden pictures.

    images: the number of pictures in the batch.
    """
    names, count = graph_outputs(document), len(output_names(document))
    tensor, geometry = preprocess_one(family, golden.picture())
    # give_back: an idle model keeps little more than its weights in memory.
    outputs = session.run(np.repeat(tensor, images, axis=0), names, give_back=True)
    for output in outputs:
        if len(output) != images:
            advice = "a fixed batch of 1 or with a dynamic batch"
            raise ModelFileError(
                f"{where}: the graph returns {len(output)} outputs for "
                + ("one image" if images == 1 else f"{images} images; export it with {advice}")
            )
    classes, labels = _class_count(document, outputs), len(document.label_set.labels)
    if classes not in (None, labels):
        raise ModelFileError(
            f"{where}: the graph has {classes} classes, but its document has {labels} labels"
        )
    if constants:
        _require_activation(outputs[-1], constants, labels, where)
    for image in range(images):
        own = [output[image : image + 1] for output in outputs]
        if document.golden_sample is not None:
            golden.check(document.golden_sample, names, own, where, tolerance)
        family.postprocess(own[:count], geometry, Options().of(document.task))


def _require_activation(
    features: Tensor, constants: Sequence[Tensor], labels: int, where: str
) -> None:
    """Raise ModelFileError unless the features and the weights of the last layer fit together."""
    weights, *scales = constants
    channels = features.shape[1] if features.ndim == 4 else None
    if weights.shape != (labels, channels) or any(each.shape != (labels,) for each in scales):
        raise ModelFileError(
            f"{where}: its class activation maps don't fit together: features "
            f"{list(features.shape)}, weights {list(weights.shape)}, {labels} labels; export the "
            "model again"
        )


def _class_count(document: ModelDocument, outputs: list[Tensor]) -> int | None:
    """Return the number of classes that the outputs imply; None if their shapes don't show it."""
    output, shape = document.output, outputs[0].shape
    if isinstance(output, ClassScores):
        return shape[1]
    if isinstance(output, Yolov5Heads):
        return outputs[-1].shape[1] // len(output.anchors[0]) - 5
    if isinstance(output, RetinanetHeads):
        return shape[1] // len(output.anchors[0])
    if isinstance(output, FasterRcnnRows):
        return outputs[1].shape[2]
    row = {"yolov5_rows": shape[2] - 5, "ultralytics_rows": shape[1] - 4}
    return row.get(output.layout)
