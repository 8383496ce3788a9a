"""The terminal: where tables go, and how foreign text gets there unharmed."""

from typing import Final

from rich.console import Console
from rich.text import Text

RANDOM_MARK: Final = "RANDOM WEIGHTS"


def stdout() -> Console:
    """Return the console for answers; as wide as the terminal, 80 columns where there is none."""
    return Console(markup=False, highlight=False, emoji=False)


def stderr() -> Console:
    """Return the console for whatever isn't an answer."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def plain(text: str) -> str:
    """Return text from elsewhere on one line, without anything that could steer a terminal.

    Labels, model names, file names and messages are whatever somebody wrote into them: escape
    sequences, line breaks, marks that turn the direction of reading.
    """
    return "".join(
        character
        if character.isprintable()
        else " "
        if character.isspace()
        else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def complain(message: str, about: str = "") -> None:
    """Print what went wrong to stderr. about: the picture that it concerns."""
    lines = [plain(line) for line in message.splitlines()]
    subject = f"{plain(about)}: " if about else ""
    text = Text.assemble(("visavis: ", "bold red"), subject, "\n".join(lines))
    stderr().print(text, soft_wrap=True)


def random_mark() -> Text:
    """Return the mark of a model whose weights are random."""
    return Text(RANDOM_MARK, style="bold white on red")
