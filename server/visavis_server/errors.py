"""The expected errors, each with the gRPC status that clients receive.

VisavisError
├── InvalidRequest        INVALID_ARGUMENT    the request is wrong; names the field
│   └── TaskMismatch                        the model can't perform the task
├── PermissionDenied      PERMISSION_DENIED   the server's settings don't allow it
├── Unimplemented         UNIMPLEMENTED       the server does not implement the method
├── Unauthenticated       UNAUTHENTICATED     the call carries no valid token
├── ModelNotFound         NOT_FOUND           no such model or version
├── CannotLoad            FAILED_PRECONDITION the model's file can't be served
├── Overloaded            RESOURCE_EXHAUSTED  the queue is full; retry later
├── DeadlineExceeded      DEADLINE_EXCEEDED   the deadline of the call has passed
├── Unavailable           UNAVAILABLE         starting or stopping
├── ModelFailed           INTERNAL            the model failed on this input
└── StartupError          (before serving)    the server can't start
    ├── InvalidSettings                       a setting is invalid
    ├── ModelFileError                        a model file is invalid
    │   └── CannotLoadNow                     for a transient cause: time, memory, a disk
    └── ProviderUnavailable                   the requested device is unusable
"""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import ClassVar


class VisavisError(Exception):
    """An expected error; its text is for the client and says what to do."""

    code: ClassVar[str] = "INTERNAL"
    field: str | None = None


class InvalidRequest(VisavisError):
    """The request is wrong: `field` is the path of the field in the request message."""

    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class TaskMismatch(InvalidRequest):
    """The model exists but can't perform the requested task."""


class PermissionDenied(VisavisError):
    """The server's settings don't allow it; the text names the setting."""

    code = "PERMISSION_DENIED"


class Unimplemented(VisavisError):
    """The server does not implement the method; the text says what to do instead."""

    code = "UNIMPLEMENTED"


class Unauthenticated(VisavisError):
    """The call carries no valid token; the text says how to send one."""

    code = "UNAUTHENTICATED"


class ModelNotFound(VisavisError):
    """No such model or version exists; the text lists those that do."""

    code = "NOT_FOUND"

    def __init__(self, message: str, field: str = "model") -> None:
        super().__init__(message)
        self.field = field


class CannotLoad(VisavisError):
    """The file of a model to load can't be served; the text says why."""

    code = "FAILED_PRECONDITION"


class Overloaded(VisavisError):
    """Too many requests are waiting already."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(VisavisError):
    """The deadline passed before the work started."""

    code = "DEADLINE_EXCEEDED"


class Unavailable(VisavisError):
    """The server is starting or stopping; a retry may succeed."""

    code = "UNAVAILABLE"


class Stopping(Unavailable):
    """The server is stopping: calls under way finish, new ones are rejected."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; retry on another server")


class ModelFailed(VisavisError):
    """The model failed on an accepted input."""


class StartupError(VisavisError):
    """The server can't start."""


class InvalidSettings(StartupError):
    """A setting, or the settings file, is invalid."""


class ModelFileError(StartupError):
    """A model file is invalid."""


class CannotLoadNow(ModelFileError):
    """A model file can't be loaded for a transient cause: time, memory, a disk."""


class ProviderUnavailable(StartupError):
    """The requested execution provider is unusable on this machine."""


def drop_traceback(error: BaseException) -> None:
    """Drop the traceback, context and cause of an error that is not raised further.

    The traceback's frames hold the error and the call's picture. This reference cycle would keep
    the picture in memory until a garbage collection.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


def correction(name: str, names: Iterable[str]) -> str:
    """Return " (did you mean NAME?)" with the most similar of some names; empty if none is.

    name: may be untrusted. At most 100 names are compared: more would block the event loop.
    """
    near = get_close_matches(name[:_LONGEST_LISTED], islice(names, _MOST_COMPARED), 1, 0.75)
    return f" (did you mean {near[0]}?)" if near else ""


_MOST_COMPARED = 100
_MOST_LISTED = 32
_LONGEST_LISTED = 64


def listed(names: Iterable[str]) -> str:
    """Return names sorted and separated by commas; 'none' if there are none.

    Names may be untrusted: long names are cut, and only the first 32 are listed.
    """
    some = [name[:_LONGEST_LISTED] for name in sorted(names)]
    left = len(some) - _MOST_LISTED
    more = f" and {left} more" if left > 0 else ""
    return (", ".join(some[:_MOST_LISTED]) or "none") + more
