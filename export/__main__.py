"""`python -m export`, and `visavis export`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from export.exporter import Exported

_app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@_app.command()
def _export(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Models: resnet50, yolov5n, yolov5n-cls, ..."),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR|random",
            envvar="VISAVIS_WEIGHTS",
            help="A file, or a folder that holds NAME.pt or NAME.pth. Without it the published "
            "weights are fetched. 'random' is for tests and marks the model for ever.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Model repository, a folder.")] = Path("models"),
    precision: Annotated[str, typer.Option(help="Number format of the weights.")] = "fp32",
    name: Annotated[
        str | None,
        typer.Option(help="The model's own name, such as 'helmets'; for one model."),
    ] = None,
    transforms: Annotated[
        str,
        typer.Option(help="Which of torchvision's ResNet weights and transforms: V1 or V2."),
    ] = "V1",
    labels: Annotated[
        Path | None,
        typer.Option(help="Names of the classes, one per line, for a file of weights."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Side of a YOLO model's input in pixels.  [default: its own]"),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Pictures, or folders of them, for the receipt; repeatable."
        ),
    ] = None,
) -> None:
    """Export models to ONNX and prove that they answer as their PyTorch originals do.

    Each becomes the next version in the repository, OUT/NAME/VERSION/model.onnx, unless
    nothing changed. The receipt, which compares the file with PyTorch picture by picture,
    is made now, and an export that breaks it fails with the figures.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    try:
        from export import exporter
        from export.errors import ExportError
        from server.errors import VisavisError
    except ImportError as error:
        console.print(
            f"error: {error.name} is not installed; pip install 'visavis-server[export]'",
            markup=False,
        )
        raise typer.Exit(2) from None
    if name and len(names) > 1:
        raise typer.BadParameter("--name takes one model at a time")
    if precision != "fp32":
        raise typer.BadParameter(f"--precision {precision}: only fp32 can be exported yet")
    exporter.set_threads()
    failed = False
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    for architecture in names:
        request = exporter.Request(
            architecture=architecture,
            out=out,
            weights=weights,
            name=name,
            transforms=transforms,
            labels=_read_labels(labels),
            size=size,
            pictures=tuple(images or ()),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            try:
                exported = exporter.export(request, progress)
            except (ExportError, VisavisError) as error:
                console.print(f"error: {architecture}: {error}", markup=False, highlight=False)
                failed = True
                continue
        _say(exported)
    if failed:
        raise typer.Exit(1)


def _read_labels(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--labels {path} can't be read: {error}") from None
    return tuple(line.strip() for line in lines if line.strip())


def _say(exported: "Exported") -> None:
    """Print what was made and what its receipt says."""
    document = exported.document
    receipt = document.receipt
    assert receipt is not None
    marks = (
        "  RANDOM WEIGHTS: its answers mean nothing" if document.provenance.random_weights else ""
    )
    state = "unchanged" if exported.unchanged else "written"
    boxes = receipt.max_box_difference_px
    proof = f"scores within {receipt.max_score_difference:.1g}"
    if boxes is not None:
        proof += f", boxes within {boxes:.1g} px"
    typer.echo(
        f"{document.name}: {document.facts.architecture}, "
        f"{document.facts.parameter_count / 1e6:.1f} M parameters{marks}\n"
        f"  {state}: {exported.path}\n"
        f"  receipt: same answers as PyTorch on {len(receipt.pictures)} pictures, {proof}"
    )


def main(args: list[str], prog: str = "python -m export") -> int:
    """Run the command; returns its exit code."""
    try:
        _app(args, prog_name=prog)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
