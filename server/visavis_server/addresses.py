"""Addresses of listeners: HOST:PORT, [IPv6]:PORT or unix:PATH, and why one is unusable."""

import errno
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

UNIX: Final = "unix:"
"""The prefix of a Unix socket's address."""

# The capacity of sockaddr_un, less the terminating zero.
_MAX_PATH_BYTES: Final = 107
_FORMS: Final = "HOST:PORT, [IPv6]:PORT or unix:PATH"
# An address of a host that this machine lacks is skipped if it has another one of them.
_NOT_HERE: Final = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
_WHY: Final = {
    errno.EADDRINUSE: "the address is already in use",
    errno.EADDRNOTAVAIL: "no network interface of this machine has this address",
    errno.EAFNOSUPPORT: "this machine has no IPv6",
}
# Another process may take the first socket's port before the second socket binds it.
_ATTEMPTS: Final = 8


def normalized(address: str) -> str:
    """Return an address in its canonical form, with the host in lower case.

    Raises ValueError with the accepted forms.
    """
    if address.startswith(UNIX):
        return UNIX + _checked_path(address.removeprefix(UNIX))
    host, colon, port = address.rpartition(":")
    if address and (not colon or address.endswith("]")):
        raise ValueError(f"the port is missing; it must be {_FORMS}")
    in_brackets = host.startswith("[") and host.endswith("]")
    if ":" in host and not in_brackets and _is_ipv6(address.strip("[]"), host):
        raise ValueError(f"IPv6 addresses need brackets; it must be {_FORMS}")
    if in_brackets:
        literal, percent, zone = host[1:-1].partition("%")
        if not (_is_ipv6(literal) and re.fullmatch(r"[\w.-]+" if percent else "", zone)):
            raise ValueError(f"{host} is not an IPv6 address; it must be {_FORMS}")
        host = f"[{literal.lower()}{percent}{zone}]"
    elif not re.fullmatch(r"[^\s:/\[\]%]+", host):
        raise ValueError(f"it must be {_FORMS}")
    else:
        host = host.lower()
        try:
            host.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"{host[:64]!r} is not a host name: {error}") from None
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"the port must be a number from 0 to 65535; it must be {_FORMS}")
    return f"{host}:{int(port)}"


def is_local(address: str) -> bool:
    """Return True if an address can be reached from this machine only."""
    if address.startswith(UNIX):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(literal, "ipv4_mapped", None) or literal).is_loopback


def numbered(address: str) -> str:
    """Return an address with its zone, if any, as the number of the network interface.

    The resolver accepts names of zones for link-local addresses only. Raises OSError if the
    interface does not exist.
    """

    def number(zone: re.Match[str]) -> str:
        name = zone[1]
        return f"%{name if name.isdecimal() else socket.if_nametoindex(name)}]"

    return re.sub(r"%([^]]+)]", number, address)


def listen(address: str, *, shared: bool = False) -> list[socket.socket]:
    """Return sockets that listen at HOST:PORT, on all addresses of the host, with one port.

    `[::]` includes IPv4; on a machine without IPv6 it means IPv4 alone, as in gRPC. shared: other
    processes of this user may listen there too, if theirs are shared as well; the kernel spreads
    the connections. Raises OSError; see `why`.
    """
    return _opened(address, shared, socket.SOMAXCONN)


def reserve(address: str) -> list[socket.socket]:
    """Return sockets that hold HOST:PORT for shared ones. They do not listen. Raises OSError."""
    return _opened(address, shared=True, backlog=None)


def _opened(address: str, shared: bool, backlog: int | None) -> list[socket.socket]:
    host, _, port = numbered(address).rpartition(":")
    results = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    places = list(dict.fromkeys((family, where) for family, _, _, _, where in results))
    if places[0][1][0] == "::" and not _has_ipv6():
        places = [(socket.AF_INET, ("0.0.0.0", int(port)))]
    for _ in range(_ATTEMPTS - 1):
        with suppress(OSError):
            return _sockets(places, shared, backlog)
        if int(port):
            break
    return _sockets(places, shared, backlog)


def why(error: OSError) -> str:
    """Return in words why listening on an address failed."""
    if isinstance(error, socket.gaierror):
        return f"the host can't be resolved ({error.strerror})"
    return _WHY.get(error.errno or 0, error.strerror or str(error))


def why_not(address: str) -> str:
    """Try to listen on an address; returns why it failed, or ""."""
    try:
        if not address.startswith(UNIX):
            for each in listen(address):
                each.close()
        else:
            return _trouble_at(Path(address.removeprefix(UNIX)))
    except OSError as error:
        return why(error)
    return ""


def _sockets(
    places: Sequence[tuple[int, tuple[Any, ...]]], shared: bool, backlog: int | None
) -> list[socket.socket]:
    """Return a socket for each address that this machine has; raises OSError.

    backlog: None: they do not listen.
    """
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, (host, port, *rest) in places:
            new = None
            try:
                new = socket.socket(family, socket.SOCK_STREAM)
                new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shared:
                    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    takes_ipv4 = host == "::" or str(host).startswith("::ffff:")
                    new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not takes_ipv4))
                # Port 0: all sockets share the port that the first one gets.
                new.bind((host, port or (sockets and sockets[0].getsockname()[1]) or 0, *rest))
                if backlog is not None:
                    new.listen(backlog)
                sockets.append(new)
            except OSError as error:
                if new is not None:
                    new.close()
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _has_ipv6() -> bool:
    """Return True if this machine supports IPv6."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _is_ipv6(*texts: str) -> bool:
    """Return True if any of the texts is an IPv6 address."""
    for text in texts:
        with suppress(ValueError):
            ipaddress.IPv6Address(text)
            return True
    return False


def _checked_path(path: str) -> str:
    """Validate the path of a Unix socket; accepts gRPC's `unix:///PATH` too."""
    if path.startswith("//"):
        if not path.startswith("///"):
            raise ValueError("the path after unix:// must be absolute: unix:///PATH")
        path = path.removeprefix("//")
    if not path or "\0" in path:
        raise ValueError(f"it must be {_FORMS}")
    if (size := len(os.fsencode(path))) > _MAX_PATH_BYTES:
        raise ValueError(
            f"the path of a Unix socket may have at most {_MAX_PATH_BYTES} bytes, but this one has "
            f"{size}; choose a shorter one"
        )
    return path


def _trouble_at(path: Path) -> str:
    """Return why a socket can't be created at a path, or ""."""
    folder = path.parent
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist; create it first"
        return f"its folder {folder} {state}"
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return "the existing file there is not a socket"
    except FileNotFoundError:
        pass
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(path))
        except OSError as error:
            return f"can't create a socket in {folder} ({error.strerror})"
        path.unlink()
    return ""
