"""How long an engine's work will take, judged by what it took."""

from weakref import WeakKeyDictionary

from visavis_server.runtime.scheduling.fair_queue import Engine

# How much the last time tells of the next one.
_NOVELTY = 0.2
# A time that is out of the ordinary counts as so many times the forecast at most...
_MOST = 2.0
# ...and the forecast is at most so many times what was seen last. Pictures that differ in size
# differ by about as much.
_LAST = 4.0


class Average:
    """The moving average of some seconds, by engine; 0 before the first.

    One accident of 14 s among runs of 30 ms must not keep callers out.
    """

    def __init__(self) -> None:
        self._seconds: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()

    def __call__(self, engine: Engine) -> float:
        """Return what is to be expected."""
        return self._seconds.get(engine, 0.0)

    def add(self, engine: Engine, seconds: float) -> None:
        """Note how long it took once more."""
        expected = self._seconds.get(engine, 0.0) or seconds
        usual = min(seconds, _MOST * expected)
        self._seconds[engine] = min(expected + _NOVELTY * (usual - expected), _LAST * seconds)


class Occupied:
    """What runs, and when it is expected to end."""

    def __init__(self) -> None:
        self._ends: dict[object, float] = {}

    def begin(self, run: object, end: float) -> None:
        """Note that a run begins."""
        self._ends[run] = end

    def end(self, run: object) -> None:
        """Note that it has ended, if it was noted that it began."""
        self._ends.pop(run, None)

    def remaining_s(self, now: float) -> float:
        """Return how many seconds all runs together are expected to take from now on."""
        return sum(max(0.0, end - now) for end in self._ends.values())
