"""The number of cores that this process may use, their cache and their instruction sets."""

import os
from collections.abc import Iterator
from pathlib import Path

from visavis_server.runtime.cgroups import CGROUPS, MEMBERSHIP, files

_CPUS = Path("/sys/devices/system/cpu")
_CACHES = _CPUS / "cpu0" / "cache"
_CPUINFO = Path("/proc/cpuinfo")


def usable_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return the number of cores that this process's affinity and cgroup quotas allow.

    A quota is rounded down: a thread on a fraction of a core would be throttled.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(min([cores or 1, *_quotas(cgroups, membership)])))


def usable_ids(topology: Path = _CPUS) -> list[int]:
    """Return the numbers of the cores that the affinity allows; empty if the system has none.

    Threads of one core, and cores of one package, are neighbours in the list.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []

    def place(number: int) -> tuple[int, ...]:
        folder = topology / f"cpu{number}" / "topology"
        try:
            names = "physical_package_id", "core_id"
            return *(int((folder / name).read_text("ascii")) for name in names), number
        except (OSError, ValueError):
            return 0, 0, number

    return sorted(os.sched_getaffinity(0), key=place)


def cache_bytes(caches: Path = _CACHES) -> int | None:
    """Return the size of a core's level 2 cache; None if the system does not report it."""
    for folder in caches.glob("index*"):
        try:
            level, size = ((folder / name).read_text("ascii").strip() for name in ("level", "size"))
            if level == "2":
                return int(size.removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return None


def instructions(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Return the processor's instruction sets by Linux's names; empty if they are unknown."""
    try:
        lines = cpuinfo.read_text("ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split() for line in lines if line.startswith("flags")), ()))


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of the process's cgroup and of its parents."""
    for file in files("cpu", "cpu.cfs_quota_us", "cpu.max", cgroups, membership):
        yield from _quota(file)


def _quota(file: Path) -> Iterator[float]:
    """Yield the quota in a cgroup's file, unless it is unlimited ("max" or -1)."""
    try:
        quota, *period = file.read_text("ascii").split()
        period = period or [file.with_name("cpu.cfs_period_us").read_text("ascii")]
        if quota not in ("max", "-1"):
            yield int(quota) / int(period[0])
    except (OSError, ValueError):
        return
