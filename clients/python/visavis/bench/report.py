"""The results of a benchmark as JSON, with the machine and versions."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

from visavis.bench.rounds import Row


def report_json(rows: Sequence[Row], about: dict[str, Any]) -> dict[str, Any]:
    """Return all results, with the machine and versions. about: further fields."""
    return {
        **about,
        "machine": machine(),
        "loads": [
            {
                "load": str(row.load),
                "callers": row.load.callers,
                "rate_per_s": row.load.rate_per_s,
                "of_limit": row.of_limit,
                "median": asdict(row.median),
                "rounds": [{**asdict(r), "of_limit": r.of_limit} for r in row.rounds],
                "checked": row.checked,
                "differences": row.differences,
            }
            for row in rows
        ],
    }


def machine() -> dict[str, Any]:
    """Return the machine and the versions on which the figures depend."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "grpcio": metadata.version("grpcio"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
