"""The axes of charts."""

import pytest
from visavis.evaluation.charts import ticks


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 806.0, ["0", "250", "500", "750"]),
        (0.0, 588.0, ["0", "200", "400"]),
        (0.0, 7.9, ["0", "2", "4", "6"]),
        (0.69, 0.86, ["0.70", "0.75", "0.80", "0.85"]),
        (0.18, 0.31, ["0.20", "0.25", "0.30"]),
        (0.985, 1.0, ["0.985", "0.990", "0.995", "1.000"]),
        (0.0, 1.0, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, texts: list[str]) -> None:
    found = ticks(low, high)
    assert [text for _, text in found] == texts
    assert all(low - 1e-9 <= at <= high + 1e-9 and at == pytest.approx(float(t)) for at, t in found)
