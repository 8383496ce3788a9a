"""Command lines that typer alone does not parse."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from typer.core import TyperCommand

_LIMITS: Final = ("--fail-under", "--max-drop")
_LIMIT: Final = re.compile(r"\w+=[0-9.]+")


class Explained(TyperCommand):
    """Takes `--explain` with or without a label."""

    # Typer's own context class changes with its version, hence Any.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give `--explain` an empty label where it has none, then parse."""
        return super().parse_args(ctx, _with_label(args))


class Compare(TyperCommand):
    """Takes `--json FILE.json` beside the flag, and several limits after one option."""

    # Typer's own context class changes with its version, hence Any.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrite what options with optional or several values look like, then parse."""
        plain: list[str] = []
        option = ""
        for argument in _with_label(args):
            if argument.startswith("-"):
                option = argument
            elif option == "--json" and argument.endswith(".json"):
                plain[-1] = "--json-file"
            elif option in _LIMITS and _LIMIT.fullmatch(argument) and plain[-1] != option:
                plain.append(option)
            if argument.startswith("--json="):
                argument = f"--json-file={argument.removeprefix('--json=')}"
            plain.append(argument)
        return super().parse_args(ctx, plain)


def _with_label(args: Sequence[str]) -> list[str]:
    """Return arguments in which every `--explain` is followed by a label, which may be empty.

    An option or an existing file after it is no label: `--explain bus.jpg`.
    """
    plain: list[str] = []
    for argument, following in zip(args, [*args[1:], "-"], strict=False):
        plain.append(argument)
        if argument == "--explain" and (following.startswith("-") or Path(following).exists()):
            plain.append("")
    return plain
