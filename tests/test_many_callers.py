"""Many callers at once, of real models on real pictures where they are given."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from visavis import Client

from tests.samples import Samples


def test_64_callers_with_200_pictures_get_what_they_get_alone(
    sample_client: Client, samples: Samples
) -> None:
    pictures = samples.pictures
    assert len(pictures) == 200

    def answer(picture: Path) -> list[tuple[int, float]]:
        found = sample_client.classify(picture, model="resnet18").classifications
        return [(each.class_id, each.score) for each in found]

    alone = {picture: answer(picture) for picture in pictures}
    with ThreadPoolExecutor(64) as threads:
        together = dict(zip(pictures, threads.map(answer, pictures), strict=True))
    for picture in pictures:
        assert [c for c, _ in together[picture]] == [c for c, _ in alone[picture]]
        assert [s for _, s in together[picture]] == pytest.approx(
            [s for _, s in alone[picture]], abs=1e-5
        )
