"""`python -m visavis_export`, and `visavis export`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visavis_export.arguments import read_names
from visavis_export.errors import InvalidOption
from visavis_export.listing import listing, require_known
from visavis_server.command import complain, flowing, new_app, run

if TYPE_CHECKING:
    from visavis_export.exporter import Request
    from visavis_export.repository import Exported
    from visavis_server.card import Receipt

_app = new_app()

_Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME...",
        help="Models: resnet50, yolov5n, retinanet_resnet50_fpn, ... Without any, list them all.",
        show_default=False,
    ),
]
_Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|DIR|random",
        envvar="VISAVIS_WEIGHTS",
        help="A file of weights, or a folder that holds NAME.pt or NAME.pth. By default the "
        "published weights are downloaded. 'random' is for tests; the exported model is marked "
        "permanently.",
    ),
]
_Out = Annotated[Path, typer.Option(help="Folder of the model repository.")]
_Precision = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Precisions, such as fp32,int8. fp32 is exported as NAME, fp16 (for GPUs) as "
        "NAME-fp16, and int8 (for CPUs) as NAME-int8.",
    ),
]
_Name = Annotated[
    str | None,
    typer.Option(help="Name to export the model under, such as 'helmets'; for a single model."),
]
_Transforms = Annotated[
    str, typer.Option(help="Version of torchvision's ResNet weights and transforms: V1 or V2.")
]
_ClassNames = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Class names for custom weights, one per line."),
]
_Size = Annotated[
    int | None,
    typer.Option(
        help="Side of a detector's input in pixels; the shorter side for torchvision's.",
        show_default="the model's",
    ),
]
_Images = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH", help="Pictures or folders of pictures for the receipt; repeatable."
    ),
]
_Calibration = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Real pictures like those that the model will receive; int8 needs about 100. If they "
        "are labelled, the accuracy is measured and the limits below apply.",
    ),
]
_Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Labels of the calibration pictures: a CSV file (file,class_index) or a folder of "
        "YOLO text files.",
        show_default="DIR/labels.csv, or the folder labels beside images",
    ),
]
_MaxTop1Drop = Annotated[
    float, typer.Option(metavar="POINTS", help="Largest allowed loss of top-1 accuracy.")
]
_MaxMapDrop = Annotated[
    float, typer.Option(metavar="POINTS", help="Largest allowed loss of mAP50-95.")
]


def _export(
    names: _Names = None,
    weights: _Weights = None,
    out: _Out = Path("models"),
    precision: _Precision = "fp32",
    name: _Name = None,
    transforms: _Transforms = "V1",
    class_names: _ClassNames = None,
    size: _Size = None,
    images: _Images = None,
    calibration: _Calibration = None,
    labels: _Labels = None,
    max_top1_drop: _MaxTop1Drop = 0.5,
    max_map_drop: _MaxMapDrop = 1.0,
) -> None:
    """Export models to ONNX and prove that they give the same answers as PyTorch.

    Each model becomes the next version in the repository, OUT/NAME/VERSION/model.onnx, unless
    nothing changed. The export compares the file with the PyTorch original on every picture and
    stores the result in it as a receipt. If the answers differ, or the file loses too much
    accuracy, the export fails with the figures and writes nothing.
    """
    if not names:
        typer.echo("\n".join(listing()))
        return
    try:  # Before PyTorch is imported, which takes seconds.
        for one in names:
            require_known(one)
    except InvalidOption as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None
    try:
        from visavis_export.exporter import Request
        from visavis_export.proof.accuracy_limits import AccuracyLimits
    except ImportError as error:
        complain(f"{error.name} is not installed; pip install 'visavis-server[export]'")
        raise typer.Exit(2) from None
    if name and len(names) > 1:
        raise typer.BadParameter("--name is for a single model; export the models one by one")
    requests = [
        Request(
            architecture=architecture,
            out=out,
            weights=weights,
            name=name,
            precisions=tuple(dict.fromkeys(part.strip() for part in precision.split(","))),
            transforms=transforms,
            class_names=read_names(class_names),
            size=size,
            pictures=tuple(images or ()),
            calibration=calibration,
            labels=labels,
            limits=AccuracyLimits(max_top1_drop, max_map_drop),
        )
        for architecture in names
    ]
    codes = [_export_one(request) for request in requests]
    if any(codes):
        raise typer.Exit(max(codes))


def _export_one(request: "Request") -> int:
    """Export a model, with a progress bar, and print the results; returns the exit code."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from visavis_export import exporter
    from visavis_export.errors import ExportError
    from visavis_server.errors import VisavisError

    exporter.set_threads()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        try:
            made = exporter.export(request, progress)
        except (ExportError, VisavisError) as error:
            complain(f"{request.architecture}: {error}")
            return 2 if isinstance(error, InvalidOption) else 1
    for exported in made:
        typer.echo("\n".join(_report(exported)))
    return 0


