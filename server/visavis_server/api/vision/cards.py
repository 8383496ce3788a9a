"""Cards of models as messages of VisionService."""

from collections.abc import Sequence

from visavis.v1 import vision_pb2 as pb

from visavis_server.card import Facts, ModelDocument, Receipt, Task
from visavis_server.models.served_model import ServedModel

TASKS = {
    Task.CLASSIFICATION: pb.TASK_CLASSIFICATION,
    Task.OBJECT_DETECTION: pb.TASK_OBJECT_DETECTION,
}
"""Tasks by their numbers on the wire."""


def model_card(model: ServedModel, versions: Sequence[int], whole: bool) -> pb.Model:
    """Return a model's card as a message.

    versions: all that are served under the model's name. whole: include labels and receipt.
    """
    document = model.document
    message = pb.Model(
        name=model.name,
        version=model.version,
        versions=versions,
        tasks=[TASKS[document.task]],
        precision=model.served_by.precision,
        variant_of=document.variant_of or "",
        execution_provider=model.served_by.execution_provider,
        random_weights=document.provenance.random_weights,
        facts=_facts(document.facts),
        label_set=pb.LabelSet(
            name=document.label_set.name,
            size=len(document.label_set.labels),
            labels=document.label_set.labels if whole else (),
        ),
        input=pb.ModelInput(
            width=document.input.width,
            height=document.input.height,
            resize=document.input.describe_resize(),
        ),
        provenance=_provenance(document),
        verification=pb.Verification(
            digest=model.verification.digest,
            golden_sample=model.verification.golden_sample,
        ),
    )
    if defaults := document.detection_defaults:
        message.detection_defaults.CopyFrom(pb.DetectionDefaults(**defaults.model_dump()))
    if document.accuracy is not None:
        message.accuracy.CopyFrom(pb.Accuracy(**document.accuracy.model_dump()))
    if whole and document.receipt is not None:
        message.receipt.CopyFrom(_receipt(document.receipt))
    return message


def _facts(facts: Facts) -> pb.ModelFacts:
    return pb.ModelFacts(**facts.model_dump())


def _provenance(document: ModelDocument) -> pb.Provenance:
    provenance = document.provenance
    return pb.Provenance(
        weights_source=provenance.weights_source,
        weights_sha256=provenance.weights_sha256 or "",
        exporter=provenance.exporter,
        exported_at=provenance.exported_at.isoformat() if provenance.exported_at else "",
        libraries=provenance.libraries,
        conversion=provenance.conversion,
    )


def _receipt(receipt: Receipt) -> pb.Receipt:
    return pb.Receipt(
        made_at=receipt.made_at.isoformat(),
        score_tolerance=receipt.score_tolerance or 0,
        box_tolerance_px=receipt.box_tolerance_px or 0,
        max_score_difference=receipt.max_score_difference,
        max_box_difference_px=receipt.max_box_difference_px,
        heat_map_tolerance=receipt.heat_map_tolerance or 0,
        max_heat_map_difference=receipt.max_heat_map_difference,
        rows=pb.RowComparison(**receipt.rows.model_dump()) if receipt.rows else None,
        pictures=[pb.ReceiptPicture(**picture.model_dump()) for picture in receipt.pictures],
    )
