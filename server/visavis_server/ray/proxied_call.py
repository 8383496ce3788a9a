"""A call as a proxy of Ray Serve sees it, between gRPC and the proxy."""

from collections.abc import Sequence
from typing import Any, Final, NoReturn

import grpc

from visavis_server.errors import DeadlineExceeded, Overloaded, Unavailable, VisavisError
from visavis_server.ray.methods import DETAILS, TIMEOUT
from visavis_server.transport.calls import REQUEST_ID, request_id_of
from visavis_server.transport.grpc.handlers import Context
from visavis_server.transport.statuses import code_of, status_of

TOKEN: Final = "authorization"
"""The header with a client's token."""

_RETRY_S: Final = 1.0
_OURS: Final = (REQUEST_ID, DETAILS)


class ProxiedCall:
    """A call's context, with the call's deadline in its headers.

    path: of its method. request_id: by default the client's, or a new one.

    It keeps the status that the proxy sets, until `finish` gives it to the client.
    """

    def __init__(self, context: Context, path: str, request_id: str | None = None) -> None:
        self._context = context
        self._path = path
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Sequence[tuple[str, Any]] = ()
        self._request_id = request_id or request_id_of(next(iter(self.headers(REQUEST_ID)), None))

    def again(self) -> "ProxiedCall":
        """Return the call for another of its requests, with a status of its own."""
        return ProxiedCall(self._context, self._path, self._request_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def headers(self, name: str) -> list[Any]:
        """Return the values of a header."""
        return [value for key, value in self._context.invocation_metadata() or () if key == name]

    def invocation_metadata(self) -> list[tuple[str, Any]]:
        """Return the headers, with the request's id and the time that the call has left.

        Without the token, which no replica needs.
        """
        replaced = (REQUEST_ID, TIMEOUT, TOKEN)
        sent = self._context.invocation_metadata() or ()
        headers = [(key, value) for key, value in sent if key not in replaced]
        headers.append((REQUEST_ID, self._request_id))
        if (left_s := self._context.time_remaining()) is not None:
            headers.append((TIMEOUT, repr(left_s)))
        return headers

    def code(self) -> grpc.StatusCode | None:
        """Return the status that was set."""
        return self._code

    def details(self) -> str:
        """Return the status message that was set."""
        return self._details

    def trailing_metadata(self) -> Sequence[tuple[str, Any]]:
        """Return the trailing metadata that was set."""
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """Keep a status."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Keep a status message."""
        self._details = details

    def set_trailing_metadata(self, trailing: Sequence[tuple[str, Any]]) -> None:
        """Keep the trailing metadata."""
        self._trailing = trailing

    @property
    def failed(self) -> bool:
        """True if a status other than OK was set."""
        return self._code not in (None, grpc.StatusCode.OK)

    async def finish(self) -> None:
        """Give the client the status that was set, in our words if it is not ours."""
        if not self.failed:
            self._context.set_trailing_metadata(((REQUEST_ID, self._request_id),))
            return
        assert self._code is not None
        ours = tuple((key, value) for key, value in self._trailing if key in _OURS)
        if any(key == DETAILS for key, _ in ours):
            await self._context.abort(self._code, self._details, trailing_metadata=ours)
        await self.abort(_in_our_words(self._code))

    async def abort(self, error: VisavisError) -> NoReturn:
        """End the call with the status of an error."""
        status = status_of(error, self._path, self._request_id)
        trailing = ((REQUEST_ID, self._request_id), (DETAILS, status.SerializeToString()))
        code = grpc.StatusCode[code_of(error)]
        await self._context.abort(code, status.message, trailing_metadata=trailing)


def _in_our_words(code: grpc.StatusCode) -> VisavisError:
    """Return the error that a status of Ray's means; its message may name Ray's internals."""
    match code:
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded("too many requests are waiting; try again later", _RETRY_S)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded("the request took longer than the server allows")
        case grpc.StatusCode.CANCELLED:
            return Unavailable("the call was cancelled; retry")
        case grpc.StatusCode.NOT_FOUND:
            return Unavailable("no application is deployed yet; retry in a moment")
    # A replica of the ingress ended: it gives every error of its own a status of ours.
    return Unavailable("a replica ended during the call; retry")
