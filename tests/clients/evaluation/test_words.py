"""A study in sentences."""

import pytest
from visavis.evaluation.words import counted_pictures


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 pictures"), (1, "1 picture"), (2, "2 pictures")]
)
def test_one_picture_is_singular(count: int, text: str) -> None:
    assert counted_pictures(count) == text
