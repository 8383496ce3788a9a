"""Responses, read into the types of `results` and `cards`."""

from collections.abc import Sequence

from google.rpc import code_pb2  # Ships no py.typed.
from grpc_health.v1 import health_pb2

from visavis import results
from visavis.card_reading import read_model
from visavis.cards import TASKS, Model
from visavis.v1 import vision_pb2 as pb


def classify_result(message: pb.ClassifyResponse) -> results.ClassifyResult:
    """Return one model's labels for the whole image."""
    return results.ClassifyResult(
        classifications=_classifications(message.classifications),
        served_by=_served_by(message.served_by),
        timings=_timings(message.timings),
        image_size=_image_size(message.image_size),
        annotated_image=_annotated_image(message),
        heat_map=_heat_map(message),
        message=message,
    )


def detect_result(message: pb.DetectResponse) -> results.DetectResult:
    """Return the objects that one model finds in the image."""
    return results.DetectResult(
        detections=_detections(message.detections),
        served_by=_served_by(message.served_by),
        timings=_timings(message.timings),
        image_size=_image_size(message.image_size),
        annotated_image=_annotated_image(message),
        heat_map=_heat_map(message),
        message=message,
    )


def comparison(message: pb.CompareResponse) -> results.Comparison:
    """Return the answers of all models, side by side."""
    return results.Comparison(
        comparisons=tuple(
            results.TaskComparison(
                task=TASKS[task.task],
                baseline=task.baseline,
                answers=tuple(_answer(answer) for answer in task.answers),
                nothing_to_compare=task.nothing_to_compare,
            )
            for task in message.comparisons
            if task.task in TASKS  # Skip tasks that are newer than this client.
        ),
        left_out=tuple(results.LeftOutModel(left.model, left.reason) for left in message.left_out),
        models=tuple(read_model(card) for card in message.models),
        image_size=_image_size(message.image_size),
        timings=_timings(message.timings),
        annotated_image=_annotated_image(message),
        message=message,
    )


def stream_event(
    message: pb.CompareStreamResponse,
) -> results.StreamedAnswer | results.Comparison | None:
    """Return one step of a comparison; None for a step that is newer than this client."""
    if message.HasField("summary"):
        return comparison(message.summary)
    if message.HasField("answer") and message.answer.task in TASKS:
        task = TASKS[message.answer.task]
        return results.StreamedAnswer(task, _answer(message.answer.answer))
    return None


def models(message: pb.ListModelsResponse) -> tuple[Model, ...]:
    """Return the cards of all models."""
    return tuple(read_model(card) for card in message.models)


def model(message: pb.GetModelResponse) -> Model:
    """Return the card of one model."""
    return read_model(message.model)


def is_serving(message: health_pb2.HealthCheckResponse) -> bool:
    """Return True if the server has loaded its models."""
    return bool(message.status == health_pb2.HealthCheckResponse.SERVING)


def _classifications(
    messages: Sequence[pb.Classification],
) -> tuple[results.Classification, ...]:
    return tuple(results.Classification(item.class_id, item.label, item.score) for item in messages)


def _detections(messages: Sequence[pb.Detection]) -> tuple[results.Detection, ...]:
    return tuple(
        results.Detection(
            box=_box(item.box),
            class_id=item.class_id,
            label=item.label,
            score=item.score,
        )
        for item in messages
    )


def _box(message: pb.BoundingBox | pb.HeatMapArea) -> results.Box:
    return results.Box(message.x_min, message.y_min, message.x_max, message.y_max)


def _served_by(message: pb.ServedBy) -> results.ServedBy:
    return results.ServedBy(
        model=message.model,
        version=message.version,
        precision=message.precision,
        execution_provider=message.execution_provider,
        random_weights=message.random_weights,
    )


def _timings(message: pb.Timings) -> results.Timings:
    return results.Timings(
        queue_ms=message.queue_ms,
        decode_ms=message.decode_ms,
        preprocess_ms=message.preprocess_ms,
        inference_ms=message.inference_ms,
        postprocess_ms=message.postprocess_ms,
        total_ms=message.total_ms,
    )


def _image_size(message: pb.ImageSize) -> results.ImageSize:
    return results.ImageSize(message.width, message.height)


def _annotated_image(
    message: pb.ClassifyResponse | pb.DetectResponse | pb.CompareResponse,
) -> results.AnnotatedImage | None:
    if not message.HasField("annotated_image"):
        return None
    image = message.annotated_image
    size = _image_size(image.size) if image.HasField("size") else None
    return results.AnnotatedImage(image.encoded, image.media_type, size)


def _heat_map(
    message: pb.ClassifyResponse | pb.DetectResponse | pb.ModelAnswer,
) -> results.HeatMap | None:
    if not message.HasField("heat_map"):
        return None
    heat_map = message.heat_map
    return results.HeatMap(
        class_id=heat_map.class_id,
        label=heat_map.label,
        width=heat_map.width,
        height=heat_map.height,
        values=tuple(heat_map.values),
        min=heat_map.min,
        max=heat_map.max,
        area=_box(heat_map.area),
    )


def _answer(message: pb.ModelAnswer) -> results.ModelAnswer:
    code = message.status.code
    name = code_pb2.Code.Name(code) if code in code_pb2.Code.values() else f"status {code}"
    return results.ModelAnswer(
        served_by=_served_by(message.served_by),
        status=results.AnswerStatus(name, message.status.message),
        classifications=_classifications(message.classifications),
        detections=_detections(message.detections),
        timings=_timings(message.timings) if message.HasField("timings") else None,
        agreement=_agreement(message),
        heat_map=_heat_map(message),
        message=message,
    )


def _agreement(
    message: pb.ModelAnswer,
) -> results.ClassificationAgreement | results.DetectionAgreement | None:
    if message.HasField("classification_agreement"):
        labels = message.classification_agreement
        return results.ClassificationAgreement(
            same_top1=labels.same_top1,
            top_k_overlap=labels.top_k_overlap,
            jensen_shannon_divergence=labels.jensen_shannon_divergence
            if labels.HasField("jensen_shannon_divergence")
            else None,
            unknown_here=labels.unknown_here,
            unknown_in_baseline=labels.unknown_in_baseline,
        )
    if message.HasField("detection_agreement"):
        boxes = message.detection_agreement
        return results.DetectionAgreement(
            matched=boxes.matched,
            only_here=boxes.only_here,
            only_in_baseline=boxes.only_in_baseline,
            mean_iou=boxes.mean_iou if boxes.HasField("mean_iou") else None,
            mean_score_difference=boxes.mean_score_difference
            if boxes.HasField("mean_score_difference")
            else None,
            f1=boxes.f1,
            matches=tuple(
                results.DetectionMatch(match.index, match.baseline_index, match.iou)
                for match in boxes.matches
            ),
            unknown_here=boxes.unknown_here,
            unknown_in_baseline=boxes.unknown_in_baseline,
        )
    return None
