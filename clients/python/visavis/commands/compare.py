"""`visavis compare`: the answers of several models about pictures, side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from visavis.calls import task_values
from visavis.client import Client
from visavis.commands import options
from visavis.commands.comparison_tables import comparison_tables
from visavis.commands.pictures import Job, answer
from visavis.commands.study import StudyOptions, compare_folder
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
        metavar="NAME|FILE.json",
        help="Model to compare the others with; or, for --max-drop, the JSON file of an earlier "
        "comparison.",
        show_default="the first",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LABEL,...|PATH",
        help="Labels to keep; may be repeated. For a folder, the truth: a CSV file, a folder per "
        "class, YOLO's text files, a COCO JSON file or VOC's XML files.",
    ),
]
_FOLDER = "For a folder of pictures"


def _file(help_: str) -> Any:
    return typer.Option(metavar="FILE", help=help_, rich_help_panel=_FOLDER)


Repository = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Serve these models for as long as the comparison takes, instead of using a server.",
        rich_help_panel=_FOLDER,
    ),
]
Answers = Annotated[
    Path | None,
    _file("Keep the answers; an interrupted comparison goes on from there."),
]
Report = Annotated[
    Path | None,
    _file("Write a report: one HTML file, with the pictures on which models differ."),
]
JsonFile = Annotated[Path | None, _file("Write all figures as JSON; --json FILE.json is the same.")]
Csv = Annotated[Path | None, _file("Write the models' figures as CSV.")]
Markdown = Annotated[Path | None, _file("Write the verdict and the tables as Markdown.")]
Junit = Annotated[Path | None, _file("Write the limits' outcomes as JUnit's XML.")]
FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=NUMBER...",
        help="Fail if a model is surely below: agreement, top1, top5, map, map50, from 0 to 1.",
        rich_help_panel=_FOLDER,
    ),
]
MaxDrop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=NUMBER...",
        help="Fail if a model has surely lost more since --baseline FILE.json.",
        rich_help_panel=_FOLDER,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Fail where a limit can't be told, too.", rich_help_panel=_FOLDER
    ),
]
Callers = Annotated[
    int,
    typer.Option(min=1, max=256, help="Pictures at once.", rich_help_panel=_FOLDER),
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
    labels: Labels = None,
    class_agnostic: options.ClassAgnostic = False,
    annotate: options.Annotate = None,
    json: options.Json = False,
    server: options.Server = options.SERVER,
    timeout: options.Timeout = options.TIMEOUT_S,
    repository: Repository = None,
    answers: Answers = None,
    report: Report = None,
    json_file: JsonFile = None,
    csv: Csv = None,
    markdown: Markdown = None,
    junit: Junit = None,
    fail_under: FailUnder = None,
    max_drop: MaxDrop = None,
    strict: Strict = False,
    callers: Callers = 8,
) -> None:
    """Compare the answers of several models, side by side."""
    task_names = [_ALIASES.get(task.lower(), task.lower()) for task in options.listed(tasks)]
    try:
        task_values(task_names)
    except InvalidRequest as error:
        raise typer.BadParameter(error.message, param_hint="--tasks") from error

    kept = options.listed(labels)
    truth = Path(kept[0]) if len(kept) == 1 and Path(kept[0]).exists() else None
    of_folder = (
        truth,
        repository,
        answers,
        report,
        json_file,
        csv,
        markdown,
        junit,
        fail_under,
        max_drop,
    )
    is_folder = any(name != "-" and Path(name).is_dir() for name in pictures)
    if any(of_folder) or strict or (is_folder and not (json or annotate)):
        study = StudyOptions(
            models=options.listed(models),
            tasks=task_names,
            baseline=baseline,
            labels=truth,
            repository=repository,
            answers=answers,
            report=report,
            json=json_file,
            csv=csv,
            markdown=markdown,
            junit=junit,
            fail_under=fail_under or [],
            max_drop=max_drop or [],
            strict=strict,
            callers=callers,
            server=server,
            timeout=timeout,
        )
        compare_folder(pictures, study)
        return

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
            labels=kept,
            class_agnostic=class_agnostic,
            annotate=annotate is not None,
        )

    answer(Job(pictures, server, timeout, json, annotate), prepare, comparison_tables)
