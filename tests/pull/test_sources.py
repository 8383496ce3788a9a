"""Every kind of source: models arrive whole, and only what changed is fetched again."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.pull.command import Puller
from tests.pull.models import model, put, visible
from tests.pull.servers import Hub, Registry, WebFolder
from tests.pull.stores import BUCKET, S3, Azure, docker_registry, google

_FIRST = {"colors/1/model.onnx": model(), "shades/2/model.onnx": model("shades")}
_NEW = {"colors/2/model.onnx": model(gain=5.0), "shades/2/model.onnx": model("shades", 7.0)}

Put = Callable[[dict[str, bytes]], None]
Kind = Callable[[Path], AbstractContextManager[tuple[str, dict[str, str], Put]]]


@contextmanager
def _gs(folder: Path) -> Iterator[tuple[str, dict[str, str], Put]]:
    with google(folder) as store:

        def add(files: dict[str, bytes]) -> None:
            for path, contents in files.items():
                store.put(path, contents)

        yield f"gs://{BUCKET}", store.variables, add


@contextmanager
def _hf(folder: Path) -> Iterator[tuple[str, dict[str, str], Put]]:
    with Hub({"README.md": b"# Models"}) as hub:
        variables = {"HF_ENDPOINT": f"http://{hub.address}", "HF_HUB_DISABLE_TELEMETRY": "1"}
        yield "hf://team/zoo", variables, hub.files.update


@contextmanager
def _oci(folder: Path) -> Iterator[tuple[str, dict[str, str], Put]]:
    with Registry() as registry:
        all_files: dict[str, bytes] = {}

        def add(files: dict[str, bytes]) -> None:
            all_files.update(files)
            registry.push("newest", all_files)

        yield f"oci://{registry.address}/zoo:newest", {}, add


@contextmanager
def _debians_registry(folder: Path) -> Iterator[tuple[str, dict[str, str], Put]]:
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs Debian's docker-registry")
    with docker_registry(program, folder) as registry:
        all_files: dict[str, bytes] = {}

        def add(files: dict[str, bytes]) -> None:
            all_files.update(files)
            registry.push("newest", all_files)

        yield f"oci://{registry.address}/zoo:newest", {}, add


@contextmanager
def _http(folder: Path) -> Iterator[tuple[str, dict[str, str], Put]]:
    with WebFolder({}) as web:

        def add(files: dict[str, bytes]) -> None:
            web.files.update({f"zoo/{path}": contents for path, contents in files.items()})

        yield f"http://{web.address}/zoo", {}, add


@contextmanager
def _folder(folder: Path) -> Iterator[tuple[str, dict[str, str], Put]]:
    def add(files: dict[str, bytes]) -> None:
        for path, contents in files.items():
            put(folder / "shared", path, contents)

    yield str(folder / "shared"), {}, add


@pytest.mark.parametrize("kind", [_gs, _hf, _oci, _debians_registry, _http, _folder])
def test_models_arrive_and_only_what_changed_is_fetched_again(kind: Kind, tmp_path: Path) -> None:
    with kind(tmp_path / "source") as (url, variables, add):
        _check(url, variables, add, tmp_path)


@pytest.mark.parametrize("scheme", ["s3", "az"])
def test_models_arrive_from_a_folder_of_a_bucket(
    scheme: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store: S3 | Azure = request.getfixturevalue({"s3": "s3", "az": "azure"}[scheme])

    def add(files: dict[str, bytes]) -> None:
        for path, contents in files.items():
            store.put(f"team/zoo/{path}", contents)

    _check(f"{scheme}://{BUCKET}/team/zoo", store.variables, add, tmp_path)


def _check(url: str, variables: dict[str, str], add: Put, tmp_path: Path) -> None:
    out = tmp_path / "models"
    command = Puller.under(tmp_path / "client", **variables)
    add(_FIRST)
    lines = command.ok(url, "--out", out).splitlines()
    assert [line.split(",")[0] for line in lines] == ["colors/1: fetched", "shades/2: fetched"]
    assert all("digest matches" in line for line in lines)
    assert visible(out) == _FIRST
    add(_NEW)
    lines = command.ok(url, "--out", out).splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "colors/1: unchanged",
        "colors/2: fetched",
        "shades/2: replaced",
    ]
    assert visible(out) == {**_FIRST, **_NEW}
    assert not list((out / ".visavis-pull").rglob("*.part"))
    assert command.surroundings.files == []
