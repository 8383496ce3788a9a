"""Loads and warms up model files in a separate process, which can be killed.

`python -m visavis_server.models.trial_process` reads their paths from standard input and writes one
line of JSON for each: the identity of a file that can be served, or the error. It runs on the CPU,
even if another device serves the model later.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from visavis_server.card import ModelDocument
from visavis_server.errors import CannotLoadNow, ModelFileError, StartupError
from visavis_server.log import configure_logging
from visavis_server.models.loader import Loader
from visavis_server.models.model_files import ModelFile
from visavis_server.models.planning import Planner
from visavis_server.runtime import memory
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.providers import CPU
from visavis_server.runtime.scheduling.scheduler import Scheduler

# The memory limit of a session beside its process: a multiple of the file's size, and a minimum.
_FILE_SIZES, _LEAST_BYTES = 8, 1 << 30
_POLITE = 10
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MOST_WHY = 4000


class _Quick(Planner):
    """Plans for the shortest trial: all cores for one run, batches of two."""

    def plan(self, document: ModelDocument) -> Plan:
        """Return the plan for a model's trial."""
        plan = super().plan(document)
        return replace(
            plan, instances=1, threads=self.cores, exclusive_threads=0, batch=min(plan.batch, 2)
        )


def main() -> None:
    """Try the files that standard input names."""
    if sys.platform == "linux":
        # End with the server, and be killed before it when memory runs out.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):  # no /proc
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if "polite" in sys.argv and hasattr(os, "nice"):
        os.nice(_POLITE)
    write = _verdict_writer()
    configure_logging("console", "error")
    loader = Loader(_Quick(CPU, usable_cores()), Scheduler(cores=1, queue_size=1), Path())
    files = json.load(sys.stdin)
    write({})
    for name, version, path in files:
        write(_tried(loader, ModelFile(name, version, Path(path))))


def _verdict_writer() -> Callable[[dict[str, str]], None]:
    """Return a function that writes a line to standard output; discards all other output."""
    verdicts = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)

    def write(verdict: dict[str, str]) -> None:
        print(json.dumps(verdict), file=verdicts, flush=True)

    return write


def _tried(loader: Loader, file: ModelFile) -> dict[str, str]:
    try:
        _limit_memory(file.path)
        return {"identity": loader.load(file).origin.identity}
    except StartupError as error:
        kind = CannotLoadNow if isinstance(error, CannotLoadNow) else ModelFileError
        return {"kind": kind.__name__, "why": str(error)[:_MOST_WHY]}
    except MemoryError:
        why = f"{file.path}: loading it takes more memory than a file of its size should"
        return {"kind": CannotLoadNow.__name__, "why": why}
    finally:
        memory.give_back()


def _limit_memory(path: Path) -> None:
    """Limit the memory of this process to what a file of this size may need."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        own_bytes = int(file.read().split()[0]) * resource.getpagesize()
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    most = own_bytes + max(_LEAST_BYTES, _FILE_SIZES * size)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


if __name__ == "__main__":
    main()
    # Don't wait for threads: one may hang in a model.
    os._exit(0)
