"""`visavis compare`: the answers of several models about pictures, side by side."""

from collections.abc import Callable
from typing import Annotated

import typer

from visavis.calls import task_values
from visavis.client import Client
from visavis.commands import options
from visavis.commands.comparison_tables import comparison_tables
from visavis.commands.pictures import Job, answer
from visavis.errors import InvalidRequest
from visavis.results import Comparison

Models = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,...", help="Models to compare; repeatable.", show_default="all capable"
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK,...", help="classification, detection; repeatable.", show_default="both"
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Model to compare the others with.", show_default="the first"
    ),
]

# The name of the task in the protocol and in the literature.
_ALIASES = {"object-detection": "detection", "object_detection": "detection"}


def compare(
    pictures: options.Pictures,
    models: Models = None,
    tasks: Tasks = None,
    baseline: Baseline = None,
    top_k: options.TopK = None,
    score_threshold: options.ScoreThreshold = None,
    iou_threshold: options.IouThreshold = None,
    max_detections: options.MaxDetections = None,
    labels: options.Labels = None,
    class_agnostic: options.ClassAgnostic = False,
    annotate: options.Annotate = None,
    json: options.Json = False,
    server: options.Server = options.SERVER,
    timeout: options.Timeout = options.TIMEOUT_S,
) -> None:
    """Compare the answers of several models, side by side."""
    task_names = [_ALIASES.get(task.lower(), task.lower()) for task in options.listed(tasks)]
    try:
        task_values(task_names)
    except InvalidRequest as error:
        raise typer.BadParameter(error.message, param_hint="--tasks") from error

    def prepare(client: Client) -> Callable[[bytes], Comparison]:
        return lambda image: client.compare(
            image,
            tasks=task_names,
            models=options.listed(models),
            baseline=baseline,
            top_k=top_k,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            labels=options.listed(labels),
            class_agnostic=class_agnostic,
            annotate=annotate is not None,
        )

    answer(Job(pictures, server, timeout, json, annotate), prepare, comparison_tables)
