"""Authentication of gRPC calls by bearer tokens."""

from collections.abc import Awaitable, Callable

import grpc

from visavis_server.errors import Unauthenticated
from visavis_server.transport.grpc.handlers import HEALTH, Details, Handler
from visavis_server.transport.grpc.interceptors import rejecting
from visavis_server.transport.tokens import Tokens


class Authentication(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # only stubs know
    """Requires `authorization: Bearer TOKEN` of every call, before its message is received.

    Calls of unknown methods are rejected too. open_health: except health checks.
    """

    def __init__(self, tokens: Tokens, open_health: bool) -> None:
        self._tokens = tokens
        self._open_health = open_health

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler]], details: Details
    ) -> Handler:
        """Return the method's handler, or one that rejects without waiting for the message."""
        if self._open_health and details.method.startswith(HEALTH):
            return await continuation(details)
        headers = [value for key, value in details.invocation_metadata if key == "authorization"]
        if why := self._tokens.refusal(headers):
            return rejecting(Unauthenticated(why))
        return await continuation(details)
