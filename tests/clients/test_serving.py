"""Commands that need no second terminal: they serve a folder of models for themselves."""

import socket
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.server import graphs
from tests.surroundings import VISAVIS, Surroundings


@pytest.fixture
def found(tmp_path: Path) -> Surroundings:
    """Return surroundings with a picture, and a folder of models elsewhere."""
    found = Surroundings.under(tmp_path)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(found.elsewhere / "red.png")
    model, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(tmp_path / "repository", "colors", 1, model)
    return found


def _run(found: Surroundings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [VISAVIS, *arguments],
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", ["classify", "compare"])
def test_a_folder_of_models_is_served_for_the_command(
    command: str, found: Surroundings, tmp_path: Path
) -> None:
    done = _run(found, command, "red.png", "--repository", str(tmp_path / "repository"))
    assert done.returncode == 0, done.stderr
    assert "red" in done.stdout


def test_models_here_are_served_if_no_server_answers(found: Surroundings, tmp_path: Path) -> None:
    (tmp_path / "repository").rename(found.elsewhere / "models")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8001)) == 0:
            pytest.skip("a server answers at the default address")
    done = _run(found, "classify", "red.png")
    assert done.returncode == 0, done.stderr
    assert (
        "No server answers at 127.0.0.1:8001: serving the folder models for this command."
        in done.stderr
    )
    named = _run(found, "classify", "red.png", "--server", "127.0.0.1:1")
    assert named.returncode == 3
