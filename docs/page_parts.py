"""Tables and sentences in Markdown, for generated pages."""

from collections.abc import Iterable, Iterator


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    columns = list(head)
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def first_sentence(kind: type) -> str:
    """Return the first paragraph of a class's docstring, on one line."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def code(text: str) -> str:
    """Return a text as code, which Markdown shows as it is; "" stays empty."""
    if "`" in text:
        return f"`` {text} ``"
    return text and f"`{text}`"
