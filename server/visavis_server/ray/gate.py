"""The services as a proxy of Ray Serve registers them: `grpc_options.grpc_servicer_functions`.

Runs in the proxies, with the settings in their node's environment (`VISAVIS_INSECURE`, ...).
Between gRPC and a proxy it keeps strangers out, tells the ingress the deadline of a call, and
replaces Ray's errors. It does not import Ray.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import cache
from typing import Any, Final
from urllib.parse import unquote

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from visavis_server.addresses import is_local
from visavis_server.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    VisavisError,
)
from visavis_server.ray.methods import (
    DETAILS,
    HEALTH,
    INFERENCE,
    TIMEOUT,
    VISION,
    Method,
    methods_of,
)
from visavis_server.settings import Settings, load_settings
from visavis_server.transport.calls import REQUEST_ID, request_id_of
from visavis_server.transport.grpc.handlers import Context, Details, Handler
from visavis_server.transport.grpc.receiver import EOF
from visavis_server.transport.statuses import code_of, status_of
from visavis_server.transport.tokens import Tokens

_RETRY_S: Final = 1.0
_ONLY_LOCAL: Final = (
    "the server answers calls from its own machine only; set VISAVIS_INSECURE in its node's "
    "environment if only trusted clients can reach it"
)
_TOKEN: Final = "authorization"
_OURS: Final = (REQUEST_ID, DETAILS)


def add_vision(servicer: object, server: grpc.aio.Server) -> None:
    """Register VisionService."""
    _add(VISION, server)


def add_inference(servicer: object, server: grpc.aio.Server) -> None:
    """Register the Open Inference Protocol."""
    _add(INFERENCE, server)


def add_health(servicer: object, server: grpc.aio.Server) -> None:
    """Register grpc.health.v1."""
    _add(HEALTH, server)


def _add(service: ServiceDescriptor, server: grpc.aio.Server) -> None:
    server.add_generic_rpc_handlers((_Gate(service, _settings(), _tokens()),))


@cache
def _settings() -> Settings:
    return load_settings({})


@cache
def _tokens() -> Tokens | None:
    path = _settings().tokens
    return Tokens(path) if path else None


class _Gate(grpc.ServiceRpcHandler):  # type: ignore[type-arg]  # only stubs know
    """Handles a service's calls: what a proxy must not do itself, before and after it.

    The proxy replaces the functions in `_method_handlers` by its own, and keeps their shape.
    """

    def __init__(
        self, service: ServiceDescriptor, settings: Settings, tokens: Tokens | None
    ) -> None:
        self._name = service.full_name
        self._settings = settings
        self._tokens = tokens
        self._methods = {method.path: method for method in methods_of(service)}
        self._method_handlers = {path: _shape(each) for path, each in self._methods.items()}

    def service_name(self) -> str:
        """Return the service's full name."""
        return self._name

    def service(self, details: Details) -> "Handler | None":
        """Return the handler of a call; None: the service has no such method.

        It takes the request as a stream, so that a call can be rejected before its message is
        received.
        """
        if (method := self._methods.get(details.method)) is None:
            return None
        proxied: Any = self._method_handlers[details.method]
        if method.streams:
            stream = self._stream(method, proxied.unary_stream)
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.stream_unary_rpc_method_handler(self._unary(method, proxied.unary_unary))

    def _unary(self, method: Method, proxied: Callable[..., Awaitable[bytes]]) -> Any:
        async def answer(requests: Any, context: Context) -> bytes:
            seen = _Seen(context, method)
            response = await proxied(await self._admitted(seen), seen)
            await seen.finish()
            return response

        return answer

    def _stream(self, method: Method, proxied: Callable[..., AsyncGenerator[bytes, None]]) -> Any:
        async def stream(requests: Any, context: Context) -> AsyncGenerator[bytes, None]:
            seen = _Seen(context, method)
            async with aclosing(proxied(await self._admitted(seen), seen)) as responses:
                async for response in responses:
                    if not seen.failed:
                        yield response
            await seen.finish()

        return stream

    async def _admitted(self, seen: "_Seen") -> bytes:
        """Return the message of a call, or end the call with the reason why it is rejected."""
        settings = self._settings
        if not (settings.insecure or _is_local(seen.peer())):
            await seen.abort(PermissionDenied(_ONLY_LOCAL))
        is_open = settings.open_health and self._name == HEALTH.full_name
        tokens = None if is_open else self._tokens
        if tokens is not None and (why := tokens.refusal(seen.headers(_TOKEN))):
            await seen.abort(Unauthenticated(why))
        message = await seen.read()
        if message is EOF:
            await seen.abort(InvalidRequest("request", "the call ended without a request"))
        if len(message) > (most := settings.max_message_bytes):
            why = f"the request has {len(message)} bytes; the limit is {most}"
            await seen.abort(InvalidRequest("request", why))
        return bytes(message)


class _Seen:
    """A call's context, as the proxy sees it: with the call's deadline in its headers.

    It keeps the status that the proxy sets, until `finish` gives it to the client.
    """

    def __init__(self, context: Context, method: Method) -> None:
        self._context = context
        self._method = method
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Sequence[tuple[str, Any]] = ()
        self._request_id = request_id_of(next(iter(self.headers(REQUEST_ID)), None))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def headers(self, name: str) -> list[Any]:
        """Return the values of a header."""
        return [value for key, value in self._context.invocation_metadata() or () if key == name]

    def invocation_metadata(self) -> list[tuple[str, Any]]:
        """Return the headers, with the request's id and the time that the call has left.

        Without the token, which no replica needs.
        """
        replaced = (REQUEST_ID, TIMEOUT, _TOKEN)
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

    async def abort(self, error: VisavisError) -> None:
        """End the call with the status of an error."""
        status = status_of(error, self._method.path, self._request_id)
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


def _is_local(peer: str) -> bool:
    """Return True if gRPC's name of a peer is an address of this machine's loopback."""
    kind, _, address = peer.partition(":")
    return kind == "unix" or is_local(unquote(address))


def _shape(method: Method) -> Handler:
    """Return a handler of the method's shape that takes bytes; the proxy replaces its function."""
    if method.streams:
        return grpc.unary_stream_rpc_method_handler(_never)
    return grpc.unary_unary_rpc_method_handler(_never)


async def _never(data: bytes, context: Context) -> None:
    raise AssertionError("the proxy replaces this function")
