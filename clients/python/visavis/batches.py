"""Many pictures, a bounded number of them at a time, with the answers in the pictures' order."""

import asyncio
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sized,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from visavis.errors import InvalidSettings, Overloaded, VisavisError
from visavis.images import ImageSource

CONCURRENCY = 8
# Pictures are read ahead of a slow answer, so that it delays only itself. An item in this window
# holds a picture or an answer.
_WINDOW_PER_CALL = 2

Result = TypeVar("Result")
_Advance = Callable[["BatchItem[Any]"], None]


@dataclass(frozen=True, slots=True)
class BatchItem(Generic[Result]):
    """One picture of a batch. index: its position, from 0. Either result or error is None."""

    index: int
    image: ImageSource
    result: Result | None
    error: VisavisError | OSError | None

    def unwrap(self) -> Result:
        """Return the result. Raises the error if there is one."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


def items(
    ask: Callable[[ImageSource], Result],
    images: Iterable[ImageSource],
    concurrency: int,
    progress: bool,
) -> Iterator[BatchItem[Result]]:
    """Return an iterator over the answers of `ask`, which runs in threads.

    An error of `images` itself is raised after the answers to the pictures before it. Closing the
    iterator abandons the rest. Raises InvalidSettings.
    """
    _check(concurrency)
    return _items(ask, images, concurrency, progress)


def _items(
    ask: Callable[[ImageSource], Result],
    images: Iterable[ImageSource],
    concurrency: int,
    progress: bool,
) -> Iterator[BatchItem[Result]]:
    def item(index: int, image: ImageSource) -> BatchItem[Result]:
        try:
            return BatchItem(index, image, ask(image), None)
        except (VisavisError, OSError) as error:
            return BatchItem(index, image, None, error)

    sources, over, fault = enumerate(images), False, None
    window: deque[Future[BatchItem[Result]]] = deque()
    threads = ThreadPoolExecutor(concurrency, "visavis-batch")
    with _bar(images, progress) as advance:
        try:
            while True:
                while not over and _has_room(window, concurrency):
                    try:
                        index, image = next(sources)
                    except StopIteration:
                        over = True
                    except Exception as error:  # noqa: BLE001 - raised below
                        over, fault = True, error
                    else:
                        window.append(threads.submit(item, index, image))
                if not window:
                    break
                answered = window.popleft().result()
                advance(answered)
                yield answered
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    if fault is not None:
        raise fault


async def async_items(
    ask: Callable[[ImageSource], Awaitable[Result]],
    images: Iterable[ImageSource] | AsyncIterable[ImageSource],
    concurrency: int,
    progress: bool,
) -> AsyncGenerator[BatchItem[Result], None]:
    """Yield what `items` yields, with tasks instead of threads. Raises InvalidSettings."""
    _check(concurrency)
    slots = asyncio.Semaphore(concurrency)

    async def item(index: int, image: ImageSource) -> BatchItem[Result]:
        async with slots:
            try:
                return BatchItem(index, image, await ask(image), None)
            except (VisavisError, OSError) as error:
                return BatchItem(index, image, None, error)

    sources, index, over, fault = _async_iterator(images), 0, False, None
    window: deque[asyncio.Task[BatchItem[Result]]] = deque()
    with _bar(images, progress) as advance:
        try:
            while True:
                while not over and _has_room(window, concurrency):
                    try:
                        image = await anext(sources)
                    except StopAsyncIteration:
                        over = True
                    except Exception as error:  # noqa: BLE001 - raised below
                        over, fault = True, error
                    else:
                        window.append(asyncio.create_task(item(index, image)))
                        index += 1
                if not window:
                    break
                answered = await window.popleft()
                advance(answered)
                yield answered
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)
            await sources.aclose()
    if fault is not None:
        raise fault


def patiently(call: Callable[[float], Result], seconds: float) -> Result:
    """Return the answer of a call that takes its timeout, repeated while the server is overloaded.

    A batch has no more calls in flight than before while it waits for as long as the server asks,
    so that repeating them does not add to the load, as the calls of many clients would.
    """
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            return call(_remaining(give_up_at))
        except Overloaded as error:
            pause = _pause(error, give_up_at)
        time.sleep(pause)


async def async_patiently(call: Callable[[float], Awaitable[Result]], seconds: float) -> Result:
    """Return what `patiently` returns."""
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            return await call(_remaining(give_up_at))
        except Overloaded as error:
            pause = _pause(error, give_up_at)
        await asyncio.sleep(pause)


def _remaining(give_up_at: float) -> float:
    return max(give_up_at - time.monotonic(), 0.001)


def _pause(error: Overloaded, give_up_at: float) -> float:
    """Return the seconds to wait. Raises the error if there is not so much time left."""
    if error.retry_after_s is None or time.monotonic() + error.retry_after_s >= give_up_at:
        raise error
    return error.retry_after_s


def _check(concurrency: int) -> None:
    if concurrency < 1:
        raise InvalidSettings(f"concurrency is {concurrency}; it must be 1 or above")


def _has_room(window: deque[Any], concurrency: int) -> bool:
    if len(window) < concurrency:
        return True
    return len(window) < _WINDOW_PER_CALL * concurrency and not window[0].done()


async def _async_iterator(
    images: Iterable[ImageSource] | AsyncIterable[ImageSource],
) -> AsyncGenerator[ImageSource, None]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image


@contextmanager
def _bar(images: object, progress: bool) -> Iterator[_Advance]:
    """Yield a function that counts an item, on a progress bar on standard error if asked for."""
    if not progress:
        yield lambda item: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    total = len(images) if isinstance(images, Sized) else None
    failed = 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("pictures", total=total)

        def advance(item: BatchItem[Any]) -> None:
            nonlocal failed
            failed += item.error is not None
            description = f"pictures, {failed} failed" if failed else "pictures"
            bar.update(task, advance=1, description=description)

        yield advance
