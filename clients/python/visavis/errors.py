"""Everything that a call can raise, by who must act.

VisavisError
├── InvalidSettings   (before any call)    address, TLS or token can't be used as given
├── InvalidData       (before any call)    a folder of pictures, or a file of labels, is wrong
├── InvalidRequest    INVALID_ARGUMENT     the request is wrong; `field` says where
├── ModelNotFound     NOT_FOUND            no such model or version; the text lists them
├── AccessDenied      UNAUTHENTICATED      the token is missing or not good for this
├── Unsupported       UNIMPLEMENTED        the server doesn't know the call: older, or another
├── Overloaded        RESOURCE_EXHAUSTED   try again after `retry_after_s`
├── DeadlineExceeded  DEADLINE_EXCEEDED    the timeout ran out
├── Unavailable       UNAVAILABLE          nobody answers, or the server starts or stops
├── Cancelled         CANCELLED            the call was cancelled here, or cut off by a proxy
└── ServerFailed      INTERNAL             the server's fault; its log knows `request_id`

A path that can't be read raises the OSError that Python raises for it.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that was wrong, by its path in the message, and why."""

    field: str
    description: str


class VisavisError(Exception):
    """An error whose text is for a person.

    code: name of the gRPC status. request_id: under which the server logged the call.
    violations: every field that was wrong. retry_after_s: how long the server asks to wait.
    """

    default_code: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        violations: tuple[FieldViolation, ...] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.violations = violations
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    @property
    def field(self) -> str | None:
        """Path of the first field that was wrong, such as `image` or `top_k`."""
        return self.violations[0].field if self.violations else None


class InvalidSettings(VisavisError, ValueError):
    """The address, the TLS files or the token can't be used as given."""

    default_code = "INVALID_ARGUMENT"


class InvalidData(VisavisError, ValueError):
    """A folder of pictures or a file of labels can't be read as given; the text says where."""

    default_code = "INVALID_ARGUMENT"


class InvalidRequest(VisavisError, ValueError):
    """The request is wrong: `field` names the field, `violations` all of them."""

    default_code = "INVALID_ARGUMENT"


class ModelNotFound(VisavisError):
    """No model, or no version of it, has that name."""

    default_code = "NOT_FOUND"


class AccessDenied(VisavisError):
    """The server wants a token, or another one."""

    default_code = "UNAUTHENTICATED"


class Unsupported(VisavisError):
    """The server doesn't know this call: it is older than the client, or no visavis."""

    default_code = "UNIMPLEMENTED"


class Overloaded(VisavisError):
    """Too much is waiting already; `retry_after_s` says when to come back."""

    default_code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(VisavisError):
    """The timeout ran out before the answer was there."""

    default_code = "DEADLINE_EXCEEDED"


class Unavailable(VisavisError):
    """Nobody answers at the address, or the server is starting or stopping."""

    default_code = "UNAVAILABLE"


class Cancelled(VisavisError):
    """The call was cancelled here, or cut off by a proxy or a server that stopped."""

    default_code = "CANCELLED"


class ServerFailed(VisavisError):
    """The server failed through no fault of the caller."""
