"""The memory budget of all calls together, and the reasons for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from visavis_server.runtime.budget import peak_bytes, usable_bytes
from visavis_server.settings import Settings

# The budget if the system does not report its memory.
_UNKNOWN_BYTES: Final = 1 << 30
# A session holds its weights twice while it loads, and once afterwards.
_LOADING: Final = 2
# gRPC assembles a message from its pieces: for a moment three copies exist.
_ASSEMBLY_COPIES: Final = 2
# Health checks that have not been read yet.
_HEALTH_UNREAD_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The numbers of a Budget.

    budget_bytes: for all calls. working_bytes: the share of it that messages leave to pixels and
    responses. why: the calculation in words. is_short: True if less memory was left than the
    largest request needs.
    """

    budget_bytes: int
    working_bytes: int
    why: str
    is_short: bool = False


def plan_memory(settings: Settings, taken_bytes: int, usable: int | None) -> MemoryPlan:
    """Return the budget that is left beside the peak of the process and its models.

    taken_bytes: that peak. usable: the memory that the process may use; None: unknown.
    """
    largest = settings.max_message_bytes
    # Messages get at least half of it: one arrives while another waits.
    least = 4 * largest
    spare = _ASSEMBLY_COPIES * largest
    is_short = False
    if settings.memory_budget_bytes:
        budget, why = settings.memory_budget_bytes, "as set in memory_budget_bytes"
    elif usable is None:
        budget, why = _UNKNOWN_BYTES, "the system does not report its memory"
    else:
        budget = usable - taken_bytes - spare
        why = (
            f"{_mib(usable)} are usable; the models and the server take {_mib(taken_bytes)}, and "
            f"{_mib(spare)} are reserved for assembling messages"
        )
        if is_short := budget < least:
            budget = least
            why += f"; the rest is too little, so the minimum of {_mib(least)} is used"
    working = settings.core_count * (2 * settings.max_decoded_bytes + settings.max_encoded_bytes)
    return MemoryPlan(budget, min(budget // 2, working), why, is_short)


def health_bytes(settings: Settings) -> int:
    """Return the budget of health checks, which is separate from that of other calls."""
    return _ASSEMBLY_COPIES * settings.max_message_bytes + _HEALTH_UNREAD_BYTES


def expected_bytes(models: Iterable[Path]) -> int:
    """Return the expected peak memory of this process after it loads model files."""
    return peak_bytes() + _LOADING * sum(file.stat().st_size for file in models)


def plan_here(settings: Settings, taken_bytes: int, share_bytes: int | None = None) -> MemoryPlan:
    """Return the plan for this process and the limits of this machine.

    share_bytes: the part of the usable memory that is this worker's; None: all of it.
    """
    return plan_memory(settings, taken_bytes, share_bytes or usable_bytes())


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB"
