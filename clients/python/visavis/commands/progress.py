"""The progress bar over several pictures, on stderr if that is a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich import progress

from visavis.commands.console import stderr


class Progress:
    """A progress bar that is hidden while an answer is printed."""

    def __init__(self, total: int) -> None:
        """total: the number of pictures. A single one has no bar."""
        console = stderr()
        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("pictures"),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=total < 2 or not console.is_terminal,
        )
        self._task = self._bar.add_task("pictures", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self) -> None:
        """Go one picture further."""
        self._bar.advance(self._task)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the bar, then show it again, advanced by one picture."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.advance(self._task)
            self._bar.start()
