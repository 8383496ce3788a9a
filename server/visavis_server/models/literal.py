"""Reads the plain Python literals that ultralytics writes into a file's metadata.

The text is untrusted. `ast.literal_eval` executes nothing, but its parser uses memory and C stack
for nested input. This parser reads a flat list or dict, one atom after the other.
"""

import ast
import re

Atom = str | int | float | bool | None
Literal = Atom | list[Atom] | dict[Atom, Atom]

# A thousand names take 20 KB.
MAX_LENGTH = 4 << 20
_MAX_ATOM_LENGTH = 4096

_ATOM = re.compile(
    r"""\s*(
        '(?:[^'\\\n]|\\.)*' | "(?:[^"\\\n]|\\.)*"      # a string, as repr writes it
        | -?\d{1,20}(?:\.\d{0,20})?(?:e[+-]?\d{1,3})?
        | True | False | None
    )\s*""",
    re.VERBOSE,
)


def read_literal(text: str) -> Literal:
    """Return a number, a string, or a list or dict of them; tuples become lists.

    Raises ValueError for anything else: nested containers, names, calls, or text that is too long.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"it has {len(text)} characters; the limit is {MAX_LENGTH}")
    text = text.strip()
    if text[:1] + text[-1:] in ("[]", "()"):
        return [value for value, _ in _items(text[1:-1], pairs=False)]
    if text[:1] + text[-1:] == "{}":
        items = _items(text[1:-1], pairs=True)
        if len(table := dict(items)) < len(items):
            raise ValueError("a key is repeated")
        return table
    value, end = _atom(text, 0)
    if end != len(text):
        raise ValueError(f"unexpected text at character {end}")
    return value


def _items(text: str, pairs: bool) -> list[tuple[Atom, Atom]]:
    items: list[tuple[Atom, Atom]] = []
    text, end = text.strip(), 0
    while end < len(text):
        first, end = _atom(text, end)
        second: Atom = None
        if pairs:
            second, end = _atom(text, _after(text, end, ":"))
        items.append((first, second))
        if end < len(text):
            end = _after(text, end, ",")
    return items


def _atom(text: str, start: int) -> tuple[Atom, int]:
    match = _ATOM.match(text, start)
    if match is None or len(match[1]) > _MAX_ATOM_LENGTH:
        raise ValueError(f"expected a plain value at character {start}")
    try:
        value: Atom = ast.literal_eval(match[1])
    except (SyntaxError, ValueError):
        raise ValueError(f"expected a plain value at character {start}") from None
    return value, match.end()


def _after(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise ValueError(f"expected {sign!r} at character {at}")
    return at + 1
