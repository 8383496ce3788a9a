"""The files of figures that a comparison writes."""

import csv
from types import SimpleNamespace
from typing import Any, cast

import pytest
from visavis.evaluation.outputs import confusion_to_csv


@pytest.mark.parametrize("label", ['=HYPERLINK("http://a","b")', "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_label_is_no_formula_in_a_spreadsheet(label: str) -> None:
    model = SimpleNamespace(card=SimpleNamespace(name="a"), matrix={("cat", label): 2})
    study: Any = SimpleNamespace(tasks=[SimpleNamespace(models=[model])])
    rows = list(csv.reader(confusion_to_csv(cast(Any, study)).splitlines()))
    assert rows[1] == ["a", "cat", f"'{label}", "2"]
