"""Limits: a model fails where that is certain, and nothing is said where it is not."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from visavis.cards import Task
from visavis.errors import InvalidData, InvalidSettings
from visavis.evaluation import gate
from visavis.evaluation.figures import ModelStudy, Pair, Study, TaskStudy
from visavis.evaluation.gate import Outcome
from visavis.evaluation.statistics import Estimate

from tests import irregular_files


def study(failures: int = 0, **figures: Estimate) -> Study:
    card: Any = SimpleNamespace(name="a")
    model = ModelStudy(card, 100 - failures, failures, None, **figures)
    pairs = (Pair("b", "a", Estimate(0.95, 0.90, 0.98)),)
    return Study(100, {}, (TaskStudy(Task.CLASSIFICATION, (model,), pairs, 100, ()),))


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.76, 0.84, Outcome.PASSED),
        (0.75, 0.84, Outcome.PASSED),
        (0.70, 0.80, Outcome.CANNOT_TELL),
        (0.60, 0.74, Outcome.FAILED),
    ],
)
def test_a_limit_is_broken_only_where_the_interval_excludes_it(
    low: float, high: float, outcome: Outcome
) -> None:
    checks = list(
        gate.fail_under(study(top1=Estimate((low + high) / 2, low, high)), {"top1": 0.75})
    )
    assert [check.outcome for check in checks] == [outcome]
    assert "the limit is 0.75" in checks[0].why


def test_the_worst_check_decides() -> None:
    checks = list(
        gate.fail_under(study(top1=Estimate(0.5, 0.4, 0.6)), {"agreement": 0.8, "top1": 0.75})
    )
    assert [check.outcome for check in checks] == [Outcome.PASSED, Outcome.FAILED]
    assert gate.outcome(checks) is Outcome.FAILED
    assert gate.outcome(checks[:1]) is gate.outcome([]) is Outcome.PASSED


def test_a_limit_is_not_kept_where_pictures_are_missing() -> None:
    """A model may fail on the pictures that it would get wrong."""
    limits = {"top1": 0.75, "agreement": 0.8}
    kept = Estimate(0.8, 0.76, 0.84)
    checks = list(gate.fail_under(study(1, top1=kept), limits))
    assert [check.outcome for check in checks] == [Outcome.CANNOT_TELL] * 2
    assert checks[0].why.endswith("; pictures not answered: 1")
    broken = Estimate(0.6, 0.5, 0.7)
    (check,) = gate.fail_under(study(1, top1=broken), {"top1": 0.75})
    assert check.outcome is Outcome.FAILED


def test_a_model_that_answered_nothing_is_named() -> None:
    silent = gate.unanswered(study(100))
    assert silent is not None and silent.card.name == "a"
    assert gate.unanswered(study(99)) is None
    assert gate.unanswered(study()) is None


def test_a_limit_on_what_was_not_measured_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="map: nothing was measured; it needs the truth"):
        list(gate.fail_under(study(), {"map": 0.3}))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("top1", "NAME=NUMBER"),
        ("top1=high", "NAME=NUMBER"),
        ("f1=0.5", "NAME is one of"),
        ("top1=75", "from 0 to 1"),
        ("top1=nan", "from 0 to 1"),
    ],
)
def test_a_limit_that_is_none_is_refused(given: str, why: str) -> None:
    with pytest.raises(InvalidSettings, match=f"--fail-under {given}: .*{why}"):
        gate.limits([given], "--fail-under")


def test_limits_are_separated_by_commas_or_blanks() -> None:
    assert gate.limits(["agreement=0.9,top1=0.7", "map=0.3 map50=0.5"], "--fail-under") == {
        "agreement": 0.9,
        "top1": 0.7,
        "map": 0.3,
        "map50": 0.5,
    }


@pytest.mark.parametrize(
    ("now", "outcome"),
    [(0.79, Outcome.PASSED), (0.50, Outcome.FAILED), (0.745, Outcome.CANNOT_TELL)],
)
def test_a_drop_since_an_earlier_run_is_held_to_its_limit(
    tmp_path: Path, now: float, outcome: Outcome
) -> None:
    previous = tmp_path / "previous.json"
    before = {"value": 0.8, "low": 0.77, "high": 0.83}
    previous.write_text(json.dumps({"models": [{"model": "a", "top1": before}], "pairs": []}))
    current = study(top1=Estimate(now, now - 0.03, now + 0.03))
    earlier = gate.read_previous(previous)
    (check,) = gate.max_drop(current, {"top1": 0.06}, earlier)
    assert check.outcome is outcome
    with pytest.raises(InvalidSettings, match="has it for none of these models"):
        list(gate.max_drop(current, {"map": 0.1}, earlier))


def test_an_earlier_run_in_which_two_models_share_no_answer_has_its_other_figures(
    tmp_path: Path,
) -> None:
    previous = tmp_path / "previous.json"
    model = {"model": "a", "top1": {"value": 0.8, "low": 0.7, "high": 0.9}}
    pair = {"model": "b", "agreement": None, "agreement_low": 0.0, "agreement_high": 1.0}
    previous.write_text(json.dumps({"models": [model], "pairs": [pair]}))
    assert gate.read_previous(previous) == {("a", "top1"): Estimate(0.8, 0.7, 0.9)}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"models": [{"top1": {"value": 1}}], "pairs": []}',
        '{"models": 1}',
        "[" * 100_000,
        '{"models": [{"model": "a", "top1": {"value": 1e400, "low": 0, "high": 1}}], "pairs": 1}',
        '{"models": [{"model": "a", "top1": {"value": %s}}], "pairs": []}' % ("9" * 400),
        '{"models": [{"model": ["a"], "top1": {"value": 1, "low": 0, "high": 1}}], "pairs": []}',
    ],
)
def test_an_earlier_run_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    previous = tmp_path / "previous.json"
    previous.write_text(text)
    with pytest.raises(InvalidData, match=r"previous\.json is not (the )?JSON"):
        gate.read_previous(previous)


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_an_earlier_run_is_a_regular_file_of_limited_size(tmp_path: Path, kind: str) -> None:
    previous = tmp_path / "previous.json"
    irregular_files.put(previous, kind)
    with pytest.raises(InvalidData, match=r"give a regular file|is larger than 67108864 bytes"):
        gate.read_previous(previous)
