"""The exceptions that a call can raise.

VisavisError
├── InvalidSettings   (before any call)    the address, TLS files or token are unusable
├── InvalidData       (before any call)    a folder of pictures or a file of labels is unusable
├── InvalidRequest    INVALID_ARGUMENT     the request is invalid; `field` names the field
├── ModelNotFound     NOT_FOUND            no such model or version; the message lists those served
├── AccessDenied      UNAUTHENTICATED      the token is missing, wrong or lacks permission
├── Unsupported       UNIMPLEMENTED        the server lacks this method: it is older, or another
├── Overloaded        RESOURCE_EXHAUSTED   the server is overloaded; retry after `retry_after_s`
├── DeadlineExceeded  DEADLINE_EXCEEDED    the timeout ran out
├── Unavailable       UNAVAILABLE          no server answers, or it is starting or stopping
├── Cancelled         CANCELLED            cancelled by the client, or cut off on the way
└── ServerFailed      INTERNAL             the server failed; its log has details by `request_id`

An unreadable path raises Python's own OSError.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldViolation:
    """One invalid field of a request: its path in the message, and the reason."""

    field: str
    description: str


class VisavisError(Exception):
    """An error with a message for people.

    code: name of the gRPC status. violations: all invalid fields. request_id: identifies the call
    in the server's log. retry_after_s: seconds to wait before a retry, as the server requests.
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
        """The path of the first invalid field, such as `image` or `top_k`."""
        return self.violations[0].field if self.violations else None


class InvalidSettings(VisavisError, ValueError):
    """The address, the TLS files or the token are unusable."""

    default_code = "INVALID_ARGUMENT"


class InvalidData(VisavisError, ValueError):
    """A folder of pictures or a file of labels is unusable; the message names file and line."""

    default_code = "INVALID_ARGUMENT"


class InvalidRequest(VisavisError, ValueError):
    """The request is invalid: `field` names the first invalid field, `violations` lists all."""

    default_code = "INVALID_ARGUMENT"


class ModelNotFound(VisavisError):
    """The server has no such model, or no such version of it."""

    default_code = "NOT_FOUND"


class AccessDenied(VisavisError):
    """The token is missing or wrong, or does not allow this call."""

    default_code = "UNAUTHENTICATED"


class Unsupported(VisavisError):
    """The server lacks this method: it is older than the client, or not a visavis server."""

    default_code = "UNIMPLEMENTED"


class Overloaded(VisavisError):
    """The server is overloaded; `retry_after_s` says how long to wait before a retry."""

    default_code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(VisavisError):
    """The timeout ran out before the answer arrived."""

    default_code = "DEADLINE_EXCEEDED"


class Unavailable(VisavisError):
    """No server answers at the address, or it is starting or stopping."""

    default_code = "UNAVAILABLE"


class Cancelled(VisavisError):
    """The client cancelled the call, or a proxy or a stopping server cut it off."""

    default_code = "CANCELLED"


class ServerFailed(VisavisError):
    """The server failed; the request was valid."""
