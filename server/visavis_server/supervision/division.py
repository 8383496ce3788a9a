"""How a machine is divided among workers: their number, their cores, their memory."""

import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from visavis_server.addresses import UNIX
from visavis_server.errors import StartupError
from visavis_server.models.model_files import scan
from visavis_server.runtime.budget import usable_bytes
from visavis_server.runtime.cores import usable_ids
from visavis_server.settings import Settings

# A process's Python takes 0.9 ms for a call, one call at a time. Light models answer some 200 calls
# a second on a core: 4 cores keep one process busy, and 8 are too many for it.
_CORES_PER_WORKER: Final = 4
_LEAST_CORES: Final = 8
# Of a worker without models, as measured, and the messages and pictures of a few calls.
_WORKER_BYTES: Final = 128 << 20
_LEAST_MESSAGES: Final = 6
# Connections are evened out when clients connect anew. That costs a handshake a minute.
_MOST_AGE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """The supervisor's assignment to a worker, made when it starts.

    number: 1 to `workers`. settings: the values of all settings. cores: those that it may use, by
    the kernel's numbers; None: all. usable_bytes: its part of the memory; None: unknown.
    shared_dir: the folder for weights; None: there is none. late: the other workers serve already,
    so it listens only when it can serve too. colors: of the log. watchdog_s: systemd's timeout.
    unloaded: the models that clients have unloaded.
    """

    number: int
    settings: dict[str, Any]
    cores: frozenset[int] | None
    usable_bytes: int | None
    shared_dir: Path | None
    late: bool
    colors: bool
    watchdog_s: float | None
    unloaded: tuple[str, ...] = ()


def worker_count(settings: Settings) -> tuple[int, str]:
    """Return the number of workers, and why. Raises StartupError if there can't be several."""
    why_not = _why_not_several()
    if settings.workers != "auto":
        if settings.workers > 1 and why_not:
            raise StartupError(f"{settings.workers} workers need {why_not}; set workers to 1")
        return settings.workers, "as set in workers"
    if settings.grpc.startswith(UNIX):
        return 1, "a Unix socket has one listener"
    if why_not:
        return 1, f"several need {why_not}"
    return _for_cores(settings)


def _for_cores(settings: Settings) -> tuple[int, str]:
    cores = settings.core_count
    if cores < _LEAST_CORES:
        return 1, f"one process keeps {cores} usable cores busy; {_LEAST_CORES} need more"
    count, why = cores // _CORES_PER_WORKER, f"one for each {_CORES_PER_WORKER} of {cores} cores"
    usable = usable_bytes()
    if usable is not None:
        each = _WORKER_BYTES + _LEAST_MESSAGES * settings.max_message_bytes
        each += 2 * sum(_size(file.path) for file in _models(settings.models))
        if (fit := max(1, usable // each)) < count:
            return fit, f"a worker takes {each >> 20} MiB, of {usable >> 20} MiB usable"
    return count, why


def _why_not_several() -> str:
    """Return what this system lacks to spread connections over processes; "" if nothing."""
    if sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT"):
        return ""
    return "Linux, whose SO_REUSEPORT spreads connections"


def _models(folder: Path) -> list[Any]:
    try:
        return list(scan(folder))
    except StartupError:  # each worker reports it
        return []


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def core_ids(number: int, workers: int) -> frozenset[int] | None:
    """Return the cores of a worker, from 1 on; disjoint if there are enough; None: unknown."""
    ids = usable_ids()
    if not ids:
        return None
    if workers >= len(ids):
        return frozenset((ids[(number - 1) % len(ids)],))
    first, end = ((n * len(ids)) // workers for n in (number - 1, number))
    return frozenset(ids[first:end])


def settings_of(settings: Settings, number: int, workers: int) -> Settings:
    """Return the settings of a worker, from 1 on: those of all, with its cores and its memory."""
    cores = settings.core_count
    own_cores = cores * number // workers - cores * (number - 1) // workers
    return settings.model_copy(
        update={
            "workers": workers,
            "cores": max(1, own_cores),
            "max_connection_age_s": min(settings.max_connection_age_s, _MOST_AGE_S),
            # 0 stands for what is left; a share of nothing is 1.
            "memory_budget_bytes": settings.memory_budget_bytes
            and max(1, settings.memory_budget_bytes // workers),
        }
    )
