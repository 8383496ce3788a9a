"""Spreads new connections over the processes that listen on one address.

By itself Linux hashes a connection's addresses, so connections pile up by chance. A classic BPF
program, which needs no privilege, chooses at random with weights instead.
"""

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Final

# asm-generic/socket.h
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_DETACH_REUSEPORT_BPF: Final = 68
# linux/bpf_common.h and linux/filter.h: load a word, modulo, jump if greater or equal, return.
_LOAD, _MODULO, _JUMP_IF_GE, _RETURN = 0x20, 0x94, 0x35, 0x06
_RANDOM: Final = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


def steer(port: int, weights: Sequence[int]) -> bool:
    """Spread the port's new connections by weights; returns False if the system does not allow it.

    weights: of each listening process, in the order in which they began to listen, where the last
    takes the place of one that ends. Empty: as the kernel does by itself.
    """
    steered = False
    for listener in _listeners(port):
        with listener, suppress(OSError):
            if weights:
                _attach(listener, program(weights))
            else:
                listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
            steered = True
    return steered


def program(weights: Sequence[int]) -> list[Instruction]:
    """Return a program that gives the number of a process, at random with weights."""
    chosen = [(number, end) for number, end in enumerate(accumulate(weights)) if weights[number]]
    code = [(_LOAD, 0, 0, _RANDOM), (_MODULO, 0, 0, sum(weights))]
    for number, end in chosen[:-1]:
        code += [(_JUMP_IF_GE, 1, 0, end), (_RETURN, 0, 0, number)]
    return [*code, (_RETURN, 0, 0, chosen[-1][0])]


def _attach(listener: socket.socket, code: Sequence[Instruction]) -> None:
    instructions = b"".join(struct.pack("HBBI", *each) for each in code)
    kept = ctypes.create_string_buffer(instructions)
    filter_ = struct.pack("HP", len(code), ctypes.addressof(kept))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, filter_)


def _listeners(port: int) -> Iterator[socket.socket]:
    """Yield copies of this process's sockets that listen on a port: gRPC does not give its own."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  names are numbers
        with suppress(OSError):  # closed meanwhile
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
            is_tcp = copy.family in (socket.AF_INET, socket.AF_INET6)
            listens = copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if is_tcp and listens and copy.getsockname()[1] == port:
                yield copy
            else:
                copy.close()
