"""`visavis verify`."""

import json as jsonlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visavis_server.command import complain, flowing, new_app, run

if TYPE_CHECKING:
    from visavis_export.verification.outcome import Outcome
    from visavis_export.verification.verify import Request

_app = new_app()

_File = Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The exported file.")]
_Against = Annotated[
    Path,
    typer.Option(metavar="FILE.pt", help="The PyTorch checkpoint that it was exported from."),
]
_Images = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH",
        help="Pictures or folders of pictures; repeatable.  [default: 13 synthetic ones]",
    ),
]
_ClassNames = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The original's class names, one per line."),
]
_Transforms = Annotated[
    str, typer.Option(help="Version of torchvision's ResNet transforms: V1 or V2.")
]
_Size = Annotated[
    int | None,
    typer.Option(
        min=32, max=4096, help="Side of the original's input in pixels.  [default: its own]"
    ),
]
_Input = Annotated[
    Path | None,
    typer.Option(
        "--input",
        metavar="FILE.npy",
        help="The tensor that your own code makes of the one picture.",
    ),
]
_Answers = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="The labels or boxes that your own code gives for it."),
]
_Annotate = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Draw the pictures that differ, both answers side by side."),
]
_Json = Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything as JSON.")]
_MOST_INPUT_BYTES = 1 << 30


def _verify(
    file: _File,
    against: _Against,
    images: _Images = None,
    class_names: _ClassNames = None,
    transforms: _Transforms = "V1",
    size: _Size = None,
    tensor: _Input = None,
    answers: _Answers = None,
    annotate: _Annotate = None,
    json: _Json = None,
) -> None:
    """Compare an ONNX file with its PyTorch original, and say where a difference begins.

    Each picture goes through pre-processing, graph and post-processing, of the file and of the
    original. Known mistakes are named: another letterbox, BGR, a normalisation left out or doubled,
    other weights, and so on. --input and --answers explain what your own code made of a picture.

    Exit codes: 0 same, 1 differs, 2 the comparison could not be made.
    """
    try:
        from visavis_export.errors import ExportError
        from visavis_export.verification.drawing import draw
        from visavis_export.verification.outcome import to_json
    except ImportError as error:
        complain(f"{error.name} is not installed; pip install 'visavis-server[export]'")
        raise typer.Exit(2) from None
    from visavis_server.errors import VisavisError

    try:
        request = _request(file, against, images, class_names, transforms, size, tensor, answers)
        outcome = _outcome(request)
        if json is not None:
            _save(json, jsonlib.dumps(to_json(outcome), indent=1) + "\n")
        drawn = draw(outcome, request.pictures, annotate) if annotate is not None else []
    except (ExportError, VisavisError) as error:
        complain(str(error))
        raise typer.Exit(2) from None
    _print(outcome)
    for path in drawn:
        typer.echo(f"drawn: {path}")
    if not outcome.same:
        raise typer.Exit(1)


def _request(
    file: Path,
    against: Path,
    images: list[Path] | None,
    class_names: Path | None,
    transforms: str,
    size: int | None,
    tensor: Path | None,
    answers: Path | None,
) -> "Request":
    """Return the verification that the options ask for. Raises ExportError."""
    from visavis_export.arguments import read_names
    from visavis_export.errors import ExportError
    from visavis_export.families.resnet import TRANSFORMS
    from visavis_export.pictures.files import read_pictures
    from visavis_export.pictures.synthetic import synthetic_pictures
    from visavis_export.verification.answers import read_answers
    from visavis_export.verification.verify import Request, Theirs

    if transforms not in TRANSFORMS:
        raise ExportError(f"--transforms {transforms!r} is unknown; choose V1 or V2")
    pictures = read_pictures(images) if images else dict(synthetic_pictures())
    if (tensor or answers) and len(pictures) != 1:
        raise ExportError(
            f"--input and --answers are about one picture, and --images gives {len(pictures)}; "
            "give the picture that they were made from"
        )
    theirs = None
    if tensor or answers:
        theirs = Theirs(
            None if tensor is None else _read_tensor(tensor),
            None if answers is None else read_answers(answers),
        )
    return Request(file, against, pictures, read_names(class_names), transforms, size, theirs)


def _read_tensor(path: Path) -> Any:
    """Return the array in an .npy file, which is read as data. Raises ExportError."""
    import numpy as np

    from visavis_export.errors import ExportError

    try:
        if path.stat().st_size > _MOST_INPUT_BYTES:
            raise ExportError(f"--input {path} is larger than 1 GiB; give one picture's tensor")
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ExportError(f"--input {path} can't be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ExportError(f"--input {path} is no .npy file of numbers: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fui":
        raise ExportError(f"--input {path} must hold one array of numbers; save it with numpy.save")
    return array


def _outcome(request: "Request") -> "Outcome":
    """Verify, with a progress bar on standard error."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from visavis_export.verification.verify import verify
    from visavis_server.runtime.cores import usable_cores

    torch.set_num_threads(usable_cores())
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("pictures"))
    with (
        tempfile.TemporaryDirectory(prefix="visavis-verify-") as cache,
        Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress,
    ):
        task = progress.add_task("pictures", total=len(request.pictures))
        return verify(request, Path(cache), lambda: progress.advance(task))


def _print(outcome: "Outcome") -> None:
    from visavis.commands.console import stdout

    from visavis_export.verification.tables import outcome_tables

    stdout().print(outcome_tables(outcome))


def _save(path: Path, text: str) -> None:
    from visavis_export.errors import ExportError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ExportError(f"--json {path} can't be written: {error.strerror}") from None


_app.command(help=flowing(_verify.__doc__))(_verify)


def main(args: list[str], prog: str = "python -m visavis_export.verification") -> int:
    """Run the command; returns its exit code."""
    return run(_app, args, prog)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
