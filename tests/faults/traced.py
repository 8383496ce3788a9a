"""A command under strace: what it sent, looked up and wrote, as the system saw it."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.surroundings import Surroundings

_CALLS = (
    "connect,sendto,sendmsg,sendmmsg,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,"
    "unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,truncate"
)
# A loop that ends may wake itself over a socket that is closed by then: descriptor -1.
_HERE = re.compile(
    r"AF_UNIX|<UNIX|AF_NETLINK|<NETLINK|127\.0\.0\.1|\[::1\]|::ffff:127\.0\.0\.1|\(-1, "
)
_SENDS = re.compile(r"^\d+ +(?:connect|sendto|sendmsg|sendmmsg)\(")
_OPENS = re.compile(r"^\d+ +openat\(")
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT")
_GOES_ON = re.compile(r"^\d+ +<\.\.\. \w+ resumed>")
_NAME = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')


@dataclass(frozen=True)
class Traced:
    """The system calls of a command and of everything that it started."""

    calls: list[str]
    elsewhere: Path

    @classmethod
    def command(cls, arguments: Sequence[object], trace: Path) -> list[str]:
        """Return a command that runs another and writes down its system calls."""
        options = ["-f", "-qq", "--seccomp-bpf", "-yy", "-s", "300", "-e", f"trace={_CALLS}"]
        return ["strace", *options, "-o", str(trace), *map(str, arguments)]

    @classmethod
    def read(cls, trace: Path, found: Surroundings) -> "Traced":
        """Return what was written down of a command that ran there."""
        lines = trace.read_text(errors="replace").splitlines()
        # Where threads take turns, a call is in two lines, of which the first has its arguments.
        return cls([line for line in lines if not _GOES_ON.match(line)], found.elsewhere)

    @property
    def sent(self) -> list[str]:
        """What went, or was to go, to another machine."""
        return [call for call in self.calls if _SENDS.match(call) and not _HERE.search(call)]

    @property
    def looked_up(self) -> list[str]:
        """What reads how names are looked up, or asks for one."""
        return [c for c in self.calls if re.search(r"resolv\.conf|/nscd/|htons\(53\)", c)]

    def written(self, *allowed: Path) -> list[str]:
        """What made, changed or removed a file outside some folders."""
        return [
            call
            for call in self.calls
            if (_WRITES.search(call) if _OPENS.match(call) else not _SENDS.match(call))
            and " = -1 " not in call
            and not all(_may_be_written(name, allowed) for name in self._names(call))
        ]

    def _names(self, call: str) -> list[str]:
        folder, names = str(self.elsewhere), []
        for beside, name in _NAME.findall(call):
            folder = beside or folder
            names.append(name if name.startswith("/") else f"{folder}/{name}")
        return names


def _may_be_written(name: str, allowed: Sequence[Path]) -> bool:
    # What Python compiles is kept beside its sources.
    return (
        name.startswith(("/dev/", "/proc/", "/sys/"))
        or "__pycache__" in name
        or any(name == str(folder) or name.startswith(f"{folder}/") for folder in allowed)
    )


def ran(
    arguments: Sequence[object], found: Surroundings, trace: Path
) -> "subprocess.CompletedProcess[str]":
    """Run a command under strace until it ends."""
    return subprocess.run(
        Traced.command(arguments, trace),
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
