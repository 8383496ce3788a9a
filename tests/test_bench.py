"""`visavis bench` with a server of its own and the in-process limit, on tiny models."""

import json
from pathlib import Path

import pytest
from visavis.commands import main

from .server import graphs, pictures

BRIEF = ("--callers", "2", "--seconds", "0.2", "--warm-up", "0", "--rounds", "2")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    classifier = graphs.export(graphs.classifier(), graphs.classifier_document())[0]
    graphs.put(folder, "colors", 1, classifier)
    detector = graphs.export(graphs.constant(graphs.ROWS), graphs.detector_document())[0]
    graphs.put(folder, "boxes", 1, detector)
    return folder


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    path = tmp_path / "noise.png"
    path.write_bytes(pictures.encoded(pictures.noise(60, 90, 3)))
    return path


@pytest.mark.parametrize("method", ["classify", "detect", "compare"])
def test_limit_alternates_with_the_server_and_gives_the_same_answers(
    models: Path, picture: Path, method: str, tmp_path: Path, capsys: Captured
):
    file = tmp_path / "bench.json"
    arguments = ("--models", models, "--method", method, *BRIEF)
    assert (
        main([*map(str, ("bench", picture, *arguments, "--limit", "--check", "--json", file))]) == 0
    )
    out = capsys.readouterr().out
    assert "all equal the first answers" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    (load,) = json.loads(file.read_text())["loads"]
    assert load["of_limit"] > 0
    for round_ in load["rounds"]:
        assert round_["of_limit"] == pytest.approx(round_["per_s"] / round_["limit_per_s"])
        assert round_["limit_cpu_ms"] > 0
        assert round_["server_cpu_ms"] > 0
        assert round_["server_rss_mib"] > 10


def test_limit_with_different_answers_is_an_error(
    models: Path, picture: Path, tmp_path: Path, capsys: Captured
):
    graph = tmp_path / "fewer.onnx"
    graph.write_bytes(graphs.constant(graphs.ROWS[:, 1:]))
    arguments = ("--method", "detect", "--limit", "--limit-graph", f"boxes={graph}", *BRIEF)
    assert main([*map(str, ("bench", picture, "--models", models, *arguments))]) == 5
    assert (
        "the limit's answers differ from the server's: noise.png: boxes: "
        in capsys.readouterr().err
    )


def test_failed_server_start_reports_the_reason(picture: Path, tmp_path: Path, capsys: Captured):
    assert main(["bench", str(picture), "--models", str(tmp_path / "none"), *BRIEF]) == 5
    error = capsys.readouterr().err
    assert "the server did not become ready" in error
    assert "is not a folder" in error
