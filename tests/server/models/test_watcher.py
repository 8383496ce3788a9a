"""The folder of models, watched: what comes, changes, goes, and what must not be served."""

import asyncio
import gc
import os
import re
import socket
import time
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto
from structlog.testing import capture_logs
from visavis.v1 import vision_pb2 as pb

from visavis_server.app import App
from visavis_server.models.loader import Loader
from visavis_server.models.model_files import ModelFile, look_at
from visavis_server.models.planning import Planner
from visavis_server.models.repository import Repository
from visavis_server.models.watcher import Watcher
from visavis_server.runtime.providers import CPU
from visavis_server.runtime.scheduling.scheduler import Scheduler

from .. import graphs
from ..serving import image, served_by, settings

CLASSIFY = pb.ClassifyRequest(image=image(), model="colors")


def colors(gain: float = 10.0) -> bytes:
    return graphs.export(graphs.classifier(gain), graphs.classifier_document())[0]


class Watched:
    """A folder with colors/1, a watcher for it, and what was published last."""

    def __init__(self, folder: Path, scheduler: Scheduler, timeout_s: float = 60.0) -> None:
        self.folder, self.published = folder, Repository([])
        loader = Loader(Planner(CPU, 1), scheduler, folder)
        file = ModelFile("colors", 1, graphs.put(folder, "colors", 1, colors()))
        model = loader.load(file)

        async def publish(repository: Repository) -> None:
            self.published = repository

        self.watcher = Watcher(look_at(folder), loader, [(file, model)], publish, timeout_s)
        self.published = Repository([model])

    async def look(self, times: int = 2) -> list[Any]:
        """Look at the folder until what is new has settled; return what was logged."""
        with capture_logs() as logs:
            for _ in range(times):
                await self.watcher.look()
        return logs

    def versions(self) -> dict[str, list[int]]:
        return {name: self.published.versions(name) for name in self.published.names()}


@pytest_asyncio.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    scheduler = Scheduler(cores=1, queue_size=10)
    yield Watched(tmp_path / "models", scheduler)
    await asyncio.to_thread(scheduler.close)


async def test_a_new_version_is_served_once_it_has_settled(watched: Watched) -> None:
    graphs.put(watched.folder, "colors", 2, colors(20))
    await watched.look(times=1)
    assert watched.versions() == {"colors": [1]}  # somebody may be writing it still
    await watched.look(times=1)
    assert watched.versions() == {"colors": [1, 2]}


async def test_a_file_that_grows_between_looks_is_left_alone(watched: Watched) -> None:
    contents = colors(20)
    path = graphs.put(watched.folder, "colors", 2, contents[:100])
    await watched.look(times=1)
    path.write_bytes(contents)
    logs = await watched.look(times=1)
    assert [log for log in logs if log["event"] == "refused"] == []
    await watched.look(times=1)
    assert watched.versions() == {"colors": [1, 2]}


async def test_a_changed_file_replaces_the_model_and_frees_it(watched: Watched) -> None:
    before = weakref.ref(watched.published.get("colors"))
    replace(watched.folder / "colors" / "1" / "model.onnx", colors(20))
    gc.disable()
    try:
        await watched.look()
        assert before() is None  # nothing holds the old one, not even a cycle
    finally:
        gc.enable()
    assert watched.published.get("colors").document.golden_sample is not None


async def test_a_removed_version_is_not_served_any_more(watched: Watched) -> None:
    path = graphs.put(watched.folder, "colors", 2, colors(20))
    await watched.look()
    path.unlink()
    await watched.look()
    assert watched.versions() == {"colors": [1]}


async def test_a_folder_that_is_gone_leaves_everything_served(watched: Watched) -> None:
    watched.folder.rename(watched.folder.with_name("elsewhere"))
    watching = asyncio.create_task(watched.watcher.watch(0.01))
    with capture_logs() as logs:
        await asyncio.sleep(0.2)
    assert watched.versions() == {"colors": [1]}
    assert [log["event"] for log in logs] == ["the repository can't be watched"]  # said once
    watched.folder.with_name("elsewhere").rename(watched.folder)
    graphs.put(watched.folder, "colors", 2, colors(20))
    while watched.versions() != {"colors": [1, 2]}:
        await asyncio.sleep(0.05)
    watching.cancel()


def replace(path: Path, contents: bytes) -> None:
    """Put a file in another's place at once, as whoever deploys should."""
    new = path.with_name("new")
    new.write_bytes(contents)
    new.rename(path)


def _external(path: Path) -> bytes:
    """A classifier whose weights are said to lie in another file."""
    model = onnx.load_from_string(colors())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(path))
    return bytes(model.SerializeToString())


