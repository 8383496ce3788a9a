"""The rule for model names."""

from typing import Final

# One path segment: no separators, no leading dot, no control characters.
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
NAME_RULE: Final = (
    "a model's name starts with a letter or digit and has at most 128 of A-Z a-z 0-9 . _ -"
)
