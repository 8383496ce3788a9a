"""The cards of all models as one table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from visavis.cards import Model
from visavis.commands import facts
from visavis.commands.answer_tables import plain_table, provider
from visavis.commands.console import plain, random_mark

# Each column holds two facts, one below the other, so that the table fits into 80 characters.
_HEADERS = (
    "model\nvariant, runs on",
    "task\nlabels",
    "parameters\nreal-time",
    "organization\nreleased",
    "licence: code\nweights",
)

# Rich measures a table only up to the available width.
_ANY_WIDTH = 10_000


def cards_table(cards: Sequence[Model]) -> RenderableType:
    """Return a table of all models, or a block per model if the terminal is too narrow."""
    return _Cards(cards) if cards else Text("The server has no models.")


@dataclass(frozen=True)
class _Cards:
    """All models in one table; in blocks if the table would break a word."""

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
        # Without a minimum Rich makes columns narrower than their words.
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
