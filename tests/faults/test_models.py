"""Model files and folders that misbehave, before and while they are served."""

import asyncio
import json
import math
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from visavis import Client
from visavis.v1 import vision_pb2 as pb

from tests.server import graphs
from tests.surroundings import VISAVIS, Surroundings
from visavis_server.card import METADATA_KEY

from .calls import COLORS, channel, stub_of
from .process import PATIENCE_S, ServerProcess, free_port, until

RED = pb.ClassifyRequest(image=pb.Image(encoded=COLORS["red"]), model="colors")


def colors(gain: float = 1.0) -> bytes:
    return graphs.export(graphs.classifier(gain), graphs.classifier_document())[0]


def unverified(gain: float) -> bytes:
    """Return colors without digest and golden sample, as others' exporters make files."""
    text = graphs.classifier_document().model_dump_json()
    return graphs.with_metadata(graphs.classifier(gain), {METADATA_KEY: text})


def events(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return [entry for entry in entries if entry.get("event") == event]


async def test_weights_that_are_overwritten_never_answer(tmp_path: Path) -> None:
    """The session for exclusive runs is created at the first one: after the file has changed."""
    path = graphs.put(tmp_path / "models", "colors", 1, unverified(1.0))
    with ServerProcess(tmp_path / "models", tmp_path, "--cores", "2") as server:
        path.write_bytes(unverified(3.0))
        async with channel(server.address) as one:
            stub, alone = stub_of(one), []
            end = time.monotonic() + PATIENCE_S
            while "no session for exclusive runs" not in server.log and time.monotonic() < end:
                answer = await stub.Classify(RED)
                alone.append(answer.classifications[0].score)
            company = await asyncio.gather(*(stub.Classify(RED) for _ in range(16)))
        log = server.log
    scores = [*alone, *(answer.classifications[0].score for answer in company)]
    # Red, green and blue have the means 1, 0 and 0: of their softmax, e / (e + 2).
    assert scores == pytest.approx([math.e / (math.e + 2)] * len(scores), abs=1e-5)
    assert f"{path}: the file was overwritten while it was served" in log


def test_a_model_that_never_loads_is_named_and_the_others_are_served(tmp_path: Path) -> None:
    endless = graphs.put(tmp_path / "models", "another", 1, graphs.loop_without_end())
    graphs.put(tmp_path / "models", "bad", 1, b"no model")
    graphs.put(tmp_path / "models", "colors", 1, colors())
    with ServerProcess(tmp_path / "models", tmp_path, VISAVIS_LOAD_TIMEOUT_S="4") as server:
        with Client(server.address) as client:
            assert [model.name for model in client.list_models()] == ["colors"]
        why = {entry["model"]: entry["why"] for entry in events(server, "refused")}
        (ready,) = events(server, "ready")
    assert list(why) == ["another/1", "bad/1"]
    assert why["another/1"] == f"{endless}: it did not load and warm up within 4 s"
    assert (ready["models"], ready["refused"]) == (1, 2)


def test_where_all_models_are_required_one_that_never_loads_ends_the_start(tmp_path: Path) -> None:
    endless = graphs.put(tmp_path / "models", "endless", 1, graphs.loop_without_end())
    graphs.put(tmp_path / "models", "colors", 1, colors())
    limits = {"VISAVIS_LOAD_TIMEOUT_S": "4", "VISAVIS_REQUIRE_ALL_MODELS": "true"}
    server = ServerProcess(tmp_path / "models", tmp_path, **limits)
    assert server.wait() == 1
    assert f"{endless}: it did not load and warm up within 4 s" in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_start_and_the_trial_while_a_model_hangs(
    tmp_path: Path, number: signal.Signals
) -> None:
    graphs.put(tmp_path / "models", "endless", 1, graphs.loop_without_end())
    server = ServerProcess(tmp_path / "models", tmp_path)
    until(lambda: "starting" in server.log, "it does not start")
    (trial,) = server.seen.children()
    # Its imports are over, and it hangs: it takes a core.
    until(lambda: trial.cpu_times().user > 2, "the trial does not run")
    server.signal(number)
    assert server.wait() == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    _, alive = psutil.wait_procs([trial], timeout=10)
    assert alive == []


async def test_a_repository_that_is_gone_for_a_moment_loses_no_call(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    graphs.put(folder, "colors", 1, colors())
    failures: list[object] = []
    with ServerProcess(folder, tmp_path, "--watch-interval-s", "0.05") as server:

        async def call() -> None:
            async with channel(server.address) as one:
                stub = stub_of(one)
                while not over.is_set():
                    try:
                        await stub.Classify(RED)
                    except Exception as error:  # noqa: BLE001  whatever it is, it is reported
                        failures.append(repr(error)[:300])

        over = asyncio.Event()
        calls = [asyncio.create_task(call()) for _ in range(4)]
        for gone in (folder, folder / "colors", folder / "colors" / "1"):
            aside = tmp_path / "aside"
            gone.rename(aside)
            gone.mkdir()  # as under a file system that is mounted no more
            looked = len(events(server, "not removed"))
            while len(events(server, "not removed")) == looked and not failures:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)  # some looks more
            gone.rmdir()
            aside.rename(gone)
        over.set()
        await asyncio.gather(*calls)
    assert failures == []
    assert len(events(server, "loaded")) == 1


def test_modules_in_the_working_folder_are_never_run(tmp_path: Path) -> None:
    """As a user starts it: the command, an environment of PATH and HOME, some folder."""
    graphs.put(tmp_path / "models", "colors", 1, colors())
    surroundings = Surroundings.under(tmp_path)
    ran = tmp_path / "ran"
    for name in ("visavis_server", "visavis", "queue", "signal", "json", "numpy"):
        (surroundings.elsewhere / f"{name}.py").write_text(f"open('{ran}', 'a').write('{name}')")
    address = f"127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [VISAVIS, "serve", "--models", str(tmp_path / "models"), "--grpc", address],
        cwd=surroundings.elsewhere,
        env=surroundings.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with Client(address) as client:
            client.wait_until_ready(PATIENCE_S)
            assert client.classify(COLORS["red"], model="colors").classifications[0].label == "red"
    finally:
        server.terminate()
        _, log = server.communicate(timeout=PATIENCE_S)
    assert "refused=0" in log
    assert not ran.exists()
