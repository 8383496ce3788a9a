"""The options that several sub-commands share."""

from collections.abc import Sequence
from typing import Annotated

import typer

from visavis.connection import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S

Pictures = Annotated[
    list[str],
    typer.Argument(
        metavar="PICTURE",
        help="JPEG, PNG or WebP files, or folders of them; - is stdin.",
        show_default=False,
    ),
]
Server = Annotated[
    str,
    typer.Option(envvar="VISAVIS_SERVER", metavar="HOST:PORT", help="The server; or unix:PATH."),
]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", min=0.001, help="How long one picture may take.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one line of JSON per picture, in their order.")
]
Annotate = Annotated[
    str | None,  # A Path would drop the slash by which a folder is known.
    typer.Option(
        metavar="PATH",
        help="Write the picture with the answer drawn on it, as JPEG; a folder for several "
        "pictures, and where PATH ends with a slash.",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The model; not needed where a single one is capable."),
]
Version = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Its version; the highest if not given.")
]
TopK = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="How many labels; 5 if not given.")
]
ScoreThreshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, metavar="SCORE", help="Lowest score; the model's own if not given."),
]
IouThreshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="IOU",
        help="Overlap above which the weaker box goes; the model's own if not given.",
    ),
]
MaxDetections = Annotated[
    int | None, typer.Option(min=1, max=1000, metavar="N", help="Most boxes; 300 if not given.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL,...", help="Labels to keep; may be repeated. All if not given."),
]
ClassAgnostic = Annotated[
    bool, typer.Option("--class-agnostic", help="Boxes of different labels drop each other too.")
]

SERVER = DEFAULT_ADDRESS
TIMEOUT_S = DEFAULT_TIMEOUT_S


def listed(values: Sequence[str] | None) -> list[str]:
    """Return the names in an option that may be repeated and may hold several, with commas."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    return [name for name in names if name]
