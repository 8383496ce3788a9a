"""`<name>_image`: encoded pictures in, labels and boxes out."""

from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as triton

from .tensors import given, picture, pictures

# softmax of (20, 0, 0)
SURE = 1 / (1 + 2 * np.exp(-20.0))


def test_metadata_says_what_goes_in_and_comes_out(client: triton.InferenceServerClient) -> None:
    for name, outputs in (
        ("colors_image", {"labels": "BYTES", "scores": "FP32", "class_ids": "INT64"}),
        (
            "boxes_image",
            {
                "boxes": "FP32",
                "scores": "FP32",
                "class_ids": "INT64",
                "labels": "BYTES",
                "counts": "INT64",
            },
        ),
    ):
        metadata = client.get_model_metadata(name)
        (image,) = metadata.inputs
        assert (image.name, image.datatype, list(image.shape)) == ("IMAGE", "BYTES", [-1, 1])
        assert {output.name: output.datatype for output in metadata.outputs} == outputs


def test_pictures_of_any_size_are_classified_in_order(client: triton.InferenceServerClient) -> None:
    colors = ("red", "lime", "blue")
    files = [picture(color, 40 + 8 * i, 56) for i, color in enumerate(colors)]
    result = client.infer("colors_image", pictures(*files))
    labels, scores = result.as_numpy("labels"), result.as_numpy("scores")
    assert labels[:, 0].tolist() == [b"red", b"green", b"blue"]
    assert result.as_numpy("class_ids")[:, 0].tolist() == [0, 1, 2]
    assert labels.shape == scores.shape == (3, 3)
    np.testing.assert_allclose(scores[:, 0], SURE, rtol=1e-5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_a_request_says_how_many_labels(client: triton.InferenceServerClient) -> None:
    result = client.infer("colors_image", pictures(picture("red")), parameters={"top_k": 1})
    assert result.as_numpy("labels").tolist() == [[b"red"]]
    assert result.as_numpy("scores").shape == (1, 1)


def test_a_file_may_come_as_uint8(client: triton.InferenceServerClient) -> None:
    file = np.frombuffer(picture("blue"), np.uint8)[None]
    result = client.infer("colors_image", given(file, "IMAGE"))
    assert result.as_numpy("labels")[0, 0] == b"blue"


def test_boxes_are_in_pixels_of_each_picture(client: triton.InferenceServerClient) -> None:
    files = (picture("red"), picture("red", 128, 128))
    result = client.infer("boxes_image", pictures(*files))
    boxes = np.array([[10, 10, 30, 30], [45, 40, 55, 60]], np.float32)
    np.testing.assert_allclose(result.as_numpy("boxes"), [boxes, 2 * boxes], atol=1e-3)
    np.testing.assert_allclose(result.as_numpy("scores"), [[0.9, 0.4]] * 2, rtol=1e-5)
    assert result.as_numpy("class_ids").tolist() == [[0, 1]] * 2
    assert result.as_numpy("labels").tolist() == [[b"cat", b"dog"]] * 2
    assert result.as_numpy("counts").tolist() == [[2]] * 2


@pytest.mark.parametrize(
    ("parameters", "scores"),
    [
        ({"score_threshold": 0.5}, [0.9]),
        ({"iou_threshold": 0.7}, [0.9, 0.8, 0.4]),
        ({"max_detections": 1}, [0.9]),
        ({"score_threshold": 0.95}, []),
        ({"score_threshold": "0.95"}, []),
        ({"iou_threshold": "0.7", "max_detections": "2"}, [0.9, 0.8]),
        ({"iou_threshold": "1.0", "class_agnostic": "True"}, [0.9, 0.8, 0.4]),
    ],
)
def test_a_request_says_what_counts_as_found(
    parameters: dict[str, Any], scores: list[float], client: triton.InferenceServerClient
) -> None:
    result = client.infer("boxes_image", pictures(picture("red")), parameters=parameters)
    np.testing.assert_allclose(result.as_numpy("scores"), [scores], rtol=1e-5)
    assert result.as_numpy("boxes").shape == (1, len(scores), 4)
    assert result.as_numpy("counts").tolist() == [[len(scores)]]


def test_its_statistics_are_the_models(client: triton.InferenceServerClient) -> None:
    before = statistics(client)
    client.infer("colors_image", pictures(picture("red"), picture("blue")))
    after = statistics(client)
    assert {now - was for was, now in zip(before, after, strict=True)} == {2}


def statistics(client: triton.InferenceServerClient) -> list[int]:
    """Return how many inputs the model ran, as it says itself and as its view says."""
    return [
        client.get_inference_statistics(name, "2").model_stats[0].inference_count
        for name in ("colors", "colors_image")
    ]