def _report(exported: "Exported") -> Iterator[str]:
    """Yield the lines that report an exported file."""
    document = exported.document
    receipt = document.receipt
    assert receipt is not None
    facts = document.facts
    random = document.provenance.random_weights
    marks = "  RANDOM WEIGHTS: its answers are meaningless" if random else ""
    yield (
        f"{document.name}: {facts.architecture}, {facts.parameter_count / 1e6:.1f} M parameters, "
        f"{document.precision}{marks}"
    )
    state = "unchanged" if exported.unchanged else "written"
    yield f"  {state}: {exported.path}, {exported.path.stat().st_size / 1e6:.1f} MB"
    yield f"  receipt: {_summary(receipt)}"
    if accuracy := document.accuracy:
        yield (
            f"  {accuracy.metric}: {accuracy.value:.2%}, the original {accuracy.original:.2%} "
            f"({(accuracy.value - accuracy.original) * 100:+.2f} ± {accuracy.error * 100:.2f} "
            f"points), on {accuracy.source}"
        )
    for warning in exported.warnings:
        yield f"  warning: {warning}"


def _summary(receipt: "Receipt") -> str:
    """Return a receipt in one line."""
    count = len(receipt.pictures)
    differences = f"scores within {receipt.max_score_difference:.1g}"
    if (boxes := receipt.max_box_difference_px) is not None:
        differences += f", boxes within {boxes:.1g} px"
    if (maps := receipt.max_heat_map_difference) is not None:
        differences += f", heat maps within {maps:.1g}"
    if receipt.score_tolerance is not None:
        same = f"same answers as PyTorch on {count} pictures, {differences}"
        return same if receipt.rows is None else f"{same}; {_suppression(receipt)}"
    if boxes is None:
        right = sum(picture.same_top1 is True for picture in receipt.pictures)
        return f"same top-1 as PyTorch on {right} of {count} pictures, {differences}"
    compared = sum(picture.compared for picture in receipt.pictures)
    missing = sum(picture.only_in_original for picture in receipt.pictures)
    more = sum(picture.only_here for picture in receipt.pictures)
    return (
        f"{compared} boxes match PyTorch's on {count} pictures, {missing} missing, {more} extra, "
        f"{differences}"
    )


def _suppression(receipt: "Receipt") -> str:
    """Return how many of a detector's boxes were compared before and after suppression."""
    assert receipt.rows is not None
    kept, here, there = (
        sum(getattr(picture, count) for picture in receipt.pictures)
        for count in ("compared", "only_here", "only_in_original")
    )
    ties = f", {here} extra and {there} missing because of near ties" if here or there else ""
    return (
        f"before suppression all {receipt.rows.count:,} candidates, within "
        f"{receipt.rows.max_score_difference:.1g}; after it {kept} boxes{ties}"
    )


_app.command(help=flowing(_export.__doc__))(_export)


def main(args: list[str], prog: str = "python -m visavis_export") -> int:
    """Run the command; returns its exit code."""
    return run(_app, args, prog)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
