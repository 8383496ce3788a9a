"""Which worker has too many connections."""

from collections.abc import Mapping
from typing import Final

# Connections are placed at random: a little unevenness is the rule, and moving them costs each
# client a connection.
_LEAST_DIFFERENCE: Final = 2
_MOST_SHARE: Final = 1.5


def crowded(busy: Mapping[int, int]) -> int | None:
    """Return the worker whose connections should be spread anew; None: they are even enough.

    busy: the connections with calls, by worker. Connections can't be chosen: the worker asks all of
    its clients to reconnect, and each goes to a random worker.
    """
    if len(busy) < 2:
        return None
    mean = sum(busy.values()) / len(busy)
    worker = max(busy, key=lambda number: busy[number])
    most, least = busy[worker], min(busy.values())
    uneven = most - least >= _LEAST_DIFFERENCE and most > _MOST_SHARE * mean
    return worker if uneven else None
