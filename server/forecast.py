"""How long an engine's work will take, judged by what it took."""

from weakref import WeakKeyDictionary

from server.fair_queue import Engine

# How much the last time tells of the next one.
_NOVELTY = 0.2


class Average:
    """The moving average of some seconds, by engine; 0 before the first."""

    def __init__(self) -> None:
        self._seconds: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()

    def __call__(self, engine: Engine) -> float:
        """Return what is to be expected."""
        return self._seconds.get(engine, 0.0)

    def add(self, engine: Engine, seconds: float) -> None:
        """Note how long it took once more."""
        expected = self._seconds.get(engine, seconds)
        self._seconds[engine] = expected + _NOVELTY * (seconds - expected)


class Occupied:
    """What runs, and when it is expected to end."""

    def __init__(self) -> None:
        self._ends: dict[object, float] = {}

    def begin(self, run: object, end: float) -> None:
        """Note that a run begins."""
        self._ends[run] = end

    def end(self, run: object) -> None:
        """Note that it has ended."""
        del self._ends[run]

    def remaining_s(self, now: float) -> float:
        """Return how many seconds all runs together are expected to take from now on."""
        return sum(max(0.0, end - now) for end in self._ends.values())
