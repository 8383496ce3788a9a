"""The services as a proxy of Ray Serve registers them: `grpc_options.grpc_servicer_functions`.

Runs in the proxies, with the settings in their node's environment (`VISAVIS_INSECURE`, ...).
Between gRPC and a proxy it keeps strangers out, tells the ingress the deadline of a call, divides
streams of requests, watches health, and replaces Ray's errors. It does not import Ray.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import cache
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import unquote

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from visavis_server.addresses import is_local
from visavis_server.api.inference.ordered_stream import in_order
from visavis_server.errors import (
    DeadlineExceeded,
    InvalidRequest,
    PermissionDenied,
    StartupError,
    Unauthenticated,
    VisavisError,
)
from visavis_server.ray.methods import HEALTH, INFERENCE, LIST, VISION, WATCH, Method, methods_of
from visavis_server.ray.proxied_call import TOKEN, ProxiedCall
from visavis_server.ray.watch import Watch
from visavis_server.settings import Settings, load_settings
from visavis_server.transport.grpc.handlers import Context, Details, Handler
from visavis_server.transport.grpc.receiver import EOF
from visavis_server.transport.tokens import Tokens

Proxied = Callable[[bytes, ProxiedCall], Awaitable[bytes]]
"""The proxy's function for a method: sends a request to the ingress, returns its response."""

_ONLY_LOCAL: Final = (
    "the server answers calls from its own machine only; set VISAVIS_INSECURE in its node's "
    "environment if only trusted clients can reach it"
)
# Requests of one stream that are under way at once, as on the server.
_STREAM_CONCURRENCY: Final = 16


def add_vision(servicer: object, server: grpc.aio.Server) -> None:
    """Register VisionService. Raises StartupError, as the others do, if Ray is too new."""
    _add(VISION, server)


def add_inference(servicer: object, server: grpc.aio.Server) -> None:
    """Register the Open Inference Protocol."""
    _add(INFERENCE, server)


def add_health(servicer: object, server: grpc.aio.Server) -> None:
    """Register grpc.health.v1."""
    _add(HEALTH, server)


def _add(service: ServiceDescriptor, server: grpc.aio.Server) -> None:
    gate = _Gate(service, _settings(), _tokens())
    try:
        server.add_generic_rpc_handlers((gate,))
        proxied = gate.is_proxied
    except AttributeError:
        proxied = False
    if not proxied:
        raise StartupError(
            f"Ray {version('ray')} does not route calls through _method_handlers of a service's "
            "handler, which visavis builds on; install ray 2.60"
        )


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
        self._method_handlers: dict[str, Any] = {
            path: _shape(each) for path, each in self._methods.items()
        }
        self._watch = Watch()

    @property
    def is_proxied(self) -> bool:
        """True if the proxy has replaced all functions."""
        return not any(_never in handler for handler in self._method_handlers.values())

    def service_name(self) -> str:
        """Return the service's full name."""
        return self._name

    def service(self, details: Details) -> "Handler | None":
        """Return the handler of a call; None: the service has no such method.

        It takes the request as a stream, so that a call can be rejected before its message is
        received.
        """
        if details.method == WATCH and self._name == HEALTH.full_name:
            proxied = self._method_handlers[LIST]
            return grpc.stream_stream_rpc_method_handler(self._watched(proxied.unary_unary))
        if (method := self._methods.get(details.method)) is None:
            return None
        proxied = self._method_handlers[details.method]
        if method.each:
            each = self._each(method, proxied.unary_unary)
            return grpc.stream_stream_rpc_method_handler(each)
        if method.streams:
            stream = self._stream(method, proxied.unary_stream)
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.stream_unary_rpc_method_handler(self._unary(method, proxied.unary_unary))

    def _unary(self, method: Method, proxied: Proxied) -> Any:
        async def answer(requests: Any, context: Context) -> bytes:
            call = ProxiedCall(context, method.path)
            response = await proxied(await self._only(call), call)
            await call.finish()
            return response

        return answer

    def _stream(
        self, method: Method, proxied: Callable[[bytes, ProxiedCall], AsyncGenerator[bytes, None]]
    ) -> Any:
        async def stream(requests: Any, context: Context) -> AsyncGenerator[bytes, None]:
            call = ProxiedCall(context, method.path)
            async with aclosing(proxied(await self._only(call), call)) as responses:
                async for response in responses:
                    if not call.failed:
                        yield response
            await call.finish()

        return stream

    def _each(self, method: Method, proxied: Proxied) -> Any:
        """Return a handler that sends each request of a stream to the ingress by itself.

        So a stream outlives replicas and request_timeout_s, and all replicas share its requests.
        """

        async def stream(requests: Any, context: Context) -> AsyncGenerator[bytes, None]:
            call = ProxiedCall(context, method.path)

            async def answer(message: bytes) -> tuple[ProxiedCall, bytes]:
                one = call.again()
                return one, await proxied(message, one)

            try:
                self._admit(call)
                answers = in_order(self._messages(call), answer, _STREAM_CONCURRENCY)
                async with aclosing(answers):
                    async for one, response in answers:
                        if one.failed:
                            await one.finish()
                        yield response
            except VisavisError as error:
                await call.abort(error)
            await call.finish()

        return stream

    def _watched(self, proxied: Proxied) -> Any:
        async def stream(requests: Any, context: Context) -> AsyncGenerator[bytes, None]:
            call = ProxiedCall(context, WATCH)
            message = await self._only(call)
            try:
                async for response in self._watch.responses(message, call, proxied):
                    yield response
            except InvalidRequest as error:
                await call.abort(error)

        return stream

    async def _only(self, call: ProxiedCall) -> bytes:
        """Return the message of a call, or end the call with the reason why it is rejected."""
        try:
            self._admit(call)
            if (message := await self._message(call)) is None:
                raise InvalidRequest("request", "the call ended without a request")
            return message
        except VisavisError as error:
            await call.abort(error)

    async def _messages(self, call: ProxiedCall) -> AsyncGenerator[bytes, None]:
        while (message := await self._message(call)) is not None:
            yield message

    def _admit(self, call: ProxiedCall) -> None:
        """Raise PermissionDenied or Unauthenticated unless the caller may call."""
        if not (self._settings.insecure or _is_local(call.peer())):
            raise PermissionDenied(_ONLY_LOCAL)
        is_open = self._settings.open_health and self._name == HEALTH.full_name
        tokens = None if is_open else self._tokens
        if tokens is not None and (why := tokens.refusal(call.headers(TOKEN))):
            raise Unauthenticated(why)

    async def _message(self, call: ProxiedCall) -> bytes | None:
        """Return the next message of a call; None: there are no more.

        Raises DeadlineExceeded if it does not arrive in time, InvalidRequest if it is too large.
        """
        timeout_s, most = self._settings.message_timeout_s, self._settings.max_message_bytes
        try:
            async with asyncio.timeout(timeout_s):
                message = await call.read()
        except TimeoutError:
            why = f"the request did not arrive within {timeout_s:g} s"
            raise DeadlineExceeded(why) from None
        if message is EOF:
            return None
        if len(message) > most:
            why = f"the request has {len(message)} bytes; the limit is {most}"
            raise InvalidRequest("request", why)
        return bytes(message)


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
