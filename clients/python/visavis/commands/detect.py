"""`visavis detect`: find objects in pictures with one model."""

from collections.abc import Callable

from visavis.cards import Task
from visavis.client import Client
from visavis.commands import options
from visavis.commands.answer_tables import detect_table
from visavis.commands.capable import capable_model
from visavis.commands.pictures import Job, answer
from visavis.results import DetectResult


def detect(
    pictures: options.Pictures,
    model: options.ModelName = None,
    version: options.Version = None,
    score_threshold: options.ScoreThreshold = None,
    iou_threshold: options.IouThreshold = None,
    max_detections: options.MaxDetections = None,
    labels: options.Labels = None,
    class_agnostic: options.ClassAgnostic = False,
    annotate: options.Annotate = None,
    explain: options.Explain = None,
    json: options.Json = False,
    server: options.Server = options.SERVER,
    timeout: options.Timeout = options.TIMEOUT_S,
    repository: options.Repository = None,
) -> None:
    """Find objects in pictures with one model."""

    def prepare(client: Client) -> Callable[[bytes], DetectResult]:
        name = model or capable_model(client, Task.DETECTION)
        return lambda image: client.detect(
            image,
            model=name,
            version=version,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            labels=options.listed(labels),
            class_agnostic=class_agnostic,
            annotate=annotate is not None,
            explain=options.explained(explain),
        )

    answer(
        Job(pictures, server, timeout, json, annotate, repository=repository), prepare, detect_table
    )
