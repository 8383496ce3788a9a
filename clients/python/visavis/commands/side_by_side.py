"""Tables with a column per model, split where they don't fit the terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from visavis.cards import Model
from visavis.commands.answer_tables import milliseconds, plain_table, variant
from visavis.commands.console import plain, random_mark
from visavis.results import ServedBy, Timings

NOTHING = Text("—", style="dim")
_COLUMN_WIDTH = 17


@dataclass(frozen=True)
class Column:
    """One model's cells, one per row."""

    header: Text
    cells: Sequence[Text]


@dataclass(frozen=True)
class SideBySide:
    """A table with a column per model, split to fit; each part repeats the first column.

    corner: header of the row labels. rows: the row labels. lines_after: rows with a line below.
    """

    corner: str
    rows: Sequence[Text]
    columns: Sequence[Column]
    lines_after: Sequence[int] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        label_width = max(len(label) for label in (Text(self.corner), *self.rows))
        room = options.max_width - label_width
        for columns in self._parts(room // (_COLUMN_WIDTH + 2)):
            yield Text()
            yield self._table(columns, min(_COLUMN_WIDTH, max(1, room - 2)))

    def _parts(self, fitting: int) -> Iterator[Sequence[Column]]:
        """Yield as many columns as fit, each time with the first; one by one if only one fits."""
        first, others = self.columns[0], self.columns[1:]
        if fitting < 2:
            yield from ([column] for column in self.columns)
            return
        for start in range(0, max(1, len(others)), fitting - 1):
            yield [first, *others[start : start + fitting - 1]]

    def _table(self, columns: Sequence[Column], width: int) -> Table:
        table = plain_table()
        table.add_column(self.corner, style="dim", no_wrap=True, vertical="bottom")
        lines = max(column.header.plain.count("\n") for column in columns)
        for column in columns:
            # Rich aligns headers at the bottom; padding aligns the names at the top.
            header = column.header + Text("\n " * (lines - column.header.plain.count("\n")))
            table.add_column(header, overflow="fold", min_width=width)
        for index, label in enumerate(self.rows):
            cells = [column.cells[index] for column in columns]
            table.add_row(label, *cells, end_section=index in self.lines_after)
        return table


def time_cells(timings: Timings | None) -> list[Text]:
    """Return the inference time and the total time of one answer, in milliseconds.

    A time that was not measured is 0 in the message and a dash here.
    """
    if timings is None:
        return [NOTHING, NOTHING]
    times = (timings.inference_ms, timings.total_ms)
    return [Text(milliseconds(time)) if time > 0 else NOTHING for time in times]


def card_header(card: Model, *, baseline: bool = False) -> Text:
    """Return the header of a model's column from its card."""
    served_by = ServedBy(
        model=card.name,
        version=card.version,
        precision=card.precision,
        execution_provider=card.execution_provider,
        random_weights=card.random_weights,
    )
    return model_header(served_by, baseline=baseline)


def model_header(served_by: ServedBy, *, baseline: bool = False, brief: bool = False) -> Text:
    """Return a model's name, its version and precision, and the mark of random weights.

    baseline: True for the model that the others are compared with. brief: True for only the name
    and the mark.
    """
    header = Text.assemble((plain(served_by.model), "bold"))
    if not brief:
        header.append(f"\n{variant(served_by)}", style="not bold dim")
    if baseline:
        header.append("\nbaseline", style="not bold cyan")
    if served_by.random_weights:
        header.append("\n").append_text(random_mark())
    return header
