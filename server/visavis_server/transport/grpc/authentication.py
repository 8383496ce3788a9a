"""Who may call: those who send a token that the server knows."""

from collections.abc import Awaitable, Callable

import grpc

from visavis_server.errors import Unauthenticated
from visavis_server.transport.grpc.interceptors import HEALTH, Details, Handler, refusing
from visavis_server.transport.tokens import Tokens


class Authentication(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # only stubs know
    """Lets calls in that carry `authorization: Bearer TOKEN`, before anything else is read.

    That holds for every method, those too that don't exist. open_health: not for health.
    """

    def __init__(self, tokens: Tokens, open_health: bool) -> None:
        self._tokens = tokens
        self._open_health = open_health

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler]], details: Details
    ) -> Handler:
        """Return the method's handler, or one that refuses without waiting for the message."""
        if self._open_health and details.method.startswith(HEALTH):
            return await continuation(details)
        given = [value for key, value in details.invocation_metadata if key == "authorization"]
        if why := self._tokens.refusal(given):
            return refusing(Unauthenticated(why))
        return await continuation(details)
