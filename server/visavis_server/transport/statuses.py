"""Errors as clients see them: a google.rpc.Status with details, the same through every door."""

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
    """Return the name of an error's code; INTERNAL for one that nobody expected."""
    return error.code if isinstance(error, VisavisError) else "INTERNAL"


def message_of(error: VisavisError) -> str:
    """Return what a client reads of an expected error."""
    return str(error)[:_MAX_MESSAGE_LENGTH]


def status_of(error: Exception, method: str, request_id: str) -> status_pb2.Status:
    """Return an error's status, with its field, the request's id, and when to come back.

    One that nobody expected is logged in full, and says no more than the request's id. Here its
    way ends: it forgets where it came from.
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
