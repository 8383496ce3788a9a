"""The small models and pictures, which stand in for published ones, answer as they say."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from visavis import Client
from visavis.results import DetectionAgreement

from tests.conftest import serving
from tests.samples import BUS, CELL, COLORS, ZIDANE, Samples, small
from visavis_server.settings import Settings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    samples = small(tmp_path_factory.mktemp("made"))
    samples.put_smaller(samples.models)
    return samples


@pytest.fixture(scope="module")
def client(made: Samples) -> Iterator[Client]:
    with serving(Settings(models=made.models, grpc="127.0.0.1:0", device="cpu")) as client:
        yield client


def nearest(path: Path) -> str:
    """Return the colour nearest to the mean of the middle square, as resnet50 sees nearly all."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture) / 255
    height, width, _ = pixels.shape
    side = round(min(height, width) * 32 / 40)
    top, left = (height - side) // 2, (width - side) // 2
    mean = pixels[top : top + side, left : left + side].mean(axis=(0, 1))
    return min(COLORS, key=lambda name: math.dist(COLORS[name], mean))


def test_classifiers_name_the_nearest_color(made: Samples, client: Client) -> None:
    for picture in (made.bus, *made.pictures[:20]):
        best = client.classify(picture, model="resnet50").classifications[0]
        assert best.label == nearest(picture)
    assert nearest(made.bus) == made.best


@pytest.mark.parametrize("name", ["bus", "zidane"])
def test_the_detector_finds_every_spot(made: Samples, client: Client, name: str) -> None:
    picture, spots = {"bus": (made.bus, BUS), "zidane": (made.zidane, ZIDANE)}[name]
    found = client.detect(picture, model="yolov5n").detections
    middles = {
        (each.label, round(sum(each.box.xyxy[::2]) / 2), round(sum(each.box.xyxy[1::2]) / 2))
        for each in found
    }
    assert len(middles) == len(spots)
    with Image.open(picture) as opened:
        cell = CELL * max(opened.size) / 640
    for spot in spots:
        assert any(
            label == spot.label and math.dist((x, y), (spot.x, spot.y)) < cell
            for label, x, y in middles
        ), (spot, middles)


def test_models_of_a_task_disagree(made: Samples, client: Client) -> None:
    labels, boxes = client.compare(made.bus, baseline="yolov5n").comparisons
    divergences = [
        answer.agreement.jensen_shannon_divergence
        for answer in labels.answers
        if answer.agreement is not None
    ]
    assert len(divergences) == 2
    assert all(divergences)
    (smaller,) = [answer for answer in boxes.answers if answer.agreement is not None]
    assert isinstance(smaller.agreement, DetectionAgreement)
    assert 0 < smaller.agreement.f1 < 1
    random = {card.name for card in client.list_models() if card.random_weights}
    assert random == {"yolov5n-cls"}
