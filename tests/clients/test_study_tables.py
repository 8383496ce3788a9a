"""The tables that `visavis compare FOLDER` prints."""

from types import SimpleNamespace
from typing import Any

import pytest
from visavis.cards import Task
from visavis.commands.study_tables import show
from visavis.evaluation.figures import Latency, ModelStudy, Pair, Study, TaskStudy
from visavis.evaluation.statistics import Changes, Estimate

Captured = pytest.CaptureFixture[str]


def model(name: str, top1: float, p50: float, failures: int = 0) -> ModelStudy:
    card: Any = SimpleNamespace(
        name=name,
        version=2,
        precision="fp32",
        execution_provider="CPUExecutionProvider",
        random_weights=False,
    )
    accuracy = Estimate(top1, top1 - 0.07, top1 + 0.07)
    latency = Latency(p50, p50 + 1, p50 + 2, {})
    return ModelStudy(card, 200, failures, latency, top1=accuracy)


def pair(name: str, difference: float) -> Pair:
    return Pair(
        name,
        "resnet50",
        Estimate(0.75, 0.7, 0.8),
        "top1",
        Estimate(difference, difference - 0.05, difference + 0.05),
        Changes(4, 19),
    )


SMALL = model("resnet18", 0.69, 23.6)
LARGE = model("resnet50", 0.76, 54.1)
SLOW = model("resnet152", 0.70, 160.2)
STUDY = Study(
    200,
    {},
    (
        TaskStudy(
            Task.CLASSIFICATION,
            (SMALL, LARGE, SLOW),
            (pair("resnet18", -0.07), pair("resnet152", -0.06)),
            200,
            (),
        ),
    ),
)


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of each row, without the column of labels, from text wide enough."""
    lines = [line.split("  ") for line in text.splitlines()]
    cells = ([cell.strip() for cell in line if cell.strip()] for line in lines)
    return {line[0]: line[1:] for line in cells if line}


def test_a_column_per_model_shows_its_figures_the_baselines_first(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    show(STUDY, [], None)
    said = capsys.readouterr().out
    assert "Classification, 200 pictures (200 with truth), compared with resnet50" in said
    shown = rows(said)
    assert shown["resnet50"] == ["resnet18", "resnet152"]
    assert shown["v2 · fp32 · CPU"] == ["v2 · fp32 · CPU"] * 2
    assert shown["top-1"] == ["0.760 (0.69-0.83)", "0.690 (0.62-0.76)", "0.700 (0.63-0.77)"]
    assert shown["p50 ms"] == ["54.1", "23.6", "160.2"]
    assert shown["dominated by"] == ["—", "—", "resnet50"]
    assert shown["difference"] == ["—", "-7.0 (-12.0 to -2.0)", "-6.0 (-11.0 to -1.0)"]
    assert shown["fixed"] == ["—", "4", "4"]
    assert shown["verdict"] == ["—", "worse", "worse"]
    assert "failed" not in shown


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_width_breaks_a_word(
    width: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    show(STUDY, [], None)
    _, _, table = capsys.readouterr().out.partition("\nClassification")
    assert max(map(len, table.splitlines())) <= width
    words = table.split()
    assert words.count("resnet152") == 1
    assert words.count("dominated") == words.count("verdict") >= 1
    assert words.count("(0.62-0.76)") == words.count("(0.63-0.77)") == 1


def test_a_model_alone_is_compared_with_nothing(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    alone = model("resnet50", 0.76, 54.1, failures=3)
    show(Study(200, {}, (TaskStudy(Task.CLASSIFICATION, (alone,), (), 200, ()),)), [], None)
    shown = rows(capsys.readouterr().out)
    assert shown["failed"] == ["3"]
    assert shown["top-1"] == ["0.760 (0.69-0.83)"]
    assert not {"agreement", "verdict", "baseline"} & shown.keys()
