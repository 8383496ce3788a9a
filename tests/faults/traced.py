"""The system calls of a command under strace: what it sends, looks up and writes."""

import ipaddress
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.surroundings import Surroundings

_SENDS = ("connect", "sendto", "sendmsg", "sendmmsg")
# These send where their descriptor is a socket; a file is seen when it is opened.
_STREAMS = ("write", "writev", "sendfile", "splice")
_OPENS = ("open", "openat", "openat2")
_CHANGES = (
    *("creat", "truncate", "mknod", "mknodat", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
)
_CALLS = (*_SENDS, *_STREAMS, *_OPENS, *_CHANGES)
_NAME_OF_CALL = re.compile(r"^\d+ +(\w+)\(")
_FAILED = re.compile(r"\) += -1 ")
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
_UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_NAME = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')
# Strings, except those that are IP addresses.
_TEXT = re.compile(r'(inet_addr\(|AF_INET6, )?"(?:[^"\\]|\\.)*"')
_ADDRESS = re.compile(r'(?:inet_addr\(|AF_INET6, )"([^"]*)"')
_PEER = re.compile(r"->\[?([0-9a-fA-F.:]+?)\]?:\d+\]>")
_SOCKET = re.compile(r"\d+<(?!pipe:|anon_inode:)[\w-]+:\[")
# A thread wakes its loop over a socket that may be closed by then.
_LOCAL = re.compile(r"sa_family=AF_UNIX|sa_family=AF_NETLINK|<UNIX|<NETLINK|= -1 EBADF ")


@dataclass(frozen=True)
class Traced:
    """The system calls of a command and of its child processes."""

    calls: list[str]
    elsewhere: Path

    @classmethod
    def command(cls, arguments: Sequence[object], trace: Path) -> list[str]:
        """Return a command that runs another and records its system calls."""
        options = ["-f", "-qq", "--seccomp-bpf", "-yy", "-s", "300"]
        # "?": not every architecture has each of them.
        options += ["-e", "trace=" + ",".join(f"?{name}" for name in _CALLS)]
        return ["strace", *options, "-o", str(trace), *map(str, arguments)]

    @classmethod
    def read(cls, trace: Path, found: Surroundings) -> "Traced":
        """Return the recorded calls of a command that ran in some surroundings."""
        lines = trace.read_text(errors="replace").splitlines()
        return cls(joined(lines), found.elsewhere)

    @property
    def connected(self) -> list[str]:
        """The connections that were tried, except those to Unix sockets."""
        return [c for c in self.calls if _called(c) == "connect" and "AF_UNIX" not in _bare(c)]

    @property
    def sent(self) -> list[str]:
        """The calls that sent something to another machine, or tried to."""
        return [call for call in self.calls if _sends(call) and not _is_local(call)]

    @property
    def looked_up(self) -> list[str]:
        """The calls that look up a name, or read how names are looked up."""
        return [c for c in self.calls if re.search(r"resolv\.conf|/nscd/|htons\(53\)", c)]

    def written(self, *allowed: Path) -> list[str]:
        """The calls that made, changed or removed a file outside the allowed folders."""
        return [
            call
            for call in self.calls
            if _changes_files(call)
            and not _FAILED.search(call)
            and not all(_may_be_written(name, allowed) for name in self._names(call))
        ]

    def _names(self, call: str) -> list[str]:
        folder, names = str(self.elsewhere), []
        for beside, name in _NAME.findall(call):
            folder = beside or folder
            names.append(name if name.startswith("/") else f"{folder}/{name}")
        return names


def joined(lines: Sequence[str]) -> list[str]:
    """Return one line for each call: strace splits a call that another thread interrupts."""
    calls: list[str] = []
    unfinished: dict[str, int] = {}
    for line in lines:
        if begun := _UNFINISHED.match(line):
            unfinished[begun[1]] = len(calls)
            calls.append(f"{begun[1]} {begun[2]}")
        elif (rest := _RESUMED.match(line)) and rest[1] in unfinished:
            calls[unfinished.pop(rest[1])] += rest[2]
        elif not rest:
            calls.append(line)
    return calls


def _called(call: str) -> str:
    found = _NAME_OF_CALL.match(call)
    return found[1] if found else ""


def _bare(call: str) -> str:
    """Return a call without its data, which may look like an address."""
    return _TEXT.sub(lambda text: text[0] if text[1] else '""', call)


def _sends(call: str) -> bool:
    name = _called(call)
    return name in _SENDS or (name in _STREAMS and bool(_SOCKET.search(_bare(call))))


def _is_local(call: str) -> bool:
    """Say whether every address of a call, or else every peer, is on this machine."""
    bare = _bare(call)
    if addresses := _ADDRESS.findall(bare) or _PEER.findall(bare):
        return all(map(_is_loopback, addresses))
    return bool(_LOCAL.search(bare))


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _changes_files(call: str) -> bool:
    name = _called(call)
    return name in _CHANGES or (name in _OPENS and bool(_WRITES.search(call)))


def _may_be_written(name: str, allowed: Sequence[Path]) -> bool:
    # Python keeps compiled modules beside their sources.
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
