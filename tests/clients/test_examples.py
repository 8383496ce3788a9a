"""The SDK's examples and the README's blocks: their types, and the programs' output."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.surroundings import Surroundings

from .fakes import FakeServer

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "clients" / "python" / "examples"
READMES = (CHECKOUT / "clients" / "README.md", CHECKOUT / "clients" / "python" / "README.md")


def test_the_types_of_all_examples_are_right(tmp_path: Path):
    blocks = [
        block
        for readme in READMES
        for block in re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    ]
    for number, block in enumerate(blocks):
        (tmp_path / f"block_{number}.py").write_text(block)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", EXAMPLES, tmp_path],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    assert f"no issues found in {len(blocks) + len(list(EXAMPLES.glob('*.py')))}" in checked.stdout


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (810, 1080)).save(tmp_path / "bus.jpg")
    return tmp_path / "bus.jpg"


def run(example: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    with Surroundings.temporary() as found:
        return subprocess.run(
            [sys.executable, EXAMPLES / f"{example}.py", *arguments],
            cwd=found.elsewhere,
            env=found.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def test_detect_prints_boxes(fake: FakeServer, picture: Path):
    done = run("detect", fake.address, picture)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[2] == "bus 0.67 at 12, 232, 804, 756"
    assert fake.metadata["x-request-id"] == "example"


def test_batch_writes_coco_results_and_names_what_failed(
    fake: FakeServer, picture: Path, tmp_path: Path
):
    (tmp_path / "empty.jpg").touch()
    done = run("batch", fake.address, tmp_path, tmp_path / "results.json")
    assert done.returncode == 0, done.stderr
    entries = json.loads((tmp_path / "results.json").read_text())
    assert [entry["image_id"] for entry in entries] == [0] * 5
    assert "empty.jpg: image is empty" in done.stderr
    assert "2/2" in done.stderr


def test_asynchronous_prints_a_table_per_picture(fake: FakeServer, picture: Path):
    done = run("asynchronous", fake.address, picture, picture)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(str(picture)) == 2
    assert re.search(r"yolov5s +4 +person", done.stdout)


def test_supervision_draws_the_boxes(fake: FakeServer, picture: Path, tmp_path: Path):
    done = run("supervision_boxes", fake.address, picture, tmp_path / "drawn.png")
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (810, 1080)
        assert len(drawn.getcolors(1 << 24) or ()) > 10
