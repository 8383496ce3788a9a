"""Parameters of the Open Inference Protocol, which some clients can only send as strings."""

import re
from collections.abc import Mapping
from typing import Any, Final

from visavis_server.errors import InvalidRequest

Parameters = Mapping[str, Any]
"""Booleans, numbers and strings by name."""

_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_LONGEST: Final = 64
_TRUTHS: Final[Mapping[Any, bool]] = {"true": True, "1": True, "false": False, "0": False}


def number(parameters: Parameters, name: str, field: str = "") -> float | None:
    """Return a parameter that is a number or the text of one; None if it is absent.

    field: its path in the request. Raises InvalidRequest if it is not a number.
    """
    value = parameters.get(name)
    if isinstance(value, str) and len(value) <= _LONGEST and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise _invalid(name, value, "a number", field)


def whole(parameters: Parameters, name: str, field: str = "") -> int | None:
    """Return a parameter that is an integer; otherwise as `number`."""
    value = number(parameters, name, field)
    if isinstance(value, float):
        if not value.is_integer():
            raise _invalid(name, parameters[name], "an integer", field)
        return int(value)
    return value


def truth(parameters: Parameters, name: str) -> bool | None:
    """Return a parameter that is a boolean or the text of one; None if it is absent.

    Raises InvalidRequest if it is neither.
    """
    value = parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    text = value.lower().strip() if isinstance(value, str) and len(value) <= _LONGEST else value
    if text not in _TRUTHS:
        raise _invalid(name, value, "true or false", "")
    return _TRUTHS[text]


def _invalid(name: str, value: object, kind: str, field: str) -> InvalidRequest:
    return InvalidRequest(
        field or f"parameters[{name}]", f"{name} is {str(value)[:_LONGEST]!r}; it must be {kind}"
    )
