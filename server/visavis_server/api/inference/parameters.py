"""Parameters of the Open Inference Protocol, which some clients can only send as texts."""

import re
from collections.abc import Mapping
from typing import Any, Final

from visavis_server.errors import InvalidRequest

Parameters = Mapping[str, Any]
"""Truth values, numbers and texts by name."""

_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_LONGEST: Final = 64
_TRUTHS: Final[Mapping[Any, bool]] = {"true": True, "1": True, "false": False, "0": False}


def number(parameters: Parameters, name: str, field: str = "") -> float | None:
    """Return a number, sent as one or as its text; None: it is absent.

    field: where it stands in the request. Raises InvalidRequest if it is no number.
    """
    value = parameters.get(name)
    if isinstance(value, str) and len(value) <= _LONGEST and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise _wrong(name, value, "a number", field)


def whole(parameters: Parameters, name: str, field: str = "") -> int | None:
    """Return a whole number, as `number` does."""
    value = number(parameters, name, field)
    if isinstance(value, float):
        if not value.is_integer():
            raise _wrong(name, parameters[name], "a whole number", field)
        return int(value)
    return value


def truth(parameters: Parameters, name: str) -> bool | None:
    """Return a truth value, sent as one or as its text; None: it is absent.

    Raises InvalidRequest if it is neither.
    """
    value = parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    text = value.lower().strip() if isinstance(value, str) and len(value) <= _LONGEST else value
    if text not in _TRUTHS:
        raise _wrong(name, value, "true or false", "")
    return _TRUTHS[text]


def _wrong(name: str, value: object, kind: str, field: str) -> InvalidRequest:
    return InvalidRequest(
        field or f"parameters[{name}]", f"{name} is {str(value)[:_LONGEST]!r}; it must be {kind}"
    )
