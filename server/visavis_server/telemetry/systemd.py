"""Notifications to systemd: READY, STOPPING and the watchdog. Without systemd they do nothing.

Protocol: sd_notify(3), datagrams to the socket named in the environment.
"""

import os
import socket

# The event loop waits so long for systemd to read.
_SEND_S = 0.5


def notify(state: str) -> None:
    """Send a state, such as READY=1, if systemd listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name in Linux's abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.settimeout(_SEND_S)
        try:
            out.connect(address)
            out.send(state.encode())
        except OSError:  # systemd is gone, or does not read
            return


def watchdog_s() -> float | None:
    """Return the watchdog interval in seconds; None: the watchdog is off."""
    usec, pid = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")
    if not usec or not usec.isdigit() or (pid or str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 1e6
