"""That connections that say nothing never take the last descriptor."""

import socket
from contextlib import ExitStack
from pathlib import Path

from .calls import OK, classify, ended, stub_of
from .calls import channel as channel_to
from .process import VISAVIS, ServerProcess, free_port

OPEN_FILES = 400


class Narrow(ServerProcess):
    command = ("sh", "-c", f'ulimit -n {OPEN_FILES}; exec {VISAVIS} serve "$@"', "sh")


async def test_silent_connections_at_all_doors_leave_descriptors(
    models: Path, tmp_path: Path
) -> None:
    http, metrics = free_port(), free_port()
    doors = ["--http", f"127.0.0.1:{http}", "--metrics", f"127.0.0.1:{metrics}"]
    with Narrow(models, tmp_path, *doors) as server, ExitStack() as silent:
        async with channel_to(server.address) as channel:
            assert (await ended(stub_of(channel).Classify(classify()))).code is OK
            for _ in range(OPEN_FILES):
                for port in (server.port, http, metrics):
                    each = silent.enter_context(socket.socket())
                    each.setblocking(False)
                    each.connect_ex(("127.0.0.1", port))
            assert (await ended(stub_of(channel).Classify(classify()))).code is OK
            assert server.descriptors < OPEN_FILES - 30
            assert server.process.poll() is None
