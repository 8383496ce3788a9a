"""How much memory calls may hold together, and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from visavis_server.runtime.budget import peak_bytes, usable_bytes
from visavis_server.settings import Settings

# Where the system does not say how much memory there is.
_UNKNOWN_BYTES: Final = 1 << 30
# A session takes its weights twice while it is loaded, once from then on.
_LOADING: Final = 2
# gRPC puts a message together from its pieces: for a moment it is there three times.
_ASSEMBLY_COPIES: Final = 2
# Calls of health that have not been read yet.
_HEALTH_UNREAD_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a Budget is made of.

    budget_bytes: for all calls. working_bytes: of these, what messages leave to pixels and
    answers. why: what it follows from. is_short: less than one largest request needs was left.
    """

    budget_bytes: int
    working_bytes: int
    why: str
    is_short: bool = False


def plan_memory(settings: Settings, taken_bytes: int, usable: int | None) -> MemoryPlan:
    """Return what calls may hold beside what the process and its models take at their peak.

    usable: what the process may take; None: the system does not say.
    """
    largest = settings.max_message_bytes
    # Messages have at least half of it: one arrives while another waits.
    least = 4 * largest
    spare = _ASSEMBLY_COPIES * largest
    is_short = False
    if settings.memory_budget_bytes:
        budget, why = settings.memory_budget_bytes, "as set in memory_budget_bytes"
    elif usable is None:
        budget, why = _UNKNOWN_BYTES, "the system does not say how much memory there is"
    else:
        budget = usable - taken_bytes - spare
        why = (
            f"of {_mib(usable)} that are usable the models and the server take "
            f"{_mib(taken_bytes)}, and {_mib(spare)} are kept to put messages together"
        )
        if is_short := budget < least:
            budget = least
            why += f", which is too little: {_mib(least)} are given all the same"
    working = settings.core_count * (2 * settings.max_decoded_bytes + settings.max_encoded_bytes)
    return MemoryPlan(budget, min(budget // 2, working), why, is_short)


def health_bytes(settings: Settings) -> int:
    """Return what health checks may hold, which have a budget of their own."""
    return _ASSEMBLY_COPIES * settings.max_message_bytes + _HEALTH_UNREAD_BYTES


def expected_bytes(models: Iterable[Path]) -> int:
    """Return the peak that this process will have reached when it has loaded model files."""
    return peak_bytes() + _LOADING * sum(file.stat().st_size for file in models)


def plan_here(settings: Settings, taken_bytes: int) -> MemoryPlan:
    """Return the plan for this process, as it is limited here."""
    return plan_memory(settings, taken_bytes, usable_bytes())


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB"
