"""Every RPC over a real channel."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from visavis.v1 import vision_pb2 as pb

from visavis_server.app import App

from ... import graphs, pictures
from ...pictures import BLACK, BLUE, GREEN, RED, noise
from ...serving import Served, image, raw, served_by, settings

CAT = (0, "cat", (10, 10, 30, 30), 0.9)
OVERLAPPED_CAT = (0, "cat", (15, 10, 35, 30), 0.8)
DOG = (1, "dog", (45, 40, 55, 60), 0.4)


def found(response: pb.DetectResponse) -> list[tuple[int, str, tuple[float, ...], float]]:
    return [
        (
            d.class_id,
            d.label,
            tuple(round(v, 3) for v in (d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max)),
            round(d.score, 3),
        )
        for d in response.detections
    ]


def shown(annotated: pb.AnnotatedImage) -> Image.Image:
    picture = Image.open(io.BytesIO(annotated.encoded))
    assert (picture.format, annotated.media_type) == ("JPEG", "image/jpeg")
    return picture


def detect(**fields: object) -> pb.DetectRequest:
    return pb.DetectRequest(**{"image": image(), "model": "boxes", **fields})


@pytest.mark.parametrize(("color", "label"), [(RED, "red"), (GREEN, "green"), (BLUE, "blue")])
async def test_classify_names_what_the_image_shows(
    served: Served, color: tuple[int, int, int], label: str
) -> None:
    answer = await served.stub.Classify(pb.ClassifyRequest(image=image(color), model="colors"))
    scores = [c.score for c in answer.classifications]
    # Version 2 multiplies by 20: softmax of (20, 0, 0) in some order.
    assert scores == pytest.approx([1 / (1 + 2 * np.exp(-20)), *[np.exp(-20)] * 2], rel=1e-3)
    assert answer.classifications[0].label == label
    assert graphs.COLORS[answer.classifications[0].class_id] == label


async def test_an_answer_names_its_model_and_its_timings(served: Served) -> None:
    picture = image(width=31, height=17)
    answer = await served.stub.Classify(pb.ClassifyRequest(image=picture, model="colors"))
    assert answer.served_by == pb.ServedBy(
        model="colors", version=2, precision="fp32", execution_provider="CPUExecutionProvider"
    )
    assert (answer.image_size.width, answer.image_size.height) == (31, 17)
    times = answer.timings
    assert min(times.decode_ms, times.preprocess_ms, times.inference_ms) > 0
    stages = times.decode_ms + times.preprocess_ms + times.inference_ms + times.postprocess_ms
    assert stages <= times.total_ms
    assert not answer.HasField("annotated_image")


async def test_an_older_version_answers_on_request(served: Served) -> None:
    request = pb.ClassifyRequest(image=image(), model="colors", version=1)
    answer = await served.stub.Classify(request)
    assert answer.served_by.version == 1
    assert answer.classifications[0].score == pytest.approx(1 / (1 + 2 * np.exp(-10)))


async def test_random_weights_are_marked_in_answers_and_cards(served: Served) -> None:
    answer = await served.stub.Classify(pb.ClassifyRequest(image=image(), model="guess"))
    assert answer.served_by.random_weights
    cards = (await served.stub.ListModels(pb.ListModelsRequest())).models
    assert [card.name for card in cards if card.random_weights] == ["guess"]


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (50, 3), (None, 3)])
async def test_top_k_limits_the_labels(served: Served, top_k: int | None, count: int) -> None:
    request = pb.ClassifyRequest(image=image(), model="colors", top_k=top_k)
    assert len((await served.stub.Classify(request)).classifications) == count


async def test_detect_finds_boxes_in_pixels_of_the_original(served: Served) -> None:
    answer = await served.stub.Detect(detect())
    assert found(answer) == [CAT, DOG]
    twice_as_wide = await served.stub.Detect(detect(image=image(width=128, height=64)))
    assert found(twice_as_wide)[0] == (0, "cat", (20, 0, 60, 28), 0.9)
    assert answer.served_by.model == "boxes"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"iou_threshold": 0.7}, [CAT, OVERLAPPED_CAT, DOG]),
        ({"iou_threshold": 0.0}, [CAT, DOG]),
        ({"score_threshold": 0.5}, [CAT]),
        ({"score_threshold": 1.0}, []),
        ({"max_detections": 1}, [CAT]),
        ({"labels": ["dog"]}, [DOG]),
    ],
)
async def test_detect_applies_the_options(
    served: Served, fields: dict[str, object], expected: list[object]
) -> None:
    assert found(await served.stub.Detect(detect(**fields))) == expected


async def test_exif_orientation_is_applied_before_detection(served: Served) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = pictures.encoded(Image.new("RGB", (128, 64)), "JPEG", exif=exif)
    answer = await served.stub.Detect(detect(image=pb.Image(encoded=data)))
    assert (answer.image_size.width, answer.image_size.height) == (64, 128)
    assert found(answer)[0] == (0, "cat", (0, 20, 28, 60), 0.9)


@pytest.mark.parametrize(
    ("pixel_format", "data", "label"),
    [
        (pb.PIXEL_FORMAT_RGB, bytes(RED) * 16, "red"),
        (pb.PIXEL_FORMAT_BGR, bytes(RED) * 16, "blue"),
        # BT.601 limited range: pure green is (145, 54, 34).
        (pb.PIXEL_FORMAT_NV12, bytes([145] * 16 + [54, 34] * 4), "green"),
    ],
    ids=["RGB", "BGR", "NV12"],
)
async def test_raw_pixels_are_read_in_their_format(
    served: Served, pixel_format: int, data: bytes, label: str
) -> None:
    request = pb.ClassifyRequest(image=raw(pixel_format, 4, 4, data), model="colors")
    assert (await served.stub.Classify(request)).classifications[0].label == label


async def test_raw_grey_favours_no_colour(served: Served) -> None:
    picture = raw(pb.PIXEL_FORMAT_GRAY, 4, 4, bytes([200] * 16))
    answer = await served.stub.Classify(pb.ClassifyRequest(image=picture, model="colors"))
    assert [c.score for c in answer.classifications] == pytest.approx([1 / 3] * 3, rel=1e-5)


async def test_the_annotated_picture_shows_the_box(served: Served) -> None:
    answer = await served.stub.Detect(detect(image=image(BLACK), annotate=True))
    picture = shown(answer.annotated_image)
    assert picture.size == (64, 64)
    pixels = np.asarray(picture.convert("RGB"))
    assert pixels[50, 44:47].max() > 150  # the dog's left edge
    assert pixels[8, 58].max() < 60


async def test_an_annotated_picture_over_the_limit_is_scaled_down(models: Path) -> None:
    picture = raw(pb.PIXEL_FORMAT_RGB, 600, 400, noise(400, 600, 3).tobytes())
    async with served_by(App(settings(models, max_annotated_bytes=1 << 16))) as served:
        answer = await served.stub.Detect(detect(image=picture, annotate=True))
        compared = await served.stub.Compare(pb.CompareRequest(image=picture, annotate=True))
    for annotated in (answer.annotated_image, compared.annotated_image):
        assert len(annotated.encoded) <= 1 << 16
        assert shown(annotated).size == (annotated.size.width, annotated.size.height)
    assert (answer.image_size.width, answer.image_size.height) == (600, 400)
    assert answer.annotated_image.size.width < 600


async def test_annotated_answers_fit_into_grpc_s_default_limit(models: Path) -> None:
    picture = raw(pb.PIXEL_FORMAT_RGB, 3000, 2400, noise(2400, 3000, 3).tobytes())
    async with served_by(App(settings(models))) as served:
        # This channel takes 4 MiB, as gRPC's do.
        answer = await served.stub.Detect(detect(image=picture, annotate=True))
    assert 3_000_000 < len(answer.annotated_image.encoded) <= 4_000_000


async def test_the_annotated_picture_of_raw_pixels_shows_the_labels(served: Served) -> None:
    picture = raw(pb.PIXEL_FORMAT_RGB, 200, 100, bytes([255]) * 60_000)
    request = pb.ClassifyRequest(image=picture, model="colors", annotate=True)
    pixels = np.asarray(shown((await served.stub.Classify(request)).annotated_image))
    assert pixels.shape == (100, 200, 3)
    assert pixels.min() < 100


async def test_list_models_returns_every_card_at_its_highest_version(served: Served) -> None:
    cards = (await served.stub.ListModels(pb.ListModelsRequest())).models
    assert [(c.name, c.version) for c in cards] == [
        ("boxes", 1),
        ("colors", 2),
        ("fragile", 1),
        ("guess", 1),
        ("pets", 1),
    ]
    colors = cards[1]
    assert list(colors.versions) == [1, 2]
    assert list(colors.tasks) == [pb.TASK_CLASSIFICATION]
    assert (colors.label_set.name, colors.label_set.size) == ("three-colors", 3)
    assert not colors.label_set.labels and not colors.HasField("receipt")


async def test_get_model_returns_the_whole_card(served: Served) -> None:
    card = (await served.stub.GetModel(pb.GetModelRequest(model="boxes"))).model
    assert list(card.tasks) == [pb.TASK_OBJECT_DETECTION]
    assert list(card.label_set.labels) == ["cat", "dog"]
    assert card.execution_provider == "CPUExecutionProvider"
    assert card.input == pb.ModelInput(width=64, height=64, resize="letterbox to 64x64")
    assert card.detection_defaults.score_threshold == pytest.approx(0.25)
    assert card.detection_defaults.max_detections == 300
    assert card.verification == pb.Verification(digest=True, golden_sample=True)
    assert card.facts.architecture == "Constant boxes"
    older = await served.stub.GetModel(pb.GetModelRequest(model="colors", version=1))
    assert older.model.version == 1 and list(older.model.versions) == [1, 2]


async def test_a_channel_carries_many_calls_at_once(served: Served) -> None:
    colors = {RED: "red", GREEN: "green", BLUE: "blue"}
    calls = [
        (label, served.stub.Classify(pb.ClassifyRequest(image=image(color), model="colors")))
        for color, label in colors.items()
        for _ in range(10)
    ]
    for label, call in calls:
        assert (await call).classifications[0].label == label
