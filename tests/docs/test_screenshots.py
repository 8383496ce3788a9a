"""The screenshots are made by a script, from what the product shows."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from docs import screenshots
from tests.surroundings import Surroundings

from .workspace import put_models

_FOLDER = Path(__file__).parents[2] / "docs"
_SCRIPT = (sys.executable, "-m", "docs.screenshots")
_MOST_BYTES = 150_000


def test_the_script_makes_every_screenshot_and_each_is_small() -> None:
    files = {file.name: file.stat().st_size for file in (_FOLDER / "screenshots").iterdir()}
    assert files.keys() == screenshots.SCREENSHOTS.keys()
    assert max(files.values()) < _MOST_BYTES


def test_a_terminal_shows_the_command_and_its_answers(tmp_path: Path) -> None:
    put_models(tmp_path / "models")
    found = Surroundings.under(tmp_path)
    out = tmp_path / "out"
    done = subprocess.run(
        [*_SCRIPT, "compare.svg", "--models", tmp_path / "models", "--out", out],
        cwd=found.elsewhere,
        env=found.environment_of_tests(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    svg = (out / "compare.svg").read_text("utf-8")
    # Each word is an element of its own, with spaces that do not break.
    words = " ".join("".join(ElementTree.fromstring(svg).itertext()).split())
    for expected in ("$ visavis compare photos/coffee.jpg", "resnet18", "resnet50", "yolov5n"):
        assert expected in words
    assert "Models" not in words
    assert "url(http" not in svg


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    command = [*_SCRIPT, "page.png"]
    done = subprocess.run(command, cwd=_FOLDER.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "playground.webp" in done.stderr
