"""The tracer: every way to send something or to change a file is found."""

import platform
import re
import sys
from pathlib import Path

import pytest

from tests.surroundings import Surroundings

from .traced import Traced, joined, ran

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="strace is Linux's")

# glibc has no function for these calls, and their numbers are those of one architecture.
by_number = pytest.mark.skipif(platform.machine() != "x86_64", reason="calls by x86-64's numbers")

# Nobody has the two far addresses (RFC 5737, RFC 3849). A call without a route counts all the same.
_BEGINNING = """
import ctypes, os, socket, tempfile
from contextlib import suppress
FAR, FAR_6, LOCAL, SYS = "192.0.2.1", "2001:db8::1", "127.0.0.1", ctypes.CDLL(None)
def udp(family=socket.AF_INET):
    return socket.socket(family, socket.SOCK_DGRAM)
def connected():
    one = udp()
    with suppress(OSError):
        one.connect((FAR, 9))
    return one
def tcp():
    listener = socket.create_server((LOCAL, 0))
    return socket.create_connection(listener.getsockname()), listener
def sendmmsg(one, *addresses):
    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_char_p), ("len", ctypes.c_size_t)]
    class Message(ctypes.Structure):
        _fields_ = [("name", ctypes.c_char_p), ("namelen", ctypes.c_uint),
                    ("iov", ctypes.POINTER(Vector)), ("iovlen", ctypes.c_size_t),
                    ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                    ("flags", ctypes.c_int), ("padding", ctypes.c_int),
                    ("len", ctypes.c_uint)]
    messages, vector = (Message * len(addresses))(), Vector(b"127.0.0.1", 9)
    for message, address in zip(messages, addresses):
        name = int(socket.AF_INET).to_bytes(2, "little") + (9).to_bytes(2, "big")
        name += socket.inet_aton(address) + bytes(8)
        message.name, message.namelen = name, 16
        message.iov, message.iovlen = ctypes.pointer(vector), 1
    SYS.sendmmsg(one.fileno(), messages, len(addresses), 0)
open("there", "w").close()
os.mkdir("folder")
where = os.open("folder", os.O_RDONLY)
with suppress(OSError):
    """


def traced(tmp_path: Path, code: str) -> tuple[Traced, Surroundings]:
    found, trace = Surroundings.under(tmp_path), tmp_path / "trace"
    done = ran([sys.executable, "-I", "-c", _BEGINNING + code], found, trace)
    assert done.returncode == 0, done.stderr
    return Traced.read(trace, found), found


@pytest.mark.parametrize(
    ("call", "code"),
    [
        # The data names this machine, and must not count as an address.
        ("sendto", "udp().sendto(b'127.0.0.1 AF_UNIX <UNIX', (FAR, 9))"),
        ("sendto", "one = udp(); one.bind((LOCAL, 0)); one.sendto(b'x', (FAR, 9))"),
        ("sendto", "udp(socket.AF_INET6).sendto(b'[::1]', (FAR_6, 9))"),
        ("sendto", "connected().send(b'127.0.0.1')"),
        ("sendmsg", "udp().sendmsg([b'127.0.0.1'], [], 0, (FAR, 9))"),
        ("sendmsg", "connected().sendmsg([b'127.0.0.1'])"),
        ("sendmmsg", "sendmmsg(udp(), FAR)"),
        ("sendmmsg", "sendmmsg(udp(), LOCAL, FAR)"),
        ("connect", "udp().connect((FAR, 9))"),
        ("connect", "udp(socket.AF_INET6).connect((FAR_6, 9))"),
        ("write", "one = connected(); os.write(one.fileno(), b'127.0.0.1')"),
        ("writev", "one = connected(); os.writev(one.fileno(), [b'127.0.0.1'])"),
        ("sendfile", "one = connected(); os.sendfile(one.fileno(), where, 0, 5)"),
    ],
)
def test_a_call_that_sends_elsewhere_is_found(tmp_path: Path, call: str, code: str) -> None:
    seen, _ = traced(tmp_path, code)
    assert [c for c in seen.sent if f" {call}(" in c], seen.calls[-5:]


