"""Histograms of the stages of a model's requests."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from math import inf
from typing import Final

from visavis_server.telemetry.timings import Timings

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the buckets, in seconds."""


class Histogram:
    """A histogram of durations: their sum, and cumulative counts by upper bound."""

    def __init__(self) -> None:
        self.sum_s = 0.0
        self._counts = [0] * (len(BOUNDS_S) + 1)

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self._counts)

    def add(self, seconds: float) -> None:
        """Record one duration."""
        self.sum_s += seconds
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Yield each upper bound, infinity last, with the number of durations up to it."""
        return zip((*BOUNDS_S, inf), accumulate(self._counts), strict=True)


class StageHistograms:
    """One model's histograms: each stage of answered requests, and the time of failed ones.

    failures: the number of failures by gRPC status. last: the Unix time of the last answer, in
    seconds; 0: no answer yet.
    """

    def __init__(self) -> None:
        self.queue = Histogram()
        self.decode = Histogram()
        self.preprocess = Histogram()
        self.inference = Histogram()
        self.postprocess = Histogram()
        self.total = Histogram()
        self.failed = Histogram()
        self.failures: Counter[str] = Counter()
        self.last = 0.0

    def add(self, timings: Timings, now: float) -> None:
        """Record an answered request."""
        self.last = now
        for stage, ms in (
            (self.queue, timings.queue_ms),
            (self.decode, timings.decode_ms),
            (self.preprocess, timings.preprocess_ms),
            (self.inference, timings.inference_ms),
            (self.postprocess, timings.postprocess_ms),
            (self.total, timings.total_ms),
        ):
            stage.add(ms / 1e3)

    def fail(self, seconds: float, code: str) -> None:
        """Record a request that failed after some seconds; code: its gRPC status."""
        self.failed.add(seconds)
        self.failures[code] += 1

    def answered(self) -> dict[str, Histogram]:
        """Return the stages of answered requests by name, in order."""
        return {
            "queue": self.queue,
            "decode": self.decode,
            "preprocess": self.preprocess,
            "inference": self.inference,
            "postprocess": self.postprocess,
            "total": self.total,
        }
