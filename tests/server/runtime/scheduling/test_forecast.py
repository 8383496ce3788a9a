"""Forecasts: figures worked out by hand."""

import pytest

from visavis_server.runtime.plan import Plan
from visavis_server.runtime.scheduling.forecast import ExpectedEnds, MovingAverage


class Engine:
    """An engine that never runs."""

    name, plan = "engine", Plan()

    def allocate(self, *_: object) -> None: ...

    def prepare(self, *_: object) -> None: ...

    def run(self, *_: object) -> list[object]:
        return []

    def finish(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], 0.0),
        ([3.0], 3.0),
        ([1.0, 1.5], 1.1),  # a fifth of the way
        ([1.0, 0.5], 0.9),
        ([1.0, 2.0], 1.2),
        ([1.0, 100.0], 1.2),  # counts as twice the forecast
        ([1.0, 100.0, 1.2], 1.2),
        ([100.0, 30.0], 86.0),
        ([100.0, 1.0], 4.0),  # four times what was seen last, at most
    ],
)
def test_a_forecast_follows_what_was_seen(seconds: list[float], expected: float) -> None:
    average, engine = MovingAverage(), Engine()
    for each in seconds:
        average.add(engine, each)
    assert average(engine) == pytest.approx(expected)


def test_each_engine_has_a_forecast_of_its_own() -> None:
    average, one, other = MovingAverage(), Engine(), Engine()
    average.add(one, 1.0)
    average.add(other, 5.0)
    assert (average(one), average(other), average(Engine())) == (1.0, 5.0, 0.0)


def test_what_remains_is_the_sum_of_all_runs_and_an_overdue_run_adds_nothing() -> None:
    occupied, first, second, overdue = ExpectedEnds(), object(), object(), object()
    assert occupied.remaining_s(0.0) == 0.0
    for run, end in ((first, 12.0), (second, 15.0), (overdue, 3.0)):
        occupied.begin(run, end)
    assert occupied.remaining_s(10.0) == 7.0
    occupied.end(second)
    assert occupied.remaining_s(10.0) == 2.0
    occupied.end(object())
    assert occupied.remaining_s(10.0) == 2.0
