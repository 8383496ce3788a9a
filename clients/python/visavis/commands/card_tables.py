"""The cards of models side by side: a row per fact, a column per model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from visavis.cards import Model
from visavis.commands.answer_tables import plain_table
from visavis.commands.console import plain
from visavis.commands.side_by_side import card_header
from visavis.fact_rows import COMPARED, fact_rows

# A column's padding and the space to the next one.
_BETWEEN = 2


def cards_table(cards: Sequence[Model]) -> RenderableType:
    """Return a table of the models, as many side by side as fit; a block each if only one does."""
    return _Cards(cards) if cards else Text("The server has no models.")


@dataclass(frozen=True)
class _Cards:
    cards: Sequence[Model]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        left, room = list(self.cards), options.max_width
        while left:
            count = next((n for n in range(len(left), 0, -1) if _fits(left[:n], room)), 0)
            shown, left = left[: count or 1], left[count or 1 :]
            yield _side_by_side(shown) if count else _block(shown[0])
            if left:
                yield Text()


def _fits(cards: Sequence[Model], room: int) -> bool:
    """Return True if a table of the models would break no word."""
    labels = max(map(cell_len, fact_rows(cards[0])))
    return sum(width + _BETWEEN for width in (labels, *map(_widest_word, cards))) <= room


def _widest_word(card: Model) -> int:
    words = [card_header(card).plain, *map(plain, fact_rows(card).values())]
    return max(cell_len(word) for text in words for word in text.split())


def _side_by_side(cards: Sequence[Model]) -> Table:
    table = plain_table()
    table.add_column("", style="dim", no_wrap=True)
    columns = [fact_rows(card) for card in cards]
    for card in cards:
        # Without a minimum Rich makes columns narrower than their words.
        table.add_column(card_header(card), overflow="fold", min_width=_widest_word(card))
    for index, row in enumerate(columns[0]):
        cells = [plain(column[row]) for column in columns]
        table.add_row(row, *cells, end_section=index == COMPARED - 1)
    return table


def _block(card: Model) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("", card_header(card))
    for row, text in fact_rows(card).items():
        grid.add_row(row, plain(text))
    return grid
