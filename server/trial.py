"""`python -m server.trial`: loads and warms up one model file where it can be killed.

A file may hang whoever loads it, take all memory, or crash ONNX Runtime: then it is this process
that does, and not the one that serves. It runs on the CPU, whatever serves in the end.
"""

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

from server.cores import usable_cores
from server.errors import ModelFileError, StartupError
from server.log import configure_logging
from server.planning import Planner
from server.providers import CPU
from server.repository import Loader, ModelFile
from server.scheduler import Scheduler

# What a session may take besides the process that it is in: of its file's size, and at least.
_FILE_SIZES, _LEAST_BYTES = 8, 1 << 30
_POLITE = 10


async def try_out(file: ModelFile, timeout_s: float) -> None:
    """Raise ModelFileError unless a file can be loaded, verified and warmed up in a time."""
    # Python's own, whatever the loop: another way to begin a process runs what gRPC has to do
    # before and after a fork, and that may crash.
    command = [sys.executable, "-m", "server.trial", file.name, str(file.version), str(file.path)]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=nowhere, stdout=subprocess.PIPE, stderr=nowhere)
    try:
        # Whoever reads what it says also closes that: closed elsewhere, it could be another file.
        said, _ = await asyncio.to_thread(process.communicate, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.communicate)
        raise ModelFileError(
            f"{file.path}: it was not loaded and warmed up within {timeout_s:g} s"
        ) from None
    finally:
        process.kill()  # where nobody waits any more; nothing, where it has ended
    if code := process.returncode:
        why = said.decode(errors="replace").strip() or f"its loading ended {_ending(code)}"
        raise ModelFileError(why if str(file.path) in why else f"{file.path}: {why}")


def main(name: str, version: str, path: str) -> int:
    """Load one file; print what is wrong with it and return 1 if it can't be served."""
    os.nice(_POLITE)
    configure_logging("console")  # to standard error: what is printed is the reason
    file = ModelFile(name, int(version), Path(path))
    try:
        _limit_memory(file.path)
        scheduler = Scheduler(cores=1, queue_size=1)
        Loader(Planner(CPU, usable_cores()), scheduler, Path()).load(file)
    except StartupError as error:
        print(str(error))
        return 1
    except MemoryError:
        print(f"{path}: takes more memory than a file of its size should")
        return 1
    return 0


def _limit_memory(path: Path) -> None:
    if sys.platform != "linux":
        return
    with open("/proc/self/statm", encoding="ascii") as file:
        own_bytes = int(file.read().split()[0]) * resource.getpagesize()
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    most = own_bytes + max(_LEAST_BYTES, _FILE_SIZES * size)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _ending(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


if __name__ == "__main__":
    # Nothing is waited for: a thread may hang in the model.
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