def _write(contents: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(contents())


def _flip_one_bit(path: Path) -> None:
    contents = bytearray(colors(20))
    contents[contents.index(np.float32(20).tobytes()) + 3] ^= 1
    path.write_bytes(contents)


def _hard_link(path: Path) -> None:
    """Weights that are somebody else's file under another name."""
    os.link(path.parents[1] / "1" / "model.onnx", path.with_name("weights"))
    path.write_bytes(_external(Path("weights")))


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (_write(lambda: b""), "not an ONNX model"),
    "truncated": (_write(lambda: colors(20)[:-200]), "truncated|its digest|not an ONNX"),
    "garbage": (_write(lambda: np.random.default_rng(0).bytes(5000)), "not an ONNX model"),
    "one flipped bit": (_flip_one_bit, "its digest is"),
    "HTML": (_write(lambda: b"<!DOCTYPE html><html><body>404</body></html>"), "not an ONNX"),
    "LFS pointer": (_write(lambda: LFS_POINTER), "not an ONNX model"),
    "directory": (lambda path: path.mkdir(), "not a regular file"),
    "FIFO": (lambda path: os.mkfifo(path), "not a regular file"),
    "socket": (_socket, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "unknown operator": (_write(graphs.unknown_operator), "Teleport|nowhere"),
    "endless Loop": (_write(graphs.loop_without_end), "not load and warm up within 4 s"),
    "huge constant": (_write(graphs.huge_constant), "can't be served: .*memory"),
    "external data": (lambda p: p.write_bytes(_external(Path("weights"))), "are in other files"),
    "path traversal": (
        lambda p: p.write_bytes(_external(Path("../../../etc/passwd"))),
        "are in other files",
    ),
    "hard link": (_hard_link, "are in other files"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
async def test_a_bad_file_leaves_the_old_version_serving_and_is_reported_by_name(
    tmp_path: Path, kind: str
) -> None:
    make, reason = BAD_FILES[kind]
    scheduler = Scheduler(cores=1, queue_size=10)
    # Only what never ends is to be waited for until then.
    timeout_s = 4.0 if kind == "endless Loop" else 60.0
    watched = Watched(tmp_path / "models" / "all", scheduler, timeout_s)
    path = watched.folder / "colors" / "2" / "model.onnx"
    path.parent.mkdir()
    make(path)
    logs = [log for log in await watched.look(times=4) if log["event"] == "refused"]
    await asyncio.to_thread(scheduler.close)
    assert watched.versions() == {"colors": [1]}
    (log,) = logs  # once, not at every look
    assert log["model"] == "colors/2" and str(path) in log["why"]
    assert re.search(reason, log["why"]), log["why"]


async def test_a_link_to_nowhere_is_named_once(watched: Watched) -> None:
    path = watched.folder / "colors" / "2" / "model.onnx"
    path.parent.mkdir()
    path.symlink_to("/nowhere")  # it may lead somewhere tomorrow
    (entry,) = await watched.look(times=4)
    assert entry["why"].endswith("colors/2/model.onnx: can't be read: a broken link")
    assert watched.versions() == {"colors": [1]}


async def test_odd_folders_do_not_stop_the_watcher(watched: Watched) -> None:
    for version in ("v2", "01", "0", "-1", "1e3", "9" * 30, "٣", " 4", "latest", "\udcff"):
        graphs.put(watched.folder, "colors", version, colors())
    for name in ("..odd", "-x", "a b", "ünïcode"):
        graphs.put(watched.folder, name, 1, colors())
    (watched.folder / "file").write_text("no folder")
    graphs.put(watched.folder, "fine", 7, colors())
    await watched.look()
    assert watched.versions() == {"colors": [1], "fine": [7]}


async def test_calls_under_way_keep_the_version_that_they_have(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    path = graphs.put(folder, "colors", 1, colors(10))
    async with served_by(App(settings(folder, watch_interval_s=0.02))) as served:
        first = (await served.stub.Classify(CLASSIFY)).classifications[0].score
        served_scores = {first}
        replace(path, colors(3))
        while len(served_scores) < 2:
            answers = await asyncio.gather(*(served.stub.Classify(CLASSIFY) for _ in range(8)))
            served_scores |= {answer.classifications[0].score for answer in answers}
        assert len(served_scores) == 2


async def test_at_the_start_a_watched_folder_may_hold_a_bad_file(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    graphs.put(folder, "colors", 1, colors())
    graphs.put(folder, "colors", 2, b"not a model")
    async with served_by(App(settings(folder, watch_interval_s=60))) as served:
        assert (await served.stub.Classify(CLASSIFY)).served_by.version == 1


async def test_health_follows_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    path = graphs.put(folder, "colors", 1, colors())
    async with served_by(App(settings(folder, watch_interval_s=0.02))) as served:
        health = health_pb2_grpc.HealthStub(served.channel)
        overall, model = (
            health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "colors")
        )
        for watching in (overall, model):
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        path.unlink()
        for watching in (overall, model):
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        graphs.put(folder, "colors", 2, colors())
        for watching in (overall, model):
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING


async def test_one_look_without_a_file_removes_nothing(watched: Watched) -> None:
    path = watched.folder / "colors" / "1" / "model.onnx"
    path.rename(watched.folder / "aside")
    await watched.look(times=1)
    (watched.folder / "aside").rename(path)
    await watched.look(times=1)
    path.unlink()
    await watched.look(times=1)
    assert watched.versions() == {"colors": [1]}
    await watched.look(times=1)
    assert watched.versions() == {}


@pytest.mark.parametrize("at", [".", "colors", "colors/1"])
async def test_an_empty_folder_in_the_place_of_another_removes_nothing(
    watched: Watched, at: str
) -> None:
    aside = watched.folder.with_name("aside")
    (watched.folder / at).rename(aside)
    (watched.folder / at).mkdir()
    (log,) = await watched.look(times=4)
    assert (log["event"], log["model"]) == ("not removed", "colors/1")
    assert watched.versions() == {"colors": [1]}
    (watched.folder / at).rmdir()
    aside.rename(watched.folder / at)
    assert await watched.look(times=4) == []  # neither loaded again nor told again


async def test_a_refusal_for_want_of_time_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Scheduler(cores=1, queue_size=10)
    watched = Watched(tmp_path / "models", scheduler, timeout_s=0.001)
    graphs.put(watched.folder, "colors", 2, colors(20))
    logs = await watched.look(times=4)
    assert [log["event"] for log in logs] == ["refused"]
    assert "within 0.001 s" in logs[0]["why"]
    now = time.monotonic()
    monkeypatch.setattr("visavis_server.models.watcher.time.monotonic", lambda: now + 31)
    assert await watched.look(times=1) == []  # refused again, and told before
    assert watched.watcher.refusals == 2
    monkeypatch.setattr(watched.watcher, "_load_timeout_s", 60.0)
    await watched.look(times=1)  # twice as long after the second time
    assert watched.versions() == {"colors": [1]}
    monkeypatch.setattr("visavis_server.models.watcher.time.monotonic", lambda: now + 31 + 61)
    await watched.look(times=1)
    await asyncio.to_thread(scheduler.close)
    assert watched.versions() == {"colors": [1, 2]}


async def test_a_refusal_for_its_content_is_not_tried_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs.put(watched.folder, "colors", 2, b"no model")
    await watched.look(times=2)
    now = time.monotonic()
    monkeypatch.setattr("visavis_server.models.watcher.time.monotonic", lambda: now + 1e6)
    await watched.look(times=2)
    assert watched.watcher.refusals == 1


async def test_only_the_bytes_that_passed_the_trial_are_loaded(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file comes after the trial: no session is made of it, however good it is."""
    made: list[object] = []
    path = graphs.put(watched.folder, "colors", 2, colors(20))
    load = Loader.load

    def late(loader: Loader, file: ModelFile, tried: Future[str]) -> Any:
        tried.exception(60)
        replace(path, colors(30))
        return load(loader, file, tried)

    with monkeypatch.context() as patched:
        patched.setattr(Loader, "load", late)
        patched.setattr("visavis_server.models.loader.Sessions", lambda *given: made.append(given))
        logs = await watched.look(times=2)
    assert [log["why"] for log in logs] == [f"{path}: the file changed while it was being loaded"]
    assert made == []
    await watched.look(times=2)
    assert watched.versions() == {"colors": [1, 2]}


async def test_files_that_go_while_another_is_tried_are_not_tried(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [graphs.put(watched.folder, f"model{i}", 1, b"no model") for i in range(4)]
    tried: list[str] = []
    take = Watcher._take

    async def take_long(watcher: Watcher, file: ModelFile, found: Any) -> str:
        tried.append(file.name)
        for path in paths[1:]:
            path.unlink(missing_ok=True)
        return await take(watcher, file, found)

    monkeypatch.setattr(Watcher, "_take", take_long)
    await watched.look(times=2)
    assert tried == ["model0"]


async def test_a_passed_over_path_is_reported_once_after_two_looks(
    watched: Watched,
) -> None:
    folder = watched.folder / "pets" / "01"
    folder.mkdir(parents=True)
    assert await watched.look(1) == []
    (entry,) = await watched.look(3)
    assert entry["event"] == "passed over"
    assert entry["why"] == f"{folder}: a version has no leading zeros; rename it to 1"
    folder.rmdir()
    folder.parent.rmdir()
    assert await watched.look(2) == []
    folder.mkdir(parents=True)
    assert len(await watched.look(2)) == 1


async def test_a_refused_file_is_published_with_its_reason_until_it_is_removed(
    watched: Watched,
) -> None:
    file = graphs.put(watched.folder, "pets", 1, b"nonsense")
    await watched.look()
    assert watched.published.not_served["pets", 1].startswith("pets/1/model.onnx: ")
    file.unlink()
    file.parent.rmdir()
    file.parent.parent.rmdir()
    await watched.look()
    assert watched.published.not_served == {}
    assert watched.published.names() == ["colors"]
