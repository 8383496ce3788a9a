import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from visavis.commands import demo

from tests.surroundings import Surroundings

from .fakes import FakeServer

Command = Callable[..., int]


@pytest.fixture
def ready(
    visavis: Command, fake: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """The folder of a demo with exported models, a running server and a sample picture."""
    for model in demo.MODELS:
        version = tmp_path / "demo" / "models" / model / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").touch()
    assets = tmp_path / "packages" / "ultralytics" / "assets"
    assets.mkdir(parents=True)
    (assets.parent / "__init__.py").touch()
    (assets / "bus.jpg").write_bytes(b"sample")
    monkeypatch.delitem(sys.modules, "ultralytics", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr(demo, "application_installed", lambda: True)
    monkeypatch.setattr(demo, "_server", lambda models: contextlib.nullcontext(fake.address))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "demo"


def test_the_demo_runs_commands_that_import_nothing_from_the_working_folder(tmp_path: Path) -> None:
    found = Surroundings.under(tmp_path)
    found.shadow_modules()
    command = demo._command("--version")
    done = subprocess.run(command, cwd=found.elsewhere, env=found.environment(), check=False)
    assert done.returncode == 0


def test_demo_prints_commands_with_short_paths_to_a_copy_of_the_sample(
    visavis: Command, fake: FakeServer, ready: Path, capfd: pytest.CaptureFixture[str]
):
    assert visavis("demo") == 0
    assert (ready / "bus.jpg").read_bytes() == b"sample"
    assert fake.requests[-1].image.encoded == b"sample"
    command = f"compare demo/bus.jpg --server {fake.address} --annotate demo/compared.jpg"
    assert f"$ visavis {command}\n" in capfd.readouterr().out


def test_demo_never_overwrites_a_picture_in_its_folder(
    visavis: Command, fake: FakeServer, ready: Path
):
    (ready / "bus.jpg").write_bytes(b"mine")
    assert visavis("demo") == 0
    assert (ready / "bus.jpg").read_bytes() == b"mine"
    assert fake.requests[-1].image.encoded == b"mine"
