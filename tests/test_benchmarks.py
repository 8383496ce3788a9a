"""The parts of `make bench` that need no measuring."""

from visavis.bench.measurement import Latency

from .benchmark.__main__ import _MEASUREMENTS
from .benchmark.document import Line, document
from .benchmark.growth import Growth
from .benchmark.targets import at_least, at_most


def test_every_row_is_in_the_table_with_its_verdict():
    lines = [
        Line("Classify", "at least 0.98", "**0.99**", True),
        Line("Detect", "at least 1.05", "**1.01**", False),
        Line("int8", "at least 2.85", "not run: why", None),
    ]
    text = document(lines, None, "make bench", "3 rounds.")
    assert "1 of 2 reached. 3 rounds." in text
    assert "| Classify | at least 0.98 | **0.99** | yes |" in text
    assert "| Detect | at least 1.05 | **1.01** | **no** |" in text
    assert "| int8 | at least 2.85 | not run: why | — |" in text
    assert "## Growth" not in text


def test_growth_has_its_tables():
    latency = Latency(10.0, 20.0, 30.0, 40.0)
    growth = Growth(
        [(8, 40.0, latency, 0), (256, 41.0, None, 7)], 24.0, [(0.0, 24.1, latency, 444.4)]
    )
    text = document([], growth, "make bench", "")
    assert "| 8 | 40.0 | 10 | 30 | 0 |" in text
    assert "| 256 | 41.0 | — | — | 7 |" in text
    assert "At 24 calls per second" in text
    assert "| 0 | 24.1 | 10 | 30 | 444 |" in text


def test_targets_say_whether_a_figure_reaches_them():
    assert at_least("row", 0.98).reached(0.98)
    assert not at_least("row", 0.98).reached(0.979)
    assert at_most("row", 1.35).reached(1.35)
    assert not at_most("row", 1.35).reached(1.36)


def test_names_and_rows_are_told_apart():
    names = [measurement.name for measurement in _MEASUREMENTS]
    rows = [target.row for measurement in _MEASUREMENTS for target in measurement.targets]
    assert len(set(names)) == len(names)
    assert len(set(rows)) == len(rows)
