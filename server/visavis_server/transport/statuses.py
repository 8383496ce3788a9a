"""Errors as google.rpc.Status with details, the same on every listener."""

from datetime import timedelta

import structlog
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from visavis_server.errors import Overloaded, VisavisError, drop_traceback

_log = structlog.get_logger()

_MAX_MESSAGE_LENGTH = 512
_CODES = dict(code_pb2.Code.items())


def code_of(error: Exception) -> str:
    """Return the name of an error's code; INTERNAL for an unexpected error."""
    return error.code if isinstance(error, VisavisError) else "INTERNAL"


def message_of(error: VisavisError) -> str:
    """Return the message of an expected error, limited in length, in text that has a UTF-8 form."""
    # JSON can name lone surrogates.
    return str(error)[:_MAX_MESSAGE_LENGTH].encode("utf-8", "backslashreplace").decode()


def status_of(error: Exception, method: str, request_id: str) -> status_pb2.Status:
    """Return an error's status, with its field, the request id, and the retry delay.

    An unexpected error is logged in full; its status has only the request id. The error loses its
    traceback, which would keep the call's objects alive.
    """
    if isinstance(error, VisavisError):
        message = message_of(error)
    else:
        message = f"internal error; request {request_id}"
        _log.error("call failed", method=method, request_id=request_id, exc_info=error)
    drop_traceback(error)
    details: list[Message] = [error_details_pb2.RequestInfo(request_id=request_id)]
    if isinstance(error, VisavisError) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Overloaded):
        delay = timedelta(milliseconds=round(error.retry_after_s * 1e3))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    code = _CODES[code_of(error)]
    return status_pb2.Status(code=code, message=message, details=map(_packed, details))


def _packed(detail: Message) -> Any:
    url = f"type.googleapis.com/{detail.DESCRIPTOR.full_name}"
    return Any(type_url=url, value=detail.SerializeToString())
