"""Forecasts of how long an engine's work will take, from how long it took before."""

from weakref import WeakKeyDictionary

from visavis_server.runtime.scheduling.work import Engine

# The weight of the latest time in the moving average.
_WEIGHT = 0.2
# An outlier counts as at most so many times the forecast...
_MOST = 2.0
# ...and the forecast is at most so many times the latest time. Pictures of different size differ
# by about as much.
_LAST = 4.0


class MovingAverage:
    """The moving average of durations, by engine; 0 before the first.

    Outliers are clipped: one run of 14 s among runs of 30 ms must not cause refusals.
    """

    def __init__(self) -> None:
        self._seconds: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()

    def __call__(self, engine: Engine) -> float:
        """Return the expected duration in seconds."""
        return self._seconds.get(engine, 0.0)

    def add(self, engine: Engine, seconds: float) -> None:
        """Record one more duration."""
        expected = self._seconds.get(engine, 0.0) or seconds
        clipped = min(seconds, _MOST * expected)
        self._seconds[engine] = min(expected + _WEIGHT * (clipped - expected), _LAST * seconds)


class ExpectedEnds:
    """The runs in progress, with the time at which each is expected to end."""

    def __init__(self) -> None:
        self._ends: dict[object, float] = {}

    def begin(self, run: object, end: float) -> None:
        """Record that a run begins."""
        self._ends[run] = end

    def end(self, run: object) -> None:
        """Record that a run has ended. Unknown runs are ignored."""
        self._ends.pop(run, None)

    def remaining_s(self, now: float) -> float:
        """Return the seconds that all runs together are expected to take from now on."""
        return sum(max(0.0, end - now) for end in self._ends.values())
