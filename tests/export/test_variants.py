"""How much accuracy a variant may lose."""

import pytest

from export.errors import AccuracyFailed
from export.variants import Limits, hold
from server.card import Accuracy


def test_a_lower_accuracy_fails_only_beyond_what_chance_explains() -> None:
    measured = Accuracy(
        metric="mAP50-95",
        value=0.30,
        original=0.32,
        error=0.005,
        pictures=100,
        source="100 of 200 pictures",
        held_out=True,
    )
    hold("boxes", measured, Limits(map_drop=1.6))
    with pytest.raises(AccuracyFailed, match=r"boxes loses 2\.00 ± 0\.50 points of mAP50-95, 1\.4"):
        hold("boxes", measured, Limits(map_drop=1.4))
