"""Everything that is expected to go wrong, each with the gRPC status that a client sees.

VisavisError
├── InvalidRequest        INVALID_ARGUMENT    the request is wrong; names the field
│   └── TaskMismatch                        the model can't do that task
├── PermissionDenied             PERMISSION_DENIED   the server's settings don't allow it
├── Unimplemented         UNIMPLEMENTED       the protocol has the method, this server has not
├── Unauthenticated       UNAUTHENTICATED     the call carries no token that is known
├── ModelNotFound         NOT_FOUND           no such model or version
├── CannotLoad            FAILED_PRECONDITION the model's file can't be served
├── Overloaded            RESOURCE_EXHAUSTED  the queue is full; try again later
├── DeadlineExceeded      DEADLINE_EXCEEDED   the caller's time ran out
├── Unavailable           UNAVAILABLE         starting or stopping
├── ModelFailed           INTERNAL            the model broke on this input
└── StartupError          (before serving)    the server can't start; says what to do
    ├── ModelFileError                        a model file is not what it should be
    │   └── CannotLoadNow                     for a cause that may pass: time, memory, a disk
    └── ProviderUnavailable                   the device that was asked for can't be used
"""

from collections.abc import Iterable
from typing import ClassVar


class VisavisError(Exception):
    """An expected error: its text is for the caller and says what to do."""

    code: ClassVar[str] = "INTERNAL"
    field: str | None = None


class InvalidRequest(VisavisError):
    """The request is wrong: `field` is the path of the field in the request message."""

    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class TaskMismatch(InvalidRequest):
    """The model exists and can't do what was asked."""


class PermissionDenied(VisavisError):
    """The server's settings don't allow it; the text names the setting."""

    code = "PERMISSION_DENIED"


class Unimplemented(VisavisError):
    """The protocol has this method, and this server does not; the text says what to do instead."""

    code = "UNIMPLEMENTED"


class Unauthenticated(VisavisError):
    """The call carries no token that is known; the text says how to send one."""

    code = "UNAUTHENTICATED"


class ModelNotFound(VisavisError):
    """No model, or no version of it, has that name; the text lists those that exist."""

    code = "NOT_FOUND"

    def __init__(self, message: str, field: str = "model") -> None:
        super().__init__(message)
        self.field = field


class CannotLoad(VisavisError):
    """A model was to be loaded, and its file can't be served; the text says why."""

    code = "FAILED_PRECONDITION"


class Overloaded(VisavisError):
    """Too much is waiting already."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(VisavisError):
    """The caller's time ran out before the work began."""

    code = "DEADLINE_EXCEEDED"


class Unavailable(VisavisError):
    """The server is starting or stopping; another attempt may succeed."""

    code = "UNAVAILABLE"


class Stopping(Unavailable):
    """New calls are refused, and those under way finish."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; try again elsewhere")


class ModelFailed(VisavisError):
    """The model broke on an input that was accepted."""


class StartupError(VisavisError):
    """The server can't start."""


class ModelFileError(StartupError):
    """A model file is not what it should be."""


class CannotLoadNow(ModelFileError):
    """A model file can't be loaded for a cause that may pass: time, memory, a disk."""


class ProviderUnavailable(StartupError):
    """The execution provider that was asked for can't be used on this machine."""


def drop_traceback(error: BaseException) -> None:
    """Drop the traceback, context and cause of an error that goes no further.

    The frames that it came through hold it, and the call's picture: in a circle they would stay
    until Python looks for circles.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


_MOST_LISTED = 32
_LONGEST_LISTED = 64


def listed(names: Iterable[str]) -> str:
    """Return names as people write a list: sorted, separated by commas, or 'none'.

    Names may be a stranger's: long ones are cut, and of many the first are listed.
    """
    some = [name[:_LONGEST_LISTED] for name in sorted(names)]
    left = len(some) - _MOST_LISTED
    more = f" and {left} more" if left > 0 else ""
    return (", ".join(some[:_MOST_LISTED]) or "none") + more
