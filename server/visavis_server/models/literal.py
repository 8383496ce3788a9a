"""Reads the plain Python literals that ultralytics writes into a file's metadata.

They are text of strangers. `ast.literal_eval` evaluates nothing, but its parser takes memory and
C stack for whatever is nested in it; this reads a flat list or dict, one atom after the other.
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
        '(?:[^'\\\n]|\\.)*' | "(?:[^"\\\n]|\\.)*"      # text, as repr writes it
        | -?\d{1,20}(?:\.\d{0,20})?(?:e[+-]?\d{1,3})?
        | True | False | None
    )\s*""",
    re.VERBOSE,
)


def read_literal(text: str) -> Literal:
    """Return a number, a text, a list (tuples are lists too) or a dict of them.

    Raises ValueError for anything else: containers in containers, names, calls, too much.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"it has {len(text)} characters; {MAX_LENGTH} are allowed")
    text = text.strip()
    if text[:1] + text[-1:] in ("[]", "()"):
        return [value for value, _ in _items(text[1:-1], pairs=False)]
    if text[:1] + text[-1:] == "{}":
        items = _items(text[1:-1], pairs=True)
        if len(found := dict(items)) < len(items):
            raise ValueError("a key is there twice")
        return found
    value, end = _atom(text, 0)
    if end != len(text):
        raise ValueError(f"something follows at character {end}")
    return value


def _items(text: str, pairs: bool) -> list[tuple[Atom, Atom]]:
    found: list[tuple[Atom, Atom]] = []
    text, end = text.strip(), 0
    while end < len(text):
        first, end = _atom(text, end)
        second: Atom = None
        if pairs:
            second, end = _atom(text, _after(text, end, ":"))
        found.append((first, second))
        if end < len(text):
            end = _after(text, end, ",")
    return found


def _atom(text: str, start: int) -> tuple[Atom, int]:
    found = _ATOM.match(text, start)
    if found is None or len(found[1]) > _MAX_ATOM_LENGTH:
        raise ValueError(f"no plain value at character {start}")
    try:
        value: Atom = ast.literal_eval(found[1])
    except (SyntaxError, ValueError):
        raise ValueError(f"no plain value at character {start}") from None
    return value, found.end()


def _after(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise ValueError(f"no {sign!r} at character {at}")
    return at + 1
