"""One loaded model: its answers, its timings, and failures while it warms up."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from visavis_server.card import ModelDocument, output_names
from visavis_server.errors import DeadlineExceeded, ModelFailed
from visavis_server.models.loader import Loader
from visavis_server.models.model_files import ModelFile
from visavis_server.models.planning import Planner
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime.providers import CPU
from visavis_server.runtime.scheduling.scheduler import Caller, Scheduler
from visavis_server.vision.results import Classified, ClassifyOptions, Options, Picture

from .. import graphs

CALL = Caller("Classify")


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(1, 4)
    yield scheduler
    scheduler.close()


def loaded(
    scheduler: Scheduler, folder: Path, graph: bytes, document: ModelDocument
) -> ServedModel:
    path = graphs.put(folder, document.name, 1, graphs.export(graph, document)[0])
    return Loader(Planner(CPU, 1), scheduler, folder).load(ModelFile(document.name, 1, path))


def plain(*color: int) -> Picture:
    return Picture(lambda: np.full((20, 20, 3), color, np.uint8))


async def test_an_answer_names_its_model_and_its_timings(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    document = graphs.classifier_document(precision="int8")
    model = loaded(scheduler, tmp_path, graphs.classifier(), document)
    answer = await model.answer(plain(0, 255, 0), Options(), CALL)
    assert isinstance(answer.result, Classified)
    assert answer.result.classifications[0].label == "green"
    # Softmax of (0, 10, 0).
    assert answer.result.classifications[0].score == pytest.approx(1 / (1 + 2 * np.exp(-10)))
    assert answer.served_by == model.served_by
    assert (model.served_by.precision, model.served_by.execution_provider) == (
        "int8",
        "CPUExecutionProvider",
    )
    timings = answer.timings
    stages = timings.preprocess_ms + timings.inference_ms + timings.postprocess_ms
    assert 0 < stages <= timings.total_ms
    assert timings.queue_ms <= timings.total_ms


async def test_answers_given_at_once_are_not_mixed_up(scheduler: Scheduler, tmp_path: Path) -> None:
    model = loaded(scheduler, tmp_path, graphs.classifier(), graphs.classifier_document())
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 0)]
    answers = await asyncio.gather(
        *(model.answer(plain(*c), Options(ClassifyOptions(top_k=1)), CALL) for c in colors)
    )
    best = [a.result.classifications[0].label for a in answers if isinstance(a.result, Classified)]
    assert best == ["red", "green", "blue", "red"]


async def test_a_picture_that_breaks_the_model_breaks_nothing_else(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    model = loaded(scheduler, tmp_path, graphs.nan_on_black(), graphs.classifier_document())
    with pytest.raises(ModelFailed, match="NaN or infinity"):
        await model.answer(plain(0, 0, 0), Options(), CALL)
    answer = await model.answer(plain(200, 100, 100), Options(), CALL)
    assert isinstance(answer.result, Classified)
    assert answer.result.classifications[0].label == "red"


async def test_a_passed_deadline_keeps_the_session_from_running(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(scheduler, tmp_path, graphs.classifier(), graphs.classifier_document())
    ran: list[object] = []
    monkeypatch.setattr(model.engine.sessions.first, "run", lambda *args: ran.append(args))
    with pytest.raises(DeadlineExceeded):
        await model.answer(plain(0, 0, 0), Options(), Caller("Classify", time.monotonic() - 1))
    assert ran == []


def test_heads_are_read_in_the_order_of_the_document() -> None:
    document = graphs.detector_document(output=graphs.yolov5_heads())
    assert output_names(document) == [f"output{index}" for index in range(6)]
    assert output_names(graphs.classifier_document()) == ["logits"]
