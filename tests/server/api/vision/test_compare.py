"""Compare and CompareStream over a real channel."""

import asyncio
import io
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from structlog.testing import capture_logs
from visavis.v1 import vision_pb2 as pb

from visavis_server.models.served_model import ServedModel

from ...pictures import BLACK, BLUE, RED
from ...serving import Served, image, violations


def request(**fields: object) -> pb.CompareRequest:
    return pb.CompareRequest(**{"image": image(RED), **fields})


def asked(comparison: pb.TaskComparison) -> list[str]:
    return [answer.served_by.model for answer in comparison.answers]


async def test_every_capable_model_answers_each_task(served: Served) -> None:
    answer = await served.stub.Compare(request())
    tasks = {c.task: asked(c) for c in answer.comparisons}
    assert tasks == {
        pb.TASK_CLASSIFICATION: ["colors", "fragile", "guess"],
        pb.TASK_OBJECT_DETECTION: ["boxes", "pets"],
    }
    assert [c.baseline for c in answer.comparisons] == ["colors", "boxes"]
    assert [card.name for card in answer.models] == ["boxes", "colors", "fragile", "guess", "pets"]
    assert not answer.left_out
    assert (answer.image_size.width, answer.image_size.height) == (64, 64)
    assert all(
        a.timings.inference_ms > 0
        for c in answer.comparisons
        for a in c.answers
        if not a.status.code
    )


async def test_agreement_of_classifiers_is_against_the_baseline(served: Served) -> None:
    answer = await served.stub.Compare(request(models=["colors", "guess"], top_k=1))
    (only,) = answer.comparisons
    baseline, guess = only.answers
    assert baseline.WhichOneof("agreement") is None
    agreement = guess.classification_agreement
    # colors gives softmax(20, 0, 0), guess softmax(-10, 0, 0).
    p, q = np.exp([20.0, 0, 0]), np.exp([-10.0, 0, 0])
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    expected = (np.sum(p * np.log2(p / middle)) + np.sum(q * np.log2(q / middle))) / 2
    assert not agreement.same_top1
    assert agreement.top_k_overlap == 0
    assert agreement.jensen_shannon_divergence == pytest.approx(expected, abs=1e-6)


async def test_agreement_of_detectors_matches_labels_by_name(served: Served) -> None:
    # pets knows the labels the other way round, and finds neither the first cat nor a cat.
    answer = await served.stub.Compare(request(models=["boxes", "pets"], iou_threshold=0.7))
    (only,) = answer.comparisons
    agreement = only.answers[1].detection_agreement
    assert [d.label for d in only.answers[0].detections] == ["cat", "cat", "dog"]
    assert [d.label for d in only.answers[1].detections] == ["dog", "cat"]
    assert (agreement.matched, agreement.only_here, agreement.only_in_baseline) == (0, 2, 3)
    assert agreement.f1 == 0
    assert not agreement.HasField("mean_iou")


async def test_a_failed_model_reports_its_error_and_the_others_answer(served: Served) -> None:
    black = image(BLACK)
    answer = await served.stub.Compare(request(image=black, tasks=[pb.TASK_CLASSIFICATION]))
    (only,) = answer.comparisons
    by_name = {a.served_by.model: a for a in only.answers}
    assert by_name["fragile"].status.code == 13
    assert "NaN or infinity" in by_name["fragile"].status.message
    assert not by_name["fragile"].classifications
    assert by_name["fragile"].WhichOneof("agreement") is None
    assert by_name["guess"].status == pb.AnswerStatus()
    assert by_name["guess"].HasField("classification_agreement")


