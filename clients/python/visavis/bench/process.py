"""The CPU time and memory of another process."""

from typing import Any

from visavis.errors import InvalidSettings


class Watched:
    """A local process and its children. Raises InvalidSettings if it can't be watched."""

    def __init__(self, pid: int) -> None:
        psutil = _psutil()
        self.pid = pid
        self._gone: tuple[type[Exception], ...] = (psutil.NoSuchProcess, psutil.AccessDenied)
        try:
            self._process = psutil.Process(pid)
            self._process.cpu_times()
        except self._gone as error:
            raise InvalidSettings(f"can't watch process {pid}: {error}") from error

    def cpu_s(self) -> float | None:
        """Return the CPU time used so far, in seconds; None after the process has ended."""
        try:
            times = [process.cpu_times() for process in self._family()]
        except self._gone:
            return None
        return float(sum(time.user + time.system for time in times))

    def rss_bytes(self) -> int | None:
        """Return the resident memory; None after the process has ended."""
        try:
            return sum(process.memory_info().rss for process in self._family())
        except self._gone:
            return None

    def _family(self) -> list[Any]:
        return [self._process, *self._process.children(recursive=True)]


def listener(address: str) -> int | None:
    """Return the ID of the local process that listens at an address; None if unknown.

    address: HOST:PORT or unix:PATH. If several listen there, they are workers: it is their parent.
    """
    psutil = _psutil()
    unix = address.startswith("unix:")
    try:
        connections = psutil.net_connections("unix" if unix else "tcp")
    except psutil.AccessDenied:
        return None
    found_pids = set()
    for item in connections:
        if unix:
            found = item.laddr == address.removeprefix("unix:")
        else:
            found = item.status == "LISTEN" and str(item.laddr.port) == address.rpartition(":")[2]
        if found and item.pid:
            found_pids.add(int(item.pid))
    if len(found_pids) > 1:
        return int(psutil.Process(min(found_pids)).ppid())
    return min(found_pids, default=None)


def _psutil() -> Any:
    try:
        import psutil
    except ModuleNotFoundError:
        raise InvalidSettings(
            "measuring the server's CPU and memory needs psutil; install it: "
            "pip install 'visavis[bench]'"
        ) from None
    return psutil
