"""The terminal: consoles, error messages, and text that is safe to print."""

from typing import Final

from rich.console import Console
from rich.text import Text

RANDOM_MARK: Final = "RANDOM WEIGHTS"


def stdout() -> Console:
    """Return the console for answers, as wide as the terminal, or 80 columns without one."""
    return Console(markup=False, highlight=False, emoji=False)


def stderr() -> Console:
    """Return the console for everything but answers."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def plain(text: str) -> str:
    """Return untrusted text on one line, without characters that could control a terminal.

    Labels, model names, file names and messages may contain escape sequences, line breaks and
    bidirectional control characters.
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
    """Print an error to stderr. about: the picture that it concerns."""
    lines = [plain(line) for line in message.splitlines()]
    subject = f"{plain(about)}: " if about else ""
    text = Text.assemble(("visavis: ", "bold red"), subject, "\n".join(lines))
    stderr().print(text, soft_wrap=True)


def random_mark() -> Text:
    """Return the mark of a model whose weights are random."""
    return Text(RANDOM_MARK, style="bold white on red")