async def test_an_unexpected_error_of_one_model_is_hidden_and_the_others_answer(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ServedModel.answer

    async def answer(model: ServedModel, *args: Any) -> Any:
        if model.name == "guess":
            raise IndexError("secret")
        return await real(model, *args)

    monkeypatch.setattr(ServedModel, "answer", answer)
    with capture_logs() as logs:
        response = await served.stub.Compare(request(models=["colors", "guess"]))
    good, bad = response.comparisons[0].answers
    assert (good.status.code, bad.status.code) == (0, 13)
    assert "secret" not in bad.status.message
    assert [entry["model"] for entry in logs if entry["log_level"] == "error"] == ["guess"]


async def test_the_request_chooses_order_and_baseline(served: Served) -> None:
    answer = await served.stub.Compare(request(models=["guess", "colors"]))
    assert asked(answer.comparisons[0]) == ["guess", "colors"]
    assert answer.comparisons[0].baseline == "guess"
    answer = await served.stub.Compare(request(models=["guess", "colors"], baseline="colors"))
    assert answer.comparisons[0].baseline == "colors"
    assert answer.comparisons[0].answers[0].HasField("classification_agreement")


async def test_models_left_out_are_listed_with_the_reason(served: Served) -> None:
    answer = await served.stub.Compare(
        request(models=["colors", "boxes"], tasks=[pb.TASK_CLASSIFICATION])
    )
    assert {m.model: m.reason for m in answer.left_out} == {
        "boxes": "only capable of object detection, which was not requested",
        "fragile": "not among the requested models",
        "guess": "not among the requested models",
        "pets": "not among the requested models",
    }
    assert [card.name for card in answer.models] == ["colors"]


async def test_a_single_model_has_nothing_to_compare_with(served: Served) -> None:
    answer = await served.stub.Compare(request(models=["colors"]))
    assert "nothing to compare with" in answer.comparisons[0].nothing_to_compare
    answer = await served.stub.Compare(request(models=["colors", "guess"]))
    assert answer.comparisons[0].nothing_to_compare == ""


async def test_an_unknown_label_filters_out_all_detections(served: Served) -> None:
    answer = await served.stub.Compare(request(labels=["dog"], tasks=[pb.TASK_OBJECT_DETECTION]))
    assert [[d.label for d in a.detections] for a in answer.comparisons[0].answers] == [
        ["dog"],
        ["dog"],
    ]
    answer = await served.stub.Compare(request(labels=["bird"], tasks=[pb.TASK_OBJECT_DETECTION]))
    assert not any(a.detections for a in answer.comparisons[0].answers)
    assert answer.comparisons[0].answers[1].detection_agreement.f1 == 1


async def test_the_answers_are_drawn_side_by_side(served: Served) -> None:
    answer = await served.stub.Compare(request(image=image(BLUE), annotate=True))
    sheet = Image.open(io.BytesIO(answer.annotated_image.encoded))
    assert sheet.format == "JPEG"
    assert sheet.width == 4 * (320 + 16) + 16  # five panels, four in a row


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        (
            {"models": ["colors", "yolo"]},
            "models",
            "there is no model 'yolo'; the models are: boxes",
        ),
        ({"baseline": "yolo"}, "baseline", "not among the models compared"),
        ({"models": ["colors"], "baseline": "guess"}, "baseline", "not among"),
        ({"tasks": [0]}, "tasks", "TASK_CLASSIFICATION, TASK_OBJECT_DETECTION"),
        ({"tasks": [99]}, "tasks", "task 99 is unknown"),
        (
            {"models": ["boxes"], "tasks": [pb.TASK_CLASSIFICATION]},
            "models",
            "none of boxes is capable of classification; capable are: ",
        ),
        ({"top_k": 0}, "top_k", "at least 1"),
        ({"score_threshold": 2}, "score_threshold", "0 to 1"),
        ({"image": pb.Image()}, "image", "the request has no image"),
        ({"image": pb.Image(encoded=b"no")}, "image.encoded", "only JPEG, PNG and WebP"),
    ],
)
async def test_an_invalid_request_is_rejected_by_its_field(
    served: Served, fields: dict[str, object], field: str, words: str
) -> None:
    error = await served.refused("Compare", request(**fields))
    assert list(violations(error)) == [field]
    assert words in error.details()


async def test_a_stream_yields_each_answer_and_then_the_summary(served: Served) -> None:
    fields = {"image": image(RED), "top_k": 1}
    events = [e async for e in served.stub.CompareStream(pb.CompareStreamRequest(**fields))]
    assert [e.WhichOneof("event") for e in events] == ["answer"] * 5 + ["summary"]
    names = [e.answer.answer.served_by.model for e in events[:-1]]
    assert sorted(names) == ["boxes", "colors", "fragile", "guess", "pets"]
    assert all(e.answer.answer.WhichOneof("agreement") is None for e in events[:-1])
    summary = events[-1].summary
    whole = await served.stub.Compare(pb.CompareRequest(**fields))
    for one, other in zip(summary.comparisons, whole.comparisons, strict=True):
        for answer, expected in zip(one.answers, other.answers, strict=True):
            answer.ClearField("timings")
            expected.ClearField("timings")
        assert one == other


async def test_a_slow_model_delays_no_other_in_a_stream(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer, real = asyncio.Event(), ServedModel.answer

    async def answer(model: ServedModel, *args: Any) -> Any:
        if model.name == "colors":
            await may_answer.wait()
        return await real(model, *args)

    monkeypatch.setattr(ServedModel, "answer", answer)
    stream = served.stub.CompareStream(
        pb.CompareStreamRequest(image=image(), models=["colors", "guess"])
    )
    first = await asyncio.wait_for(stream.read(), 10)
    assert first.answer.answer.served_by.model == "guess"
    may_answer.set()
    assert (await stream.read()).answer.answer.served_by.model == "colors"
    assert (await stream.read()).HasField("summary")


async def test_a_stream_rejects_as_compare_does(served: Served) -> None:
    call = served.stub.CompareStream(pb.CompareStreamRequest(image=image(), models=["yolo"]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert list(violations(refused.value)) == ["models"]
