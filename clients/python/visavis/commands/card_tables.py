"""Cards as tables: all models side by side, or one model in full with its receipt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from visavis.cards import Accuracy, Model, Receipt, ReceiptPicture
from visavis.commands import facts
from visavis.commands.answer_tables import plain_table, provider
from visavis.commands.console import plain, random_mark

# Two facts share a column, one below the other, so that all of them fit into 80 characters.
_HEADERS = (
    "model\nvariant, runs on",
    "task\nlabels",
    "parameters\nreal-time",
    "organization\nreleased",
    "licence: code\nweights",
)

# Rich measures no table beyond the width that it is given.
_ANY_WIDTH = 10_000


def cards_table(cards: Sequence[Model]) -> RenderableType:
    """Return the comparison table of all models; where it is too wide, a block for each."""
    return _Cards(cards) if cards else Text("The server has no models.")


@dataclass(frozen=True)
class _Cards:
    """All models side by side as long as no word breaks, and below each other where one would."""

    cards: Sequence[Model]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        table = _side_by_side(self.cards)
        needed = Measurement.get(console, options.update(width=_ANY_WIDTH), table).minimum
        if needed <= options.max_width:
            yield table
            return
        for card in self.cards:
            if card is not self.cards[0]:
                yield Text()
            yield _name(card)
            yield _block(card)


def _side_by_side(cards: Sequence[Model]) -> Table:
    table = plain_table()
    columns = zip(*([_name(card), *map(_stacked, _pairs(card))] for card in cards), strict=True)
    for header, cells in zip(_HEADERS, columns, strict=True):
        words = " ".join([header, *(cell.plain for cell in cells)]).split()
        # Rich would make columns narrower than their words.
        table.add_column(header, min_width=max(map(cell_len, words)))
    for card in cards:
        if card is not cards[0]:
            table.add_row()
        table.add_row(_name(card), *map(_stacked, _pairs(card)))
    return table


def _block(card: Model) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for header, pair in zip(_HEADERS[1:], _pairs(card), strict=True):
        for label, fact in zip(header.split("\n"), pair, strict=True):
            grid.add_row(f"  {label}", fact)
    return grid


def _name(card: Model) -> Text:
    name = Text.assemble(
        (plain(card.name), "bold"),
        (
            f"\nv{card.version} · {plain(card.precision)} · {provider(card.execution_provider)}",
            "dim",
        ),
    )
    if card.random_weights:
        name.append("\n").append_text(random_mark())
    return name


def _pairs(card: Model) -> Iterator[tuple[str, str]]:
    about = card.facts
    yield facts.tasks(card), facts.known(card.label_set.name)
    yield facts.parameters(about.parameter_count), facts.yes_or_no(about.real_time)
    yield facts.known(about.organization), facts.known(about.release_date)
    yield facts.known(about.code_license), facts.known(about.weights_license)


def _stacked(pair: tuple[str, str]) -> Text:
    above, below = pair
    return Text.assemble(above, "\n", (below, "dim"))


def card_table(card: Model) -> RenderableType:
    """Return one card in full."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in _facts(card):
        grid.add_row(label, value)
    title = Text(plain(card.name), style="bold")
    if card.random_weights:
        title.append("  ").append_text(random_mark())
        title.append(" its answers have no meaning", style="not bold")
    return Group(title, Text(), grid, *_receipt_parts(card.receipt))


def _facts(card: Model) -> Iterator[tuple[str, str]]:
    about, origin, checks = card.facts, card.provenance, card.verification
    yield "version", facts.version(card)
    yield "precision", facts.known(card.precision)
    if card.variant_of:
        yield "variant of", plain(card.variant_of)
    yield "task", facts.tasks(card)
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
    yield "architecture", facts.known(about.architecture)
    yield "organization", facts.known(about.organization)
    yield "released", facts.known(about.release_date)
    yield "category", facts.known(about.category)
    yield "modality", facts.known(about.modality)
    window = about.context_window
    yield "context window", "none" if window is None else f"{window} tokens"
    yield "parameters", f"{facts.parameters(about.parameter_count)} ({about.parameter_count:,})"
    yield "real-time", facts.yes_or_no(about.real_time)
    yield "licence, code", facts.known(about.code_license)
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
    yield "weights digest", "verified" if checks.digest else "not verified: none in the file"
    golden = "verified" if checks.golden_sample else "not verified: none in the file"
    yield "golden sample", golden


def _receipt_parts(receipt: Receipt | None) -> Iterator[RenderableType]:
    yield Text("\nReceipt", style="bold underline")
    if receipt is None:
        yield Text("None: nobody has proved how closely the file follows its original.")
        return
    yield Text(
        f"Made {plain(receipt.made_at)} against the PyTorch original. Largest differences: "
        f"score {_allowed(receipt.max_score_difference, receipt.score_tolerance)}" + _box(receipt)
    )
    if not receipt.score_tolerance:
        yield Text("Nothing limits them: the accuracy says what the precision costs.")
    if receipt.rows:
        rows = receipt.rows
        yield Text(
            f"Before NMS every candidate is compared, {rows.count:,} of them: score "
            f"{rows.max_score_difference:.2g}, box {rows.max_box_difference_px:.2g} px of the "
            "model's input.\nAfter NMS, below: the compared boxes are in both answers. Those only "
            "here and only there are candidates of the original too, kept or dropped by a near-tie."
        )
    recorded = not receipt.score_tolerance
    classified = any(picture.same_top1 is not None for picture in receipt.pictures)
    table = plain_table()
    table.add_column("picture", overflow="fold")
    counts: tuple[str, ...] = ("compared", "only here", "only there")
    if classified:
        counts = ("same top-1",) if recorded else ("compared", "excused")
    for header in ("size", *counts, "score diff", "box diff px"):
        table.add_column(header, justify="right")
    for picture in receipt.pictures:
        box = picture.max_box_difference_px
        table.add_row(
            plain(picture.name),
            f"{picture.width} × {picture.height}",
            *_counts(picture, classified, recorded),
            f"{picture.max_score_difference:.1e}",
            "—" if box is None else f"{box:.1e}",
        )
    yield Text()
    yield table


def _counts(picture: ReceiptPicture, classified: bool, recorded: bool) -> tuple[str, ...]:
    if not classified:
        return str(picture.compared), str(picture.only_here), str(picture.only_in_original)
    if recorded:
        return ("yes" if picture.same_top1 else "no",)
    return str(picture.compared), str(picture.excused)


def _accuracy(accuracy: Accuracy) -> str:
    drop = (accuracy.original - accuracy.value) * 100
    return (
        f"{accuracy.value * 100:.1f} %, its original {accuracy.original * 100:.1f} % "
        f"({-drop:+.2f} ± {accuracy.error * 100:.2f} points)"
    )


def _allowed(difference: float, tolerance: float) -> str:
    return f"{difference:.2g}" + (f" of {tolerance:g} allowed" if tolerance else "")


def _box(receipt: Receipt) -> str:
    if receipt.max_box_difference_px is None:
        return "."
    difference, tolerance = receipt.max_box_difference_px, receipt.box_tolerance_px
    return f", box {difference:.2g}" + (f" of {tolerance:g} px." if tolerance else " px.")
