"""Counters of what happened to each engine's work."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class Statistics:
    """Counters for one engine since the start.

    batches: the number of runs by batch size. batch_s: their seconds. exclusive: runs that had all
    cores. queue_s: the total queue time of all work that started.
    """

    batches: Counter[int] = field(default_factory=Counter)
    batch_s: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    exclusive: int = 0
    queue_s: float = 0.0
    cancelled: int = 0
    expired: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def run_s(self) -> float:
        """The total seconds of all runs."""
        return sum(self.batch_s.values())
