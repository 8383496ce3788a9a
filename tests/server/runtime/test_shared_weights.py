"""Weights that several processes share: only a folder that no one else can write to is used."""

from pathlib import Path

import onnxruntime as ort
import pytest

from visavis_server.runtime.shared_weights import shared_model

from .. import graphs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of all models, which only this user may enter."""
    folder = tmp_path / "visavis-abc"
    folder.mkdir(mode=0o700)
    return folder


def test_the_first_process_writes_the_graph_and_the_second_finds_it(folder: Path) -> None:
    first = shared_model(graphs.classifier(), ort.SessionOptions, folder / "colors")
    assert first is not None and first.is_relative_to(folder)
    assert shared_model(b"not read", ort.SessionOptions, folder / "colors") == first
    assert [each.name for each in folder.iterdir()] == ["colors"]


@pytest.mark.parametrize("who", ["another user", "everyone", "a link", "nothing"])
def test_a_graph_that_others_could_have_written_is_not_loaded(
    folder: Path, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_model(graphs.classifier(), ort.SessionOptions, folder / "colors")
    if who == "another user":
        uid = folder.stat().st_uid + 1
        monkeypatch.setattr("os.geteuid", lambda: uid)
    elif who == "everyone":
        folder.chmod(0o777)
    else:
        folder.rename(folder.with_name("elsewhere"))
        if who == "a link":
            folder.symlink_to(folder.with_name("elsewhere"))
    assert shared_model(graphs.classifier(), ort.SessionOptions, folder / "colors") is None
