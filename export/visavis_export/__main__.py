"""`python -m export`, and `visavis export`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visavis_server.command import complain, new_app, run

if TYPE_CHECKING:
    from visavis_export.exporter import Exported
    from visavis_server.card import Receipt

_app = new_app()


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
    precision: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Number formats, such as fp32,int8: fp32 becomes NAME, fp16 NAME-fp16, for GPUs, "
            "and int8 NAME-int8, for CPUs.",
        ),
    ] = "fp32",
    name: Annotated[
        str | None,
        typer.Option(help="The model's own name, such as 'helmets'; for one model."),
    ] = None,
    transforms: Annotated[
        str,
        typer.Option(help="Which of torchvision's ResNet weights and transforms: V1 or V2."),
    ] = "V1",
    class_names: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Names of the classes, one per line, for a file of weights."
        ),
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
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Real pictures, like those that the model will see: int8 needs some 100. Where "
            "they have labels, the accuracy is measured and held to its limits.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Labels of those pictures: a CSV file (file,class_index), or a folder of YOLO's "
            "text files.  [default: DIR/labels.csv, or the folder labels beside images]",
        ),
    ] = None,
    max_top1_drop: Annotated[
        float, typer.Option(metavar="POINTS", help="Top-1 that a file may lose.")
    ] = 0.5,
    max_map_drop: Annotated[
        float, typer.Option(metavar="POINTS", help="mAP50-95 that a file may lose.")
    ] = 1.0,
) -> None:
    """Export models to ONNX and prove that they answer as their PyTorch originals do.

    Each becomes the next version in the repository, OUT/NAME/VERSION/model.onnx, unless
    nothing changed. The receipt, which compares the file with PyTorch picture by picture,
    is made now, and an export that breaks it, or loses more accuracy than it may, fails with
    the figures and writes nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    try:
        from visavis_export import exporter, variants
        from visavis_export.errors import ExportError
        from visavis_server.errors import VisavisError
    except ImportError as error:
        complain(f"{error.name} is not installed; pip install 'visavis-server[export]'")
        raise typer.Exit(2) from None
    if name and len(names) > 1:
        raise typer.BadParameter("--name takes one model at a time")
    exporter.set_threads()
    failed = False
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    for architecture in names:
        request = exporter.Request(
            architecture=architecture,
            out=out,
            weights=weights,
            name=name,
            precisions=tuple(dict.fromkeys(part.strip() for part in precision.split(","))),
            transforms=transforms,
            class_names=_read_names(class_names),
            size=size,
            pictures=tuple(images or ()),
            calibration=calibration,
            labels=labels,
            limits=variants.AccuracyLimits(max_top1_drop, max_map_drop),
        )
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress:
            try:
                made = exporter.export(request, progress)
            except (ExportError, VisavisError) as error:
                complain(f"{architecture}: {error}")
                failed = True
                continue
        for exported in made:
            _say(exported)
    if failed:
        raise typer.Exit(1)


def _read_names(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise typer.BadParameter(f"--class-names {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(
            f"--class-names {path} is no text in UTF-8; save it as such, one name per line"
        ) from None
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
    typer.echo(
        f"{document.name}: {document.facts.architecture}, "
        f"{document.facts.parameter_count / 1e6:.1f} M parameters, {document.precision}{marks}\n"
        f"  {state}: {exported.path}, {exported.path.stat().st_size / 1e6:.1f} MB\n"
        f"  receipt: {_proof(receipt)}"
    )
    if accuracy := document.accuracy:
        typer.echo(
            f"  {accuracy.metric}: {accuracy.value:.2%}, the original {accuracy.original:.2%} "
            f"({(accuracy.value - accuracy.original) * 100:+.2f} ± {accuracy.error * 100:.2f} "
            f"points), on {accuracy.source}"
        )
    for doubt in exported.doubts:
        typer.echo(f"  not checked: {doubt}")


def _proof(receipt: "Receipt") -> str:
    """Return in one line what a receipt says."""
    count = len(receipt.pictures)
    differences = f"scores within {receipt.max_score_difference:.1g}"
    if (boxes := receipt.max_box_difference_px) is not None:
        differences += f", boxes within {boxes:.1g} px"
    if receipt.score_tolerance is not None:
        same = f"same answers as PyTorch on {count} pictures, {differences}"
        return same if receipt.rows is None else f"{same}; {_suppressed(receipt)}"
    if boxes is None:
        right = sum(picture.same_top1 is True for picture in receipt.pictures)
        return f"same top-1 as PyTorch on {right} of {count} pictures, {differences}"
    found = sum(picture.compared for picture in receipt.pictures)
    missing = sum(picture.only_in_original for picture in receipt.pictures)
    more = sum(picture.only_here for picture in receipt.pictures)
    return (
        f"{found} boxes as PyTorch on {count} pictures, {missing} missing, {more} more, "
        f"{differences}"
    )


def _suppressed(receipt: "Receipt") -> str:
    """Return which of a detector's boxes were compared before suppression, and which after."""
    assert receipt.rows is not None
    kept, here, there = (
        sum(getattr(picture, count) for picture in receipt.pictures)
        for count in ("compared", "only_here", "only_in_original")
    )
    ties = f", {here} more and {there} fewer by near-ties" if here or there else ""
    return (
        f"before suppression all {receipt.rows.count:,} candidates, within "
        f"{receipt.rows.max_score_difference:.1g}; after it {kept} boxes{ties}"
    )


def main(args: list[str], prog: str = "python -m export") -> int:
    """Run the command; returns its exit code."""
    return run(_app, args, prog)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
