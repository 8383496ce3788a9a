"""Concurrent handling of a stream's requests, with the responses in order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from visavis_server.transport.calls import cancel

Request = TypeVar("Request")
Response = TypeVar("Response")


async def in_order(
    requests: AsyncIterator[Request],
    handle: Callable[[Request], Coroutine[Any, Any, Response]],
    concurrency: int,
) -> AsyncGenerator[Response]:
    """Yield the response to each request, in order; an error of `handle` ends the stream.

    concurrency: the most requests between their arrival and their response. Closing the generator
    cancels the requests that are being handled.
    """
    room = asyncio.Semaphore(concurrency)
    # Unbounded, because the semaphore is the bound: put_nowait works in a cancelled task too.
    started: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()

    async def start() -> None:
        try:
            async for request in requests:
                await room.acquire()
                started.put_nowait(asyncio.create_task(handle(request)))
        finally:
            started.put_nowait(None)

    starting = asyncio.create_task(start())
    answering: asyncio.Task[Response] | None = None
    try:
        while (answering := await started.get()) is not None:
            yield await answering
            room.release()
        await starting
    finally:
        await cancel([starting])
        left = [answering, *(started.get_nowait() for _ in range(started.qsize()))]
        await cancel(filter(None, left))
