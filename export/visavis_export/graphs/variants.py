"""Variants of a model: the same weights in another precision."""

from pathlib import Path

from visavis_export.graphs.precision import write_fp16, write_int8
from visavis_export.pictures.files import read_image
from visavis_export.pictures.labelled import Pictures
from visavis_server.card import ModelDocument
from visavis_server.vision.families import family_of, preprocess_one


def convert(
    draft: ModelDocument, precision: str, graph: Path, target: Path, real: Pictures | None
) -> ModelDocument:
    """Write the fp32 graph in a precision as `target`; returns the draft of its document.

    real: the pictures to calibrate with; required for int8.
    """
    if precision == "fp32":
        target.write_bytes(graph.read_bytes())
        return draft
    if precision == "fp16":
        write_fp16(graph, target)
        conversion = "fp16 weights and arithmetic, fp32 input and output"
    else:
        assert real is not None
        family = family_of(draft)
        images = (read_image(path.name, path.read_bytes()) for path in real.calibration)
        inputs = (preprocess_one(family, image)[0] for image in images)
        kept = write_int8(graph, inputs, target)
        conversion = (
            "static QDQ, int8 weights by channel, uint8 activations, calibrated with "
            f"{len(real.calibration)} of the {real.total} pictures in {real.name}"
            + (f"; {kept} convolutions, the first and the last, are fp32" if kept else "")
        )
    provenance = draft.provenance.model_copy(update={"conversion": conversion})
    return draft.model_copy(
        update={
            "name": variant_name(draft.name, precision),
            "precision": precision,
            "variant_of": draft.name,
            "provenance": provenance,
        }
    )


def variant_name(name: str, precision: str) -> str:
    """Return the name of a model's variant, such as `resnet50-int8`; fp32 keeps the name."""
    return name if precision == "fp32" else f"{name}-{precision}"
