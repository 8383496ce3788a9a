"""Messages of the contract that describe models, read into the types of `cards`."""

from visavis.cards import (
    TASKS,
    Accuracy,
    DetectionDefaults,
    LabelSet,
    Model,
    ModelFacts,
    ModelInput,
    Provenance,
    Receipt,
    ReceiptPicture,
    RowComparison,
    Verification,
)
from visavis.v1 import vision_pb2 as pb


def read_model(message: pb.Model) -> Model:
    """Return the card in a message."""
    defaults, verification = message.detection_defaults, message.verification
    return Model(
        name=message.name,
        version=message.version,
        versions=tuple(message.versions),
        tasks=tuple(TASKS[task] for task in message.tasks if task in TASKS),
        precision=message.precision,
        variant_of=message.variant_of,
        execution_provider=message.execution_provider,
        random_weights=message.random_weights,
        facts=_facts(message.facts),
        label_set=LabelSet(
            message.label_set.name, message.label_set.size, tuple(message.label_set.labels)
        ),
        input=ModelInput(message.input.width, message.input.height, message.input.resize),
        detection_defaults=DetectionDefaults(
            defaults.score_threshold, defaults.iou_threshold, defaults.max_detections
        )
        if message.HasField("detection_defaults")
        else None,
        provenance=Provenance(
            weights_source=message.provenance.weights_source,
            weights_sha256=message.provenance.weights_sha256,
            exporter=message.provenance.exporter,
            exported_at=message.provenance.exported_at,
            libraries=dict(message.provenance.libraries),
            conversion=message.provenance.conversion,
        ),
        verification=Verification(verification.digest, verification.golden_sample),
        receipt=_receipt(message.receipt) if message.HasField("receipt") else None,
        accuracy=_accuracy(message.accuracy) if message.HasField("accuracy") else None,
        message=message,
    )


def _facts(message: pb.ModelFacts) -> ModelFacts:
    return ModelFacts(
        architecture=message.architecture,
        organization=message.organization,
        category=message.category,
        modality=message.modality,
        release_date=message.release_date,
        context_window=message.context_window if message.HasField("context_window") else None,
        parameter_count=message.parameter_count,
        code_license=message.code_license,
        weights_license=message.weights_license,
        real_time=message.real_time if message.HasField("real_time") else None,
        sources=dict(message.sources),
    )


def _receipt(message: pb.Receipt) -> Receipt:
    rows = message.rows
    return Receipt(
        made_at=message.made_at,
        score_tolerance=message.score_tolerance,
        box_tolerance_px=message.box_tolerance_px,
        heat_map_tolerance=message.heat_map_tolerance,
        max_score_difference=message.max_score_difference,
        max_box_difference_px=message.max_box_difference_px
        if message.HasField("max_box_difference_px")
        else None,
        max_heat_map_difference=message.max_heat_map_difference
        if message.HasField("max_heat_map_difference")
        else None,
        rows=RowComparison(rows.count, rows.max_score_difference, rows.max_box_difference_px)
        if message.HasField("rows")
        else None,
        pictures=tuple(_receipt_picture(picture) for picture in message.pictures),
    )


def _receipt_picture(message: pb.ReceiptPicture) -> ReceiptPicture:
    return ReceiptPicture(
        name=message.name,
        width=message.width,
        height=message.height,
        score_threshold=message.score_threshold if message.HasField("score_threshold") else None,
        compared=message.compared,
        excused=message.excused,
        max_score_difference=message.max_score_difference,
        max_box_difference_px=message.max_box_difference_px
        if message.HasField("max_box_difference_px")
        else None,
        same_top1=message.same_top1 if message.HasField("same_top1") else None,
        only_here=message.only_here,
        only_in_original=message.only_in_original,
        max_heat_map_difference=message.max_heat_map_difference
        if message.HasField("max_heat_map_difference")
        else None,
    )


def _accuracy(message: pb.Accuracy) -> Accuracy:
    return Accuracy(
        metric=message.metric,
        value=message.value,
        original=message.original,
        pictures=message.pictures,
        source=message.source,
        held_out=message.held_out,
        error=message.error,
    )
