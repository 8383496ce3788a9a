"""gRPC's server for asyncio, which one call can't end."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import grpc
import structlog
from grpc._cython import cygrpc
from grpc.aio import _server

_log = structlog.get_logger()

# After an error that may come again at once.
_PAUSE_S = 0.1


class _Stopped(Exception):
    """No more calls are accepted."""


class _Dispatcher(cygrpc.AioServer):  # type: ignore[misc]  # gRPC's own types are unknown
    """Dispatches the calls that another server accepts, until one ends its loop."""

    def __init__(self, source: "_Accepting") -> None:
        super().__init__(source.loop, None, source.handlers, source.interceptors, (), None)
        self._source = source
        self.ended = asyncio.Event()

    def _make_request_call_future(self, method: bytes | None) -> "asyncio.Future[Any]":
        return self._source.next_call(method)

    async def _server_main_loop(self, started: "asyncio.Future[bool]") -> None:
        try:
            await super()._server_main_loop(started)
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001  whatever it is, calls go on
            await _report(error)
        finally:
            self.ended.set()


class _Accepting(cygrpc.AioServer):  # type: ignore[misc]
    """Continues to accept calls after one that gRPC can't dispatch.

    Such as a call whose method's name is not UTF-8: from 1.84 on, gRPC decodes the name in the loop
    that accepts all calls; the error ends the loop, and gRPC then stops the server. gRPC can't
    start that loop again, but another server's loop can dispatch calls that this one accepts.
    Calls under way continue; calls that arrive meanwhile wait in gRPC's queue. The call that gRPC
    couldn't dispatch is cancelled.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interceptors: Sequence[Any],
        options: Sequence[tuple[str, Any]],
    ) -> None:
        self.loop = loop
        self.interceptors = interceptors
        self.handlers: list[Any] = []
        self._stopping = False
        super().__init__(loop, None, (), interceptors, tuple(options), None)

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        super().add_generic_rpc_handlers(handlers)
        self.handlers.extend(handlers)

    def next_call(self, method: bytes | None) -> "asyncio.Future[Any]":
        """Return the next call; raises _Stopped in it once the server stops."""
        if not self._stopping:
            call: asyncio.Future[Any] = self._make_request_call_future(method)
            return call
        stopped = self.loop.create_future()
        stopped.set_exception(_Stopped())
        return stopped

    async def _server_main_loop(self, started: "asyncio.Future[bool]") -> None:
        try:
            await super()._server_main_loop(started)
        except Exception as error:  # noqa: BLE001  whatever it is, calls go on
            await _report(error)
        while not self._stopping:
            dispatcher = _Dispatcher(self)
            await dispatcher.start()
            await dispatcher.ended.wait()
            await dispatcher.shutdown(None)

    async def shutdown(self, grace: float | None) -> None:
        self._stopping = True
        await super().shutdown(grace)


class _Server(_server.Server):
    """grpc.aio.Server, but it continues to accept calls."""

    def __init__(self, interceptors: Sequence[Any], options: Sequence[tuple[str, Any]]) -> None:
        # gRPC's own constructor would make the server that stops.
        self._loop = cygrpc.get_working_loop()
        self._server = _Accepting(self._loop, interceptors, options)


def new_server(interceptors: Sequence[Any], options: Sequence[tuple[str, Any]]) -> grpc.aio.Server:
    """Return a server like that of grpc.aio.server, but no call can end it."""
    return cast(grpc.aio.Server, _Server(interceptors, options))


async def _report(error: Exception) -> None:
    if isinstance(error, UnicodeDecodeError):
        name = repr(error.object[:64])
        _log.warning("call cancelled", why="its method's name is not UTF-8", name=name)
    else:
        _log.error("call cancelled", why="gRPC could not dispatch it", exc_info=error)
        await asyncio.sleep(_PAUSE_S)
