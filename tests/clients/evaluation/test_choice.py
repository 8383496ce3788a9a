"""Which model to take: of accuracy and latency, by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
from visavis.cards import Task
from visavis.evaluation.choice import best_within, dominated, sentence
from visavis.evaluation.statistics import Estimate
from visavis.evaluation.study import Latency, ModelStudy, TaskStudy


def model(name: str, top1: float | None, p50: float) -> ModelStudy:
    card: Any = SimpleNamespace(name=name)
    accuracy = None if top1 is None else Estimate(top1, top1 - 0.04, top1 + 0.04)
    return ModelStudy(card, 100, 0, Latency(p50, p50, p50, {}), top1=accuracy)


def task(*models: ModelStudy) -> TaskStudy:
    return TaskStudy(Task.CLASSIFICATION, models, (), 100, ())


SMALL, LARGE, SLOW = model("small", 0.70, 10), model("large", 0.80, 40), model("slow", 0.75, 50)


def test_a_model_is_dominated_by_one_that_is_better_in_one_and_worse_in_none() -> None:
    three = task(SMALL, LARGE, SLOW)
    assert [dominated(one, three) for one in three.models] == [False, False, True]
    twins = task(SMALL, model("twin", 0.70, 10))
    assert not dominated(SMALL, twins)
    assert not dominated(model("unknown", None, 1), three)


@pytest.mark.parametrize(
    ("most_ms", "best", "rivals"),
    [(60, "large", ("slow",)), (45, "large", ()), (10, "small", ()), (9, None, ())],
)
def test_the_best_within_a_latency_names_those_that_may_be_as_good(
    most_ms: float, best: str | None, rivals: tuple[str, ...]
) -> None:
    choice = best_within(task(SMALL, LARGE, SLOW), most_ms)
    assert (choice and choice.model, choice.rivals if choice else ()) == (best, rivals)


def test_the_choice_is_said_in_words() -> None:
    three = task(SMALL, LARGE, SLOW)
    assert sentence(three, 60) == (
        "classification: take large within 60 ms: 0.800 at 40.0 ms; slow may be as good."
    )
    assert sentence(three, 5).endswith("within 5 ms: no model is that fast.")
    assert sentence(task(model("a", None, 1)), 5).endswith("accuracy is unknown without truth.")
