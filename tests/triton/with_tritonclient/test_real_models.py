"""Models with real weights: what ultralytics and the image view find is what Detect finds."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as triton

from .tensors import given, picture, pictures

# What ultralytics and torch warn of is their own matter.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def bus() -> Path:
    return Path(os.environ["PICTURE"])


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    """Return the detections of our Detect, highest score first."""
    found: list[dict[str, Any]] = json.loads(Path(os.environ["EXPECTED"]).read_text())
    assert len(found) == 5
    return found


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_ultralytics_finds_what_detect_finds(
    scheme: str, address: str, bus: Path, expected: list[dict[str, Any]]
) -> None:
    from ultralytics import YOLO

    where = {"grpc": address, "http": os.environ["HTTP_ADDRESS"]}[scheme]
    model = YOLO(f"{scheme}://{where}/yolov5n", task="detect")
    (result,) = model.predict(str(bus), conf=0.25, iou=0.45, device="cpu", verbose=False)
    boxes = result.boxes
    labels = [result.names[int(class_id)] for class_id in boxes.cls]
    assert labels == [detection["label"] for detection in expected]
    scores = [detection["score"] for detection in expected]
    np.testing.assert_allclose(boxes.conf.numpy(), scores, rtol=0, atol=1e-3)
    corners = [detection["box"] for detection in expected]
    np.testing.assert_allclose(boxes.xyxy.numpy(), corners, rtol=0, atol=1)


def test_the_image_view_finds_what_detect_finds(
    client: triton.InferenceServerClient, bus: Path, expected: list[dict[str, Any]]
) -> None:
    files = pictures(picture("black"), bus.read_bytes())
    result = client.infer("yolov5n_image", files)
    assert result.as_numpy("counts").tolist() == [[0], [len(expected)]]
    for output, key, atol in (("boxes", "box", 0.01), ("scores", "score", 1e-5)):
        values = [detection[key] for detection in expected]
        np.testing.assert_allclose(result.as_numpy(output)[1], values, rtol=0, atol=atol)
    assert result.as_numpy("class_ids")[1].tolist() == [found["class_id"] for found in expected]
    assert result.as_numpy("labels")[1].tolist() == [found["label"].encode() for found in expected]
    # Nothing was found in the first: its rows are padding.
    assert not result.as_numpy("boxes")[0].any()
    assert not result.as_numpy("scores")[0].any()
    assert set(result.as_numpy("class_ids")[0].tolist()) == {-1}
    assert set(result.as_numpy("labels")[0].tolist()) == {b""}


def test_a_batch_as_large_as_the_configuration_allows_is_answered(
    client: triton.InferenceServerClient,
) -> None:
    config = client.get_model_config("yolov5n").config
    (image,), (output,) = config.input, config.output
    inputs = np.zeros((config.max_batch_size, *image.dims), np.float32)
    answer = client.infer("yolov5n", given(inputs, image.name)).as_numpy(output.name)
    assert answer.shape == (config.max_batch_size, *output.dims)
