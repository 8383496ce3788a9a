"""Where doors listen, and what is said where they can't."""

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from visavis_server.addresses import listen, why, why_not


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `both.test` be this machine by IPv4 and IPv6, and `half.test` also another machine."""
    real = socket.getaddrinfo
    places = {"both.test": ("127.0.0.1", "::1"), "half.test": ("192.0.2.1", "127.0.0.1")}

    def resolve(host: str, *args: Any, **how: Any) -> list[Any]:
        return [found for each in places.get(host, (host,)) for found in real(each, *args, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def held() -> Iterator[int]:
    """A port of 127.0.0.1 that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


def reached(address: str) -> set[str]:
    """Listen at an address, and return which of this machine's addresses lead there."""
    sockets = listen(address)
    (port,) = {each.getsockname()[1] for each in sockets}
    found = set()
    for host in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError:
            continue
        found.add(host)
    for each in sockets:
        each.close()
    return found


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("127.0.0.1:0", {"127.0.0.1"}),
        ("0.0.0.0:0", {"127.0.0.1"}),
        ("[::1]:0", {"::1"}),
        ("[::1%1]:0", {"::1"}),
        ("[::1%lo]:0", {"::1"}),
        ("[::]:0", {"127.0.0.1", "::1"}),
        ("both.test:0", {"127.0.0.1", "::1"}),
        ("half.test:0", {"127.0.0.1"}),
    ],
)
def test_a_door_listens_at_all_addresses_of_its_host(address: str, hosts: set[str]) -> None:
    assert reached(address) == hosts


def test_a_machine_without_ipv6_listens_by_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *args: Any, **how: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *args, **how)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    (only,) = listen("[::]:0")
    assert only.getsockname()[0] == "0.0.0.0"
    only.close()
    assert why_not("[::1]:0") == "this machine has no IPv6"


@pytest.mark.usefixtures("names")
def test_a_port_that_is_taken_at_one_of_two_addresses_is_taken(held: int) -> None:
    with pytest.raises(OSError, match="in use"):
        listen(f"both.test:{held}")
    socket.create_server(("::1", held), family=socket.AF_INET6).close()  # nothing was left open


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:{held}", "the address is already in use"),
        ("192.0.2.1:0", "no network interface of this machine has this address"),
        ("[fe80::1%none]:0", "no interface with this name"),
        ("nowhere.invalid:0", "the host can't be resolved ("),
        ("unix:{folder}/none/v.sock", "its folder {folder}/none does not exist"),
        ("unix:{folder}/file/v.sock", "its folder {folder}/file is not a folder"),
        ("unix:{folder}/file", "the existing file there is not a socket"),
        ("unix:{folder}", "the existing file there is not a socket"),
        ("unix:/proc/v.sock", "can't create a socket in /proc ("),
        ("unix:{folder}/v.sock", ""),
    ],
)
def test_the_reason_for_a_failed_listen_is_reported(
    tmp_path: Path, held: int, address: str, words: str
) -> None:
    (tmp_path / "file").touch()
    said = why_not(address.format(folder=tmp_path, held=held))
    assert said.startswith(words.format(folder=tmp_path))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


def test_an_error_without_a_text_of_its_own_keeps_the_system_s() -> None:
    assert why(OSError(13, "Permission denied")) == "Permission denied"
