"""Translates gRPC statuses and their google.rpc details into this package's errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2  # Ships no py.typed.
from grpc_status import rpc_status

from visavis import errors

# All other statuses are the server's fault: INTERNAL, UNKNOWN, DATA_LOSS, ABORTED.
_ERRORS: dict[str, type[errors.VisavisError]] = {
    "INVALID_ARGUMENT": errors.InvalidRequest,
    "OUT_OF_RANGE": errors.InvalidRequest,
    "FAILED_PRECONDITION": errors.InvalidRequest,
    "NOT_FOUND": errors.ModelNotFound,
    "UNAUTHENTICATED": errors.AccessDenied,
    "PERMISSION_DENIED": errors.AccessDenied,
    "UNIMPLEMENTED": errors.Unsupported,
    "RESOURCE_EXHAUSTED": errors.Overloaded,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "UNAVAILABLE": errors.Unavailable,
    "CANCELLED": errors.Cancelled,
}

_TOO_LARGE = re.compile(
    r"(?P<side>CLIENT|SERVER): Received message larger than max "
    r"\((?P<size>\d+) vs\. (?P<most>\d+)\)"
)


@contextmanager
def translated(address: str, timeout: float) -> Iterator[None]:
    """Raise a VisavisError instead of a call's gRPC error, which becomes its cause.

    address, timeout: of the call, for the message.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, address, timeout) from error


def from_rpc_error(error: grpc.RpcError, address: str, timeout: float) -> errors.VisavisError:
    """Return the error for a failed call, with its details decoded."""
    code = error.code().name
    violations: tuple[errors.FieldViolation, ...] = ()
    request_id = retry_after_s = None
    details = _details(error)
    for any_detail in details.details if details else ():
        bad_request = error_details_pb2.BadRequest()
        request_info = error_details_pb2.RequestInfo()
        retry_info = error_details_pb2.RetryInfo()
        with suppress(DecodeError):  # A detail that can't be read is as good as none.
            if any_detail.Unpack(bad_request):
                violations = tuple(
                    errors.FieldViolation(violation.field, violation.description)
                    for violation in bad_request.field_violations
                )
            elif any_detail.Unpack(request_info):
                request_id = request_info.request_id or None
            elif any_detail.Unpack(retry_info):
                delay = retry_info.retry_delay
                retry_after_s = max(0.0, delay.seconds + delay.nanos / 1e9)
    message = error.details() or code
    if details is None:
        message = _plain_message(code, message, address, timeout)
    kind = _ERRORS.get(code, errors.ServerFailed)
    if details is None and (too_large := _TOO_LARGE.search(error.details() or "")):
        # gRPC reports a message that is too large with the status of an overloaded server.
        kind, message = errors.InvalidRequest, _too_large_message(**too_large.groupdict())
    if kind is errors.ServerFailed and request_id and request_id not in message:
        message = f"{message} (request id {request_id}; see the server's log)"
    return kind(
        message,
        code=code,
        violations=violations,
        request_id=request_id,
        retry_after_s=retry_after_s,
    )


def _details(error: grpc.RpcError) -> Any:
    """Return the google.rpc.Status of a failed call; None if it has none."""
    try:
        return rpc_status.from_call(cast(grpc.Call, error))
    # The details contradict the status or can't be read; the plain status still holds.
    except (ValueError, DecodeError):
        return None


def _too_large_message(side: str, size: str, most: str) -> str:
    if side == "SERVER":
        return (
            f"the request is {size} bytes; the server's limit (max_message_bytes) is {most}; "
            "send a smaller picture"
        )
    return (
        f"the response is {size} bytes; this client's limit is {most}; "
        "request fewer models or no annotated picture"
    )


def _plain_message(code: str, message: str, address: str, timeout: float) -> str:
    """Return a message for a status without details, which usually comes from gRPC itself."""
    if code == "UNAVAILABLE":
        # "failed to connect to all addresses; last error: UNKNOWN: ipv4:…: Connection refused"
        reason = re.sub(r"^UNKNOWN: \S+: ", "", message.rpartition("last error: ")[2])
        # Keep the system's own text: "…:[field:… os_error: Name or service not known syscall:
        # getaddrinfo]", "… error: No such file or directory".
        if system := re.search(r"\b(?:os_)?error: ([^:\[\]]+?)(?: syscall: \w+)?\]?$", reason):
            reason = system[1]
        return f"no answer from {address}: {reason}"
    if code == "DEADLINE_EXCEEDED":
        return f"no answer from {address} within {timeout:g} s; try a longer timeout"
    if code == "CANCELLED" and "RST_STREAM" in message:
        return (
            f"a proxy or a stopping server cut off the call to {address}: {message}; "
            "HAProxy before 3.0 does so when the server rejects a call"
        )
    if code == "UNIMPLEMENTED":
        return f"the server at {address} doesn't support this call: {message}"
    return message
