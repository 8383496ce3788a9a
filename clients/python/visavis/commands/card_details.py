"""One model's card in full, with its receipt."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from visavis.cards import Accuracy, Model, Receipt, ReceiptPicture
from visavis.commands import facts
from visavis.commands.answer_tables import plain_table, provider
from visavis.commands.console import plain, random_mark
from visavis.fact_rows import COMPARED, fact_rows


def card_details(card: Model) -> RenderableType:
    """Return one card in full, with its receipt."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in _facts(card):
        grid.add_row(label, value)
    title = Text(plain(card.name), style="bold")
    if card.random_weights:
        title.append("  ").append_text(random_mark())
        title.append(" its answers are meaningless", style="not bold")
    return Group(title, Text(), grid, *_receipt_parts(card.receipt))


def _facts(card: Model) -> Iterator[tuple[str, str]]:
    about, origin, checks = card.facts, card.provenance, card.verification
    yield "version", facts.version(card)
    yield "precision", facts.known(card.precision)
    if card.variant_of:
        yield "variant of", plain(card.variant_of)
    yield "labels", facts.label_set(card)
    yield "input", f"{facts.input_size(card)}: {facts.known(card.input.resize)}"
    if card.detection_defaults:
        defaults = card.detection_defaults
        yield (
            "thresholds",
            f"score {defaults.score_threshold:g}, IoU {defaults.iou_threshold:g}, "
            f"at most {defaults.max_detections} boxes",
        )
    if card.accuracy:
        yield card.accuracy.metric, _accuracy(card.accuracy)
        yield "  measured on", plain(card.accuracy.source)
    yield "runs on", provider(card.execution_provider)
    yield "", ""
    rows = fact_rows(card)
    for row in list(rows)[:COMPARED]:
        exact = f" ({about.parameter_count:,})" if row == "parameters" else ""
        yield row, plain(rows[row]) + exact
    yield "architecture", facts.known(about.architecture)
    yield "licence, weights", facts.known(about.weights_license)
    for fact, source in sorted(about.sources.items()):
        yield f"  source, {plain(fact)}", plain(source)
    yield "", ""
    yield "weights", facts.known(origin.weights_source)
    yield "SHA-256", facts.known(origin.weights_sha256)
    yield "exported", f"{facts.known(origin.exported_at)} by {facts.known(origin.exporter)}"
    if origin.conversion:
        yield "converted", plain(origin.conversion)
    for library, version in sorted(origin.libraries.items()):
        yield f"  {plain(library)}", plain(version)
    yield "weights digest", _verified(checks.digest)
    yield "golden sample", _verified(checks.golden_sample)


def _verified(done: bool) -> str:
    return "verified" if done else "not verified (the file has none)"


def _receipt_parts(receipt: Receipt | None) -> Iterator[RenderableType]:
    yield Text("\nReceipt", style="bold underline")
    if receipt is None:
        yield Text("None: the file has not been compared with its PyTorch original.")
        return
    yield Text(
        f"Compared with the PyTorch original at {plain(receipt.made_at)}. Largest differences: "
        f"score {_limited(receipt.max_score_difference, receipt.score_tolerance)}"
        f"{_box(receipt)}{_heat_map(receipt)}."
    )
    if not receipt.score_tolerance:
        yield Text("They have no limit; the accuracy shows the cost of the precision.")
    if receipt.rows:
        rows = receipt.rows
        yield Text(
            f"Before NMS, over all {rows.count:,} candidates: score "
            f"{rows.max_score_difference:.2g}, box {rows.max_box_difference_px:.2g} px of the "
            "model's input.\nAfter NMS (below), a box in only one answer is a candidate of both "
            "models; a near-tie changed the outcome of NMS."
        )
    yield Text()
    yield _receipt_table(receipt)


def _receipt_table(receipt: Receipt) -> Table:
    recorded = not receipt.score_tolerance
    classified = any(picture.same_top1 is not None for picture in receipt.pictures)
    table = plain_table()
    table.add_column("picture", overflow="fold")
    counts: tuple[str, ...] = ("in both", "only\nfile", "only\nPyTorch")
    if classified:
        counts = ("same top-1",) if recorded else ("compared", "excused")
    mapped = receipt.max_heat_map_difference is not None
    maps = ("map\ndiff",) if mapped else ()
    for header in ("size", *counts, "score\ndiff", "box\ndiff px", *maps):
        table.add_column(header, justify="right")
    for picture in receipt.pictures:
        box = picture.max_box_difference_px
        table.add_row(
            plain(picture.name),
            f"{picture.width} × {picture.height}",
            *_counts(picture, classified, recorded),
            f"{picture.max_score_difference:.1e}",
            _exponent(box),
            *((_exponent(picture.max_heat_map_difference),) if mapped else ()),
        )
    return table


def _counts(picture: ReceiptPicture, classified: bool, recorded: bool) -> tuple[str, ...]:
    if not classified:
        return str(picture.compared), str(picture.only_here), str(picture.only_in_original)
    if recorded:
        return ("yes" if picture.same_top1 else "no",)
    return str(picture.compared), str(picture.excused)


def _accuracy(accuracy: Accuracy) -> str:
    drop = (accuracy.original - accuracy.value) * 100
    return (
        f"{accuracy.value * 100:.1f} %, original {accuracy.original * 100:.1f} % "
        f"(difference {-drop:+.2f} ± {accuracy.error * 100:.2f} points)"
    )


def _limited(difference: float, tolerance: float) -> str:
    return f"{difference:.2g}" + (f" (limit {tolerance:g})" if tolerance else "")


def _exponent(difference: float | None) -> str:
    return "—" if difference is None else f"{difference:.1e}"


def _box(receipt: Receipt) -> str:
    if receipt.max_box_difference_px is None:
        return ""
    difference, tolerance = receipt.max_box_difference_px, receipt.box_tolerance_px
    return f", box {difference:.2g} px" + (f" (limit {tolerance:g} px)" if tolerance else "")


def _heat_map(receipt: Receipt) -> str:
    if receipt.max_heat_map_difference is None:
        return ""
    return f", heat map {_limited(receipt.max_heat_map_difference, receipt.heat_map_tolerance)}"
