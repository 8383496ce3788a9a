"""What the errors of the libraries mean: they have no base in common."""

import re
from typing import Final

from visavis_server.pull.errors import LibraryMissing

# Words in the names of their classes.
_NO_CREDENTIALS: Final = re.compile(r"Credential|Authenticat|Gated|RefreshError")
_UNREACHABLE: Final = re.compile(
    r"Connect|Timeout|Transport|Network|Protocol|Payload|IncompleteRead|Endpoint|ServiceRe"
)
_TOO_MANY_REQUESTS: Final = 429


def is_transient(error: Exception) -> bool:
    """Return True if the same request may succeed later."""
    status = status_of(error) or 0
    return (
        isinstance(error, OSError)
        or bool(_UNREACHABLE.search(_names(error)))
        or status == _TOO_MANY_REQUESTS
        or status >= 500
    )


def is_denied(error: Exception) -> bool:
    """Return True if credentials are missing, or do not suffice."""
    return (
        isinstance(error, PermissionError)
        or status_of(error) in (401, 403)
        or bool(_NO_CREDENTIALS.search(_names(error)))
        or (isinstance(error, ValueError) and "credentials" in str(error))  # adlfs
    )


def status_of(error: Exception) -> int | None:
    """Return the HTTP status of an error, if it has one."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def missing(scheme: str, module: str) -> LibraryMissing:
    """Return the error for a library that is not installed."""
    return LibraryMissing(
        f"{scheme}:// needs the module {module}, which is not installed; install it: "
        "pip install 'visavis-server[pull]'"
    )


def _names(error: Exception) -> str:
    return " ".join(kind.__name__ for kind in type(error).__mro__)
