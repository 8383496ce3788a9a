"""Heat maps over a real channel: each answer has its own, and no other answer changes."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image
from visavis.v1 import vision_pb2 as pb

from visavis_server.app import App

from ... import graphs, pictures
from ...pictures import RED, noise
from ...serving import Served, image, served_by, settings, violations

EXPLAIN = pb.Explain()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with maps and one without, and detectors with cells, with few, and finished."""
    folder = tmp_path_factory.mktemp("explained")

    def add(name: str, graph: bytes, document: Any) -> None:
        graphs.put(folder, name, 1, graphs.export(graph, document)[0])

    add("explained", graphs.explained_classifier(), graphs.explained_document())
    add("old", graphs.classifier(), graphs.classifier_document())
    random = np.random.default_rng(0)
    maps = [random.normal(size=(1, 14, 64 // s, 64 // s)) for s in graphs.STRIDES]
    heads = graphs.constant(*graphs.split_heads(maps))
    add("heads", heads, graphs.detector_document(output=graphs.yolov5_heads()))
    add("few", graphs.constant(graphs.ROWS), graphs.detector_document())
    end = np.zeros((1, 2, 6), np.float32)
    finished = graphs.detector_document(output=graphs.candidates("end_to_end"))
    add("finished", graphs.constant(end), finished)
    return folder


@pytest_asyncio.fixture
async def served(models: Path) -> AsyncIterator[Served]:
    async with served_by(App(settings(models))) as served:
        yield served


def textured(seed: int = 0, width: int = 64, height: int = 64) -> pb.Image:
    return pb.Image(
        encoded=pictures.encoded(Image.fromarray(noise(height, width, 3, seed=seed)), "PNG")
    )


def classify(**fields: object) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(**{"image": textured(), "model": "explained", **fields})


def detect(**fields: object) -> pb.DetectRequest:
    return pb.DetectRequest(**{"image": textured(), "model": "heads", **fields})


async def test_classify_returns_a_map_of_the_best_label_or_of_the_chosen_one(
    served: Served,
) -> None:
    plain = await served.stub.Classify(classify())
    assert not plain.HasField("heat_map")
    answer = await served.stub.Classify(classify(explain=EXPLAIN))
    best, *_, worst = answer.classifications
    assert list(answer.classifications) == list(plain.classifications)
    heat_map = answer.heat_map
    assert (heat_map.class_id, heat_map.label) == (best.class_id, best.label)
    assert (heat_map.width, heat_map.height) == (2, 2)
    assert len(heat_map.values) == 4
    assert (heat_map.min, heat_map.max) == (min(heat_map.values), max(heat_map.values))
    # 64 x 64, resized to 10 x 10, of which the middle 8 x 8 are seen.
    assert heat_map.area == pb.HeatMapArea(x_min=6.4, y_min=6.4, x_max=57.6, y_max=57.6)
    other = await served.stub.Classify(classify(explain=pb.Explain(label=worst.label)))
    assert other.heat_map.label == worst.label
    assert list(other.heat_map.values) != list(heat_map.values)


async def test_the_means_of_two_maps_differ_as_their_logits_do(served: Served) -> None:
    maps, scores = {}, {}
    bias = dict(zip(graphs.COLORS, (0.3, -0.2, 0.1), strict=True))
    for label in graphs.COLORS:
        answer = await served.stub.Classify(classify(explain=pb.Explain(label=label)))
        maps[label] = np.mean(answer.heat_map.values) + bias[label]
        scores = {c.label: c.score for c in answer.classifications}
    exponentials = {label: np.exp(logit) for label, logit in maps.items()}
    total = sum(exponentials.values())
    softmax = {label: value / total for label, value in exponentials.items()}
    assert softmax == pytest.approx(scores, abs=1e-5)


async def test_detect_returns_a_map_that_reaches_the_best_score(served: Served) -> None:
    answer = await served.stub.Detect(detect(explain=EXPLAIN))
    best = answer.detections[0]
    assert answer.heat_map.label == best.label
    assert answer.heat_map.max == pytest.approx(best.score, abs=1e-5)
    assert (answer.heat_map.width, answer.heat_map.height) == (8, 8)
    assert answer.heat_map.area == pb.HeatMapArea(x_min=0, y_min=0, x_max=64, y_max=64)
    nothing = await served.stub.Detect(detect(explain=EXPLAIN, score_threshold=1.0))
    assert not nothing.detections
    assert nothing.heat_map == answer.heat_map


async def test_the_area_is_in_the_upright_picture(served: Served) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = pictures.encoded(Image.new("RGB", (128, 64)), "JPEG", exif=exif)
    answer = await served.stub.Classify(classify(image=pb.Image(encoded=data), explain=EXPLAIN))
    assert (answer.image_size.width, answer.image_size.height) == (64, 128)
    # Resized to 10 x 20, of which columns 1 to 9 and rows 6 to 14 are seen.
    area = answer.heat_map.area
    assert (area.x_min, area.x_max) == pytest.approx((6.4, 57.6))
    assert (area.y_min, area.y_max) == pytest.approx((38.4, 89.6))


@pytest.mark.parametrize(
    ("rpc", "request_", "field", "words"),
    [
        ("Classify", classify(explain=pb.Explain(label="bus")), "explain.label", "no label 'bus'"),
        ("Classify", classify(explain=pb.Explain(label="")), "explain.label", "no label ''"),
        ("Classify", classify(model="old", explain=EXPLAIN), "explain", "export the model again"),
        ("Detect", detect(explain=pb.Explain(label="bus")), "explain.label", "no label 'bus'"),
        ("Detect", detect(model="few", explain=EXPLAIN), "explain", "its 3 candidates are not"),
        ("Detect", detect(model="finished", explain=EXPLAIN), "explain", "only the boxes"),
    ],
)
async def test_a_map_that_is_impossible_is_refused_by_field(
    rpc: str, request_: Any, field: str, words: str, served: Served
) -> None:
    error = await served.refused(rpc, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    ((name, why),) = violations(error).items()
    assert name == field
    assert words in why


async def test_in_a_comparison_only_the_model_that_can_not_explain_fails(served: Served) -> None:
    request = pb.CompareRequest(image=textured(), explain=EXPLAIN)
    answer = await served.stub.Compare(request)
    by_name = {a.served_by.model: a for c in answer.comparisons for a in c.answers}
    codes = {name: a.status.code for name, a in by_name.items()}
    assert codes == {"explained": 0, "old": 3, "heads": 0, "few": 3, "finished": 3}
    assert by_name["explained"].heat_map.width == 2
    assert by_name["heads"].heat_map.width == 8
    assert "export the model again" in by_name["old"].status.message
    assert not by_name["old"].HasField("heat_map")
    chosen = pb.Explain(label="cat")
    answer = await served.stub.Compare(pb.CompareRequest(image=textured(), explain=chosen))
    codes = {a.served_by.model: a.status.code for c in answer.comparisons for a in c.answers}
    assert codes["explained"] == 3
    assert codes["heads"] == 0


async def test_a_streamed_comparison_has_maps_at_once(served: Served) -> None:
    request = pb.CompareStreamRequest(
        image=textured(), models=["explained", "heads"], explain=EXPLAIN
    )
    *answers, last = [event async for event in served.stub.CompareStream(request)]
    maps = {e.answer.answer.served_by.model: e.answer.answer.heat_map for e in answers}
    assert {name: of.width for name, of in maps.items()} == {"explained": 2, "heads": 8}
    summed = {a.served_by.model: a.heat_map for c in last.summary.comparisons for a in c.answers}
    assert summed == maps


async def test_explained_requests_change_no_other_answer(served: Served) -> None:
    asked = [textured(seed) for seed in range(24)]
    alone = [await served.stub.Classify(classify(image=each, top_k=3)) for each in asked]
    explain = [EXPLAIN if index % 3 == 0 else None for index in range(24)]
    together = await asyncio.gather(
        *(
            served.stub.Classify(classify(image=each, top_k=3, explain=how))
            for each, how in zip(asked, explain, strict=True)
        )
    )
    for one, other, how in zip(alone, together, explain, strict=True):
        for theirs, ours in zip(one.classifications, other.classifications, strict=True):
            assert (theirs.label, theirs.score) == (ours.label, pytest.approx(ours.score, abs=1e-6))
        assert other.HasField("heat_map") == (how is not None)


async def test_annotated_pictures_show_the_map(served: Served) -> None:
    red = image(RED, 200, 200)
    for rpc, request in (
        ("Classify", pb.ClassifyRequest(image=red, model="explained", annotate=True)),
        ("Detect", pb.DetectRequest(image=red, model="heads", annotate=True, max_detections=1)),
        (
            "Compare",
            pb.CompareRequest(image=red, models=["explained", "heads"], annotate=True),
        ),
    ):
        plain = await getattr(served.stub, rpc)(request)
        request.explain.CopyFrom(EXPLAIN)
        explained = await getattr(served.stub, rpc)(request)
        one, other = (
            np.asarray(Image.open(io.BytesIO(a.annotated_image.encoded))).astype(int)
            for a in (plain, explained)
        )
        assert one.shape == other.shape
        assert (np.abs(one - other).max(axis=2) > 40).mean() > 0.15, rpc


async def test_a_difference_is_drawn_if_asked_for(served: Served) -> None:
    request = pb.CompareRequest(image=image(RED, 200, 200), models=["heads", "few"])
    assert not (await served.stub.Compare(request)).HasField("annotated_image")
    request.annotate = True
    plain = await served.stub.Compare(request)
    request.annotate = False
    request.annotate_difference = True
    answer = await served.stub.Compare(request)
    size, before = answer.annotated_image.size, plain.annotated_image.size
    assert (size.width, size.height) == (before.width, before.height + 3 * 26)
    # Classifiers alone have no boxes that differ.
    request.models[:] = ["explained", "old"]
    labels = await served.stub.Compare(request)
    assert labels.annotated_image.size.height == before.height
