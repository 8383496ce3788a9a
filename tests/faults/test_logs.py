"""Logs of a server as a user starts it: nothing forges an entry, floods them, or waits for them."""

import asyncio
import json
import os
import socket
import ssl
import struct
import subprocess
import zlib
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import trustme
from visavis.v1 import vision_pb2 as pb

from tests.surroundings import VISAVIS, Surroundings

from .attacks import RawConnection
from .calls import OK, channel, classify, ended, stub_of
from .conftest import Serve
from .process import PATIENCE_S, ServerProcess, started, until


def entries(log: str) -> list[dict[str, Any]]:
    """Return the entries of a log; fails at a line that is none."""
    return [json.loads(line) for line in log.splitlines()]


def _with_tls(folder: Path) -> tuple[str, ...]:
    folder.mkdir()
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
    (folder / "certificate.pem").write_bytes(chain)
    key, chain_file = folder / "key.pem", folder / "certificate.pem"
    return "--tls-private-key", str(key), "--tls-certificate", str(chain_file)


def _wait_until_listening(server: ServerProcess) -> None:
    until(lambda: '"ready"' in server.log, f"the server is not ready: {server.log}")


def _garbage(port: int) -> None:
    """Send to TLS what is no handshake, and wait until the server has closed."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(PATIENCE_S)
        with suppress(OSError):
            connection.sendall(b'GET /\n{"event": "forged"}\r\n\r\n' + os.urandom(64))
            while connection.recv(1 << 10):
                pass


def test_failed_handshakes_leave_a_bounded_number_of_entries(models: Path, tmp_path: Path) -> None:
    # gRPC's own log is off unless somebody wants it: then it has a line for each.
    server = ServerProcess(models, tmp_path, *_with_tls(tmp_path / "tls"), GRPC_VERBOSITY="info")
    try:
        _wait_until_listening(server)
        for _ in range(200):
            _garbage(server.port)
        server.process.terminate()
        assert server.wait() == 0
        found = entries(server.log)
        wrote = [entry for entry in found if entry["event"] == "library wrote"]
        left_out = sum(entry.get("suppressed", 0) for entry in found)
        assert any("andshake" in entry["text"] for entry in wrote)
        assert len(wrote) <= 100 and len(wrote) + left_out >= 200
        assert "forged" not in {entry["event"] for entry in found}
    finally:
        server.__exit__(None, None, None)


def test_a_token_that_is_not_text_is_not_logged(serve: Serve) -> None:
    server = serve()
    with closing(RawConnection(server.port)) as client:
        client.open_call([("authorization", b"Bearer open-sesame\xff")], "/a.B/C")
        while client.calls:
            assert client.events(PATIENCE_S), "the call was not ended"
    until(lambda: "metadata is not UTF-8" in server.log, "gRPC's report is not logged")
    assert "sesame" not in server.log


def test_failed_handshakes_are_silent_where_nobody_asks_for_grpcs_log(
    models: Path, tmp_path: Path
) -> None:
    server = ServerProcess(models, tmp_path, *_with_tls(tmp_path / "tls"))
    try:
        _wait_until_listening(server)
        before = len(entries(server.log))
        for _ in range(50):
            _garbage(server.port)
        assert len(entries(server.log)) == before
    finally:
        server.__exit__(None, None, None)


def test_a_broken_certificate_is_logged_once(models: Path, tmp_path: Path) -> None:
    server = ServerProcess(models, tmp_path, *_with_tls(tmp_path / "tls"))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _wait_until_listening(server)
        (tmp_path / "tls" / "certificate.pem").write_text("nothing")
        for _ in range(100):
            with (
                socket.create_connection(("127.0.0.1", server.port)) as connection,
                context.wrap_socket(connection),
            ):
                pass
        until(lambda: "certificates not reloaded" in server.log, "it is not told")
        server.process.terminate()
        assert server.wait() == 0
        told = [e for e in entries(server.log) if e["event"] == "certificates not reloaded"]
        assert len(told) == 1
    finally:
        server.__exit__(None, None, None)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_that_makes_libpng_write(name: bytes) -> bytes:
    """Return a picture of 8 x 8 pixels whose colour profile is wrong, and has a name."""
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    profile = name + b"\0\0" + zlib.compress(bytes(200))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"iCCP", profile)
        + _chunk(b"IDAT", zlib.compress(bytes(8 * 25)))
        + _chunk(b"IEND", b"")
    )


async def test_a_picture_forges_no_entry(serve: Serve) -> None:
    server = serve()
    async with channel(server.address) as one:
        for name in (b'x\n{"event": "forged"}\n', b"\x1b[31m", b"x\r"):
            picture = pb.Image(encoded=_png_that_makes_libpng_write(name))
            request = pb.ClassifyRequest(image=picture, model="colors")
            await ended(stub_of(one).Classify(request))
    assert "\x1b" not in server.log
    assert "forged" not in {entry["event"] for entry in entries(server.log)}


async def test_a_reader_that_does_not_read_delays_neither_calls_nor_the_end(
    models: Path, tmp_path: Path
) -> None:
    with started(models, tmp_path, subprocess.PIPE, "--log-level", "debug") as (process, port):
        await _calls(port, 2000)  # of which a pipe holds some 400
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0


async def test_a_full_disk_costs_no_call_and_no_exit_code(models: Path, tmp_path: Path) -> None:
    with (
        open("/dev/full", "wb") as full,
        started(models, tmp_path, full, "--log-level", "debug") as (process, port),
    ):
        await _calls(port, 20)
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0


async def test_a_closed_standard_error_ends_nothing(models: Path, tmp_path: Path) -> None:
    with started(models, tmp_path, subprocess.DEVNULL, redirection="2>&-") as (process, port):
        await _calls(port, 20)
        # No socket and no file has its number.
        assert Path(f"/proc/{process.pid}/fd/2").readlink().name.startswith("pipe:")
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0


def test_what_keeps_a_server_from_starting_is_an_entry_too(tmp_path: Path) -> None:
    found = Surroundings.under(tmp_path)
    (empty := tmp_path / 'models\n{"event": "forged"}').mkdir()
    done = subprocess.run(
        [VISAVIS, "serve", "--models", str(empty), "--log-format", "json"],
        cwd=found.elsewhere,
        env=found.environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    (entry,) = entries(done.stderr)
    assert entry["event"] == "not started" and r"models\n" in entry["why"]


async def _calls(port: int, count: int) -> None:
    """Call a server once it answers; each call is answered."""
    async with channel(f"127.0.0.1:{port}") as one:
        stub = stub_of(one)
        async with asyncio.timeout(PATIENCE_S):
            while (await ended(stub.Classify(classify(), wait_for_ready=True))).code is not OK:
                await asyncio.sleep(0.05)
        for _ in range(count // 10):
            calls = [ended(stub.Classify(classify(), timeout=PATIENCE_S)) for _ in range(10)]
            assert [call.code for call in await asyncio.gather(*calls)] == [OK] * 10
