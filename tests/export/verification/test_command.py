"""`visavis verify`: what a person reads, the files it writes, and its exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from visavis.commands import main

from visavis_export.verification.mistakes import MISTAKES

from . import graphs
from .conftest import PICTURES, Exported

pytestmark = pytest.mark.filterwarnings("ignore")
DOCUMENT = Path(__file__).parents[3] / "docs" / "verify.md"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "wide.jpg"
    path.write_bytes(PICTURES["synthetic wide"])
    return path


def words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_file_that_is_the_same_exits_with_0(
    exported: Exported, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "verified.json"
    arguments = ["verify", str(exported.file), "--against", str(exported.checkpoint)]
    assert main([*arguments, "--images", str(picture), "--json", str(target)]) == 0
    assert "best.pt, a YOLOv5nu: same" in words(capsys)
    written = json.loads(target.read_text())
    assert (written["verdict"], written["begins"], written["findings"]) == ("same", None, [])
    assert written["pictures"][0]["stages"]["graph"]["same"]


def test_a_file_that_differs_exits_with_1_and_says_where_it_begins(
    exported: Exported, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = exported.changed(tmp_path / "changed.onnx", graphs.swaps)
    arguments = ["verify", str(changed), "--against", str(exported.checkpoint)]
    drawn, target = tmp_path / "drawn", tmp_path / "verified.json"
    files = ["--annotate", str(drawn), "--json", str(target)]
    assert main([*arguments, "--images", str(picture), *files]) == 1
    printed = words(capsys)
    assert "differs The difference begins in the graph." in printed
    assert "graph: the graph swaps red and blue (it expects BGR)" in printed
    with PillowImage.open(drawn / "wide.jpg") as sheet:
        assert sheet.width > 900  # two panels
    written = json.loads(target.read_text())
    assert (written["verdict"], written["begins"]) == ("differs", "graph")
    assert written["findings"][0]["mistake"] == "graph swaps"


def test_what_cannot_be_compared_exits_with_2(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["verify", str(exported.file), "--against"]
    assert main([*arguments, str(tmp_path / "none.pt")]) == 2
    assert "does not exist; give the .pt" in capsys.readouterr().err
    tensor = tmp_path / "tensor.npy"
    np.save(tensor, np.zeros((1, 3, 8, 8)))
    assert main([*arguments, str(exported.checkpoint), "--input", str(tensor)]) == 2
    assert "about one picture, and --images gives 13" in capsys.readouterr().err


def test_a_pickled_input_is_refused_and_not_run(
    exported: Exported, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensor = tmp_path / "tensor.npy"
    np.save(tensor, np.array([{"a": 1}], object), allow_pickle=True)
    arguments = ["verify", str(exported.file), "--against", str(exported.checkpoint)]
    assert main([*arguments, "--images", str(picture), "--input", str(tensor)]) == 2
    assert "is no .npy file of numbers" in capsys.readouterr().err


def test_the_document_has_every_mistake_in_the_words_that_are_printed() -> None:
    text = " ".join(DOCUMENT.read_text("utf-8").split())
    for name, (_, says, _) in MISTAKES.items():
        if says != "{why}":
            # Up to the first figure that differs from case to case.
            assert says.split("{")[0].strip(" ,;(") in text, name
