"""The options of `visavis compare`, and how they are parsed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from visavis.calls import task_values
from visavis.commands.options import listed
from visavis.errors import InvalidRequest
from visavis.peers import Peer

Pictures = Annotated[
    list[str],
    typer.Argument(
        metavar="PICTURE",
        help="JPEG, PNG or WebP files; - reads stdin. Folders, patterns and text files that list "
        "pictures are counted.",
        show_default=False,
    ),
]
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
        "class, YOLO's text files, a COCO JSON file or VOC's XML files; one for each task.",
    ),
]
Peers = Annotated[
    list[str] | None,
    typer.Option(
        "--peer",
        metavar="NAME=HOST:PORT[,...]",
        help="Another server, whose models become MODEL@NAME; repeatable. With tls, ca=FILE, "
        "cert=FILE, key=FILE and token-file=FILE after a comma.",
    ),
]
Difference = Annotated[
    bool,
    typer.Option(
        "--difference",
        help="Draw the boxes of --annotate in three colours: as in the baseline, only here, only "
        "in the baseline.",
    ),
]
_FOLDER: Final = "For a folder of pictures"


def _file(help_: str) -> Any:
    return typer.Option(metavar="FILE", help=help_, rich_help_panel=_FOLDER)


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
CsvSlices = Annotated[Path | None, _file("Write each model's figures on each slice as CSV.")]
CsvConfusion = Annotated[Path | None, _file("Write the confusion matrices as CSV.")]
FiftyOne = Annotated[
    Path | None,
    typer.Option(
        "--fiftyone",
        metavar="DIR",
        help="Write a folder whose open.py shows the comparison in FiftyOne.",
        rich_help_panel=_FOLDER,
    ),
]
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
WithinMs = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        metavar="MS",
        help="Name the most accurate model with a median latency of at most MS milliseconds.",
        rich_help_panel=_FOLDER,
    ),
]
Callers = Annotated[
    int,
    typer.Option(
        min=1,
        max=256,
        help="Pictures at once, at most; fewer if the server takes no more.",
        rich_help_panel=_FOLDER,
    ),
]
CostSeconds = Annotated[
    float,
    typer.Option(
        "--cost",
        min=0,
        metavar="SECONDS",
        help="Measure each model on its own for so long: throughput, CPU and memory; needs "
        "--repository.",
        rich_help_panel=_FOLDER,
    ),
]

# The name of the task in the protocol and in the literature.
_ALIASES: Final = {"object-detection": "detection", "object_detection": "detection"}


@dataclass(frozen=True)
class FolderOptions:
    """The options of `visavis compare` of a folder.

    labels: the truth. report, json, csv and the like: files to write. fiftyone: a folder to write.
    cost: seconds for which each model is measured on its own.
    """

    models: list[str]
    tasks: list[str]
    baseline: str | None
    labels: Sequence[Path]
    repository: Path | None
    answers: Path | None
    report: Path | None
    json: Path | None
    csv: Path | None
    csv_slices: Path | None
    csv_confusion: Path | None
    fiftyone: Path | None
    markdown: Path | None
    junit: Path | None
    fail_under: list[str]
    max_drop: list[str]
    strict: bool
    within_ms: float | None
    callers: int
    cost: float
    server: str
    timeout: float
    peers: tuple[Peer, ...] = ()

    @property
    def are_given(self) -> bool:
        """True if an option that only folders have is among them."""
        files = (self.answers, self.report, self.json, self.markdown, self.junit, self.fiftyone)
        tables = (self.csv, self.csv_slices, self.csv_confusion)
        limits = (self.fail_under, self.max_drop, self.strict, self.within_ms, self.cost)
        return any((*files, *tables, *limits))


def parse_tasks(given: Sequence[str] | None) -> list[str]:
    """Return the names of tasks; raises typer.BadParameter for an unknown one."""
    names = [_ALIASES.get(task.lower(), task.lower()) for task in listed(given)]
    try:
        task_values(names)
    except InvalidRequest as error:
        raise typer.BadParameter(error.message, param_hint="--tasks") from error
    return names


def truth_paths(labels: Sequence[str]) -> tuple[Path, ...]:
    """Return the paths that --labels names; one of them may contain commas."""
    whole = Path(",".join(labels))
    return (whole,) if labels and whole.exists() else tuple(map(Path, labels))


def are_a_path(labels: Sequence[str]) -> bool:
    """Return True if --labels names files or folders, not labels to keep."""
    return bool(labels) and all(path.exists() for path in truth_paths(labels))


def refuse_for_folders(**given: object) -> None:
    """Raise typer.BadParameter for an option that a folder's figures do not depend on."""
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter(
                "it has no effect on the figures of a folder; leave it out, or leave out the "
                "options for folders to get the answers picture by picture, with --json or "
                "--annotate",
                param_hint=f"--{name.replace('_', '-')}",
            )
