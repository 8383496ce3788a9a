"""The options that several sub-commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from visavis.connection import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S

Pictures = Annotated[
    list[str],
    typer.Argument(
        metavar="PICTURE",
        help="JPEG, PNG or WebP files, or folders of them; - reads stdin.",
        show_default=False,
    ),
]
Server = Annotated[
    str,
    typer.Option(
        envvar="VISAVIS_SERVER",
        metavar="HOST:PORT[,...]",
        help="Address of the server, or unix:PATH. With tls, ca=FILE, cert=FILE, key=FILE and "
        "token-file=FILE after a comma.",
    ),
]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", min=0.001, help="Timeout of each request.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one line of JSON per picture, in input order.")
]
Annotate = Annotated[
    str | None,  # A Path would drop the trailing slash that marks a folder.
    typer.Option(
        metavar="PATH",
        help="Write the picture with the answer drawn on it to this JPEG file; for several "
        "pictures, or with a slash at the end, PATH is a folder.",
    ),
]
Explain = Annotated[
    str | None,
    typer.Option(
        metavar="[LABEL]",
        help="Add a heat map of this label, or of the best one; --annotate draws it.",
    ),
]
Repository = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Serve this folder of models for as long as the command runs, instead of asking a "
        "server.",
        show_default="models, if no server answers",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Model to use.", show_default="the only capable one"),
]
Version = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Version of the model.", show_default="the highest"),
]
TopK = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Number of labels.", show_default="5")
]
ScoreThreshold = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, metavar="SCORE", help="Lowest score to keep.", show_default="the model's"
    ),
]
IouThreshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="IOU",
        help="Overlap above which the box with the lower score is dropped.",
        show_default="the model's",
    ),
]
MaxDetections = Annotated[
    int | None,
    typer.Option(min=1, max=1000, metavar="N", help="Highest number of boxes.", show_default="300"),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL,...", help="Labels to keep; repeatable.", show_default="all"),
]
ClassAgnostic = Annotated[
    bool,
    typer.Option("--class-agnostic", help="Drop overlapping boxes of different labels too."),
]

SERVER = DEFAULT_ADDRESS
TIMEOUT_S = DEFAULT_TIMEOUT_S


def explained(label: str | None) -> bool | str:
    """Return what --explain asks the client for; an empty label is the best one."""
    return label is not None and (label or True)


def listed(values: Sequence[str] | None) -> list[str]:
    """Return the names in a repeatable option whose values may be comma-separated lists."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    return [name for name in names if name]
