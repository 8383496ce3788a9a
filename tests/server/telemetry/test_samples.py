"""Metrics of several processes become one."""

import json

from visavis_server.telemetry.samples import Family, Samples, combined, counts


def counter(value: float, how: str = "sum") -> Family:
    samples: Samples = {("calls_total", (("code", "OK"),)): value}
    return Family("calls", "counter", "Calls.", how, samples)


def values(families: list[Family]) -> dict[str, dict[str, float]]:
    return {
        family.name: {
            ",".join(f"{key}={text}" for key, text in labels): value
            for (_, labels), value in family.samples.items()
        }
        for family in families
    }


def test_counters_add_up() -> None:
    assert values(combined({1: [counter(3)], 2: [counter(4)]})) == {"calls": {"code=OK": 7}}


def test_what_is_each_workers_own_is_told_apart_by_a_label() -> None:
    total = combined({1: [counter(3, "each")], 2: [counter(4, "each")]})
    assert values(total) == {"calls": {"code=OK,worker=1": 3, "code=OK,worker=2": 4}}


def test_the_largest_counts_where_a_sum_means_nothing() -> None:
    def threads(number: float) -> Family:
        return Family("threads", "gauge", "Of a run.", "max", {("threads", ()): number})

    assert values(combined({1: [threads(2)], 2: [threads(3)]})) == {"threads": {"": 3}}


def test_an_info_stays_1() -> None:
    def build() -> Family:
        return Family("build", "info", "The server.", samples={("build_info", ()): 1.0})

    assert values(combined({1: [build()], 2: [build()]})) == {"build": {"": 1}}


def test_what_workers_had_counted_before_they_ended_stays() -> None:
    ended = counts([counter(3), counter(5, "each")], worker=2)
    ended = counts([counter(10)], worker=1, before=ended)
    assert values(combined({2: [counter(1)]}, ended))["calls"]["code=OK"] == 14


def test_gauges_of_an_ended_worker_are_gone() -> None:
    waiting = Family("waiting", "gauge", "Requests.", samples={("waiting", ()): 9})
    assert counts([waiting], worker=1) == []


def test_a_family_comes_back_from_json() -> None:
    family = counter(2.5, "each")
    assert Family.from_json(json.loads(json.dumps(family.to_json()))) == family