@pytest.mark.parametrize(
    "code",
    [
        "udp().sendto(b'192.0.2.1', (LOCAL, 9))",
        "udp(socket.AF_INET6).sendto(b'x', ('::1', 9))",
        "udp(socket.AF_INET6).sendto(b'x', ('::ffff:127.0.0.1', 9))",
        "sendmmsg(udp(), LOCAL, LOCAL)",
        "one, _ = tcp(); os.write(one.fileno(), b'192.0.2.1'); one.sendmsg([b'x'])",
        "one, _ = socket.socketpair(); os.write(one.fileno(), b'192.0.2.1')",
        "one = udp(socket.AF_UNIX); one.sendto(b'192.0.2.1', 'nobody')",
        "SYS.send(-1, b'192.0.2.1', 9, 0); SYS.send(9999, b'192.0.2.1', 9, 0)",
        "print('192.0.2.1')",
    ],
)
def test_a_call_that_stays_on_this_machine_is_not_reported(tmp_path: Path, code: str) -> None:
    seen, _ = traced(tmp_path, code)
    assert seen.sent == []


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("openat", "os.close(os.open('new', os.O_CREAT))"),
        ("openat", "os.close(os.open('there', os.O_WRONLY))"),
        ("openat", "os.close(os.open('there', os.O_RDWR))"),
        ("openat", "os.close(os.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=where))"),
        ("openat", "os.close(os.open('.', os.O_TMPFILE | os.O_RDWR))"),
        pytest.param(
            "open", "SYS.syscall(2, b'new', os.O_CREAT | os.O_WRONLY, 0o600)", marks=by_number
        ),
        pytest.param("creat", "SYS.syscall(85, b'new', 0o600)", marks=by_number),
        ("truncate", "os.truncate('there', 0)"),
        ("mknod", "os.mkfifo('new')"),
        ("mkdir", "os.mkdir('new')"),
        ("mkdirat", "os.mkdir('new', dir_fd=where)"),
        ("rmdir", "os.rmdir('folder')"),
        ("unlink", "os.unlink('there')"),
        ("unlinkat", "os.unlink('there', dir_fd=os.open('.', os.O_RDONLY))"),
        ("rename", "os.rename('there', 'new')"),
        ("renameat", "os.rename('there', 'new', dst_dir_fd=where)"),
        ("renameat2", "SYS.renameat2(-100, b'there', where, b'new', 1)"),
        ("link", "os.link('there', 'new')"),
        ("linkat", "os.link('there', 'new', dst_dir_fd=where)"),
        ("symlink", "os.symlink('there', 'new')"),
        ("symlinkat", "os.symlink('there', 'new', dir_fd=where)"),
    ],
)
def test_a_call_that_changes_a_file_is_found(tmp_path: Path, call: str, code: str) -> None:
    seen, found = traced(tmp_path, code)
    # The system chooses between a call and its `at`, except where the test asks for one.
    changes = seen.written(tmp_path / "another")
    assert [c for c in changes if re.match(rf"\d+ +{call}(at)?\(", c)], seen.calls[-5:]
    assert seen.written(found.elsewhere) == []


def test_a_call_that_threads_interrupt_is_one_call() -> None:
    lines = [
        '1 openat(AT_FDCWD</tmp>, "missing", O_WRONLY <unfinished ...>',
        '2 openat(AT_FDCWD</tmp>, "new", O_WRONLY|O_CREAT, 0666 <unfinished ...>',
        "1 <... openat resumed>) = -1 ENOENT (No such file or directory)",
        "2 <... openat resumed>) = 5</tmp/new>",
    ]
    missing, new = joined(lines)
    assert missing.endswith("O_WRONLY) = -1 ENOENT (No such file or directory)")
    assert Traced([missing, new], Path("/tmp")).written() == [new]
