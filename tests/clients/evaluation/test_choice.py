"""Which model to take: of accuracy, latency and memory, by hand."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from visavis.cards import Task
from visavis.evaluation.charts import charts
from visavis.evaluation.choice import best_within, dominated_by, sentence
from visavis.evaluation.figures import Cost, Latency, ModelStudy, Pair, TaskStudy
from visavis.evaluation.statistics import Estimate

MIB = 1 << 20


def model(name: str, top1: float | None, p50: float, mib: int | None = None) -> ModelStudy:
    card: Any = SimpleNamespace(name=name)
    accuracy = None if top1 is None else Estimate(top1, top1 - 0.04, top1 + 0.04)
    cost = None if mib is None else Cost(10.0, 5.0, mib * MIB)
    return ModelStudy(card, 100, 0, Latency(p50, p50, p50, {}), top1=accuracy, cost=cost)


def task(*models: ModelStudy, contests: dict[tuple[str, str], Estimate] | None = None) -> TaskStudy:
    return TaskStudy(Task.CLASSIFICATION, models, (), 100, (), contests=contests or {})


SMALL, LARGE, SLOW = model("small", 0.70, 10), model("large", 0.80, 40), model("slow", 0.75, 50)
# Paired: `slow` may be as good as `large`, `small` is surely worse. One is given in reverse.
CONTESTS = {
    ("slow", "large"): Estimate(-0.05, -0.11, 0.01),
    ("large", "small"): Estimate(0.10, 0.02, 0.18),
}


def test_a_model_is_dominated_by_one_that_is_better_in_one_and_worse_in_none() -> None:
    three = task(SMALL, LARGE, SLOW)
    assert [dominated_by(one, three) for one in three.models] == [(), (), ("large",)]
    twins = task(SMALL, model("twin", 0.70, 10))
    assert not dominated_by(SMALL, twins)
    assert not dominated_by(model("unknown", None, 1), three)


def test_a_model_that_takes_less_memory_is_not_dominated() -> None:
    thrifty, greedy = model("thrifty", 0.75, 50, 100), model("greedy", 0.80, 40, 300)
    assert not dominated_by(thrifty, task(thrifty, greedy))
    # Where the memory of one is unknown, it is not held against either.
    assert dominated_by(thrifty, task(thrifty, LARGE)) == ("large",)


def test_without_truth_agreement_with_the_baseline_stands_for_accuracy() -> None:
    first, near, far = model("first", None, 40), model("near", None, 20), model("far", None, 30)
    pairs = tuple(
        Pair(name, "first", Estimate(share, share - 0.05, share + 0.05))
        for name, share in (("near", 0.9), ("far", 0.6))
    )
    all_ = TaskStudy(Task.CLASSIFICATION, (first, near, far), pairs, 0, ())
    assert [dominated_by(one, all_) for one in all_.models] == [(), (), ("near",)]
    (chart,) = charts(all_)
    assert (chart.metric, [point.dominated for point in chart.points]) == (
        "agreement",
        [False, False, True],
    )


def test_the_frontier_steps_through_the_models_that_no_other_beats() -> None:
    by_latency, by_memory = charts(
        task(model("a", 0.7, 10, 300), model("b", 0.8, 40, 100), model("c", 0.75, 50, 200))
    )
    a, b, c = by_latency.points
    assert by_latency.frontier == ((a.x, a.y), (b.x, a.y), (b.x, b.y))
    assert c.y > b.y  # below the frontier: pixels count downwards
    assert by_memory.cost == "memory in MiB"
    assert by_memory.frontier == ((by_memory.points[1].x, by_memory.points[1].y),)


def test_no_name_on_the_chart_covers_another() -> None:
    models = (model(f"resnet{n}", 0.7, p50) for n, p50 in ((18, 38), (34, 40), (50, 41), (101, 9)))
    (chart,) = charts(task(*models))
    first, *_, alone = chart.points
    heights = sorted(point.name_y for point in chart.points[:3])
    assert min(b - a for a, b in pairwise(heights)) >= 14
    assert alone.name_y - alone.y == first.name_y - first.y


@pytest.mark.parametrize(
    ("most_ms", "best", "rivals"),
    [(60, "large", ("slow",)), (45, "large", ()), (10, "small", ()), (9, None, ())],
)
def test_the_best_within_a_latency_names_those_that_may_be_as_good(
    most_ms: float, best: str | None, rivals: tuple[str, ...]
) -> None:
    choice = best_within(task(SMALL, LARGE, SLOW, contests=CONTESTS), most_ms)
    assert (choice and choice.model, choice.rivals if choice else ()) == (best, rivals)


def test_rivals_are_told_by_paired_differences_though_intervals_overlap() -> None:
    near = model("near", 0.77, 20)  # 0.73 to 0.81: it overlaps the best one's 0.76 to 0.84
    surely = {("large", "near"): Estimate(0.03, 0.01, 0.05)}
    choice = best_within(task(near, LARGE, contests=surely), 60)
    assert choice is not None
    assert (choice.model, choice.rivals) == ("large", ())


def test_the_choice_is_said_in_words() -> None:
    three = task(SMALL, LARGE, SLOW, contests=CONTESTS)
    assert sentence(three, 60) == (
        "classification: take large within 60 ms: 0.800 at 40.0 ms; slow may be as good."
    )
    assert sentence(three, 5).endswith("within 5 ms: no model is that fast.")
    assert sentence(task(model("a", None, 1)), 5).endswith("accuracy is unknown without truth.")
