import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from visavis.v1 import vision_pb2 as pb

from tests.surroundings import Surroundings
from visavis_server.card import Stretch
from visavis_server.errors import ModelFileError
from visavis_server.tools.limit import Limit

from .. import graphs, pictures
from ..serving import Served

# Wide, tall, square and thin; noise, so that a pixel more or less shows.
SIZES = ((64, 64), (40, 120), (120, 40), (300, 9))
FILES = [pictures.encoded(pictures.noise(*size, 3, seed=n)) for n, size in enumerate(SIZES)]


@pytest.fixture
def limit(models: Path) -> Limit:
    return Limit(models, FILES, threads=2)


async def test_its_answers_are_the_served_ones(limit: Limit, served: Served):
    for file, answer in zip(FILES, limit.answers(["colors", "boxes"]), strict=True):
        image = pb.Image(encoded=file)
        labels = await served.stub.Classify(pb.ClassifyRequest(image=image, model="colors"))
        assert [item["label"] for item in answer["colors"]] == [
            item.label for item in labels.classifications
        ]
        assert [item["score"] for item in answer["colors"]] == pytest.approx(
            [item.score for item in labels.classifications], abs=1e-6
        )
        boxes = await served.stub.Detect(pb.DetectRequest(image=image, model="boxes"))
        assert [(item["label"], *item["box"]) for item in answer["boxes"]] == [
            (item.label, *(pytest.approx(edge, abs=1e-3) for edge in _xyxy(item.box)))
            for item in boxes.detections
        ]


def test_pre_processing_of_the_server_gives_the_same_input(limit: Limit):
    for name in ("colors", "boxes"):
        (plain,) = limit._pipelines([name], alone=False)
        image = pictures.noise(77, 130, 3)
        expected, _ = plain.as_served().preprocess(image)
        given, _ = plain.preprocess(image)
        assert given == pytest.approx(expected, abs=1e-6)


def test_every_kind_of_run_has_its_figures(limit: Limit):
    for how in ({}, {"alone": True}, {"as_served": True}):
        figures = limit.run(["colors", "boxes"], 0.05, **how)
        assert figures.keys() == {"per_s", "p50_ms", "cpu_ms", "cores"}
        assert all(value > 0 for value in figures.values())


def test_another_graph_takes_the_place_of_a_detectors_own(models: Path):
    graph = models / "pets" / "1" / "model.onnx"
    own = Limit(models, FILES[:1]).answers(["boxes"])
    (other,) = Limit(models, FILES[:1], {"boxes": graph}).answers(["boxes"])
    # The other graph has one cat less; the labels are still the detector's own.
    assert [item["label"] for item in own[0]["boxes"]] == ["cat", "dog"]
    assert [item["score"] for item in other["boxes"]] == pytest.approx([0.8, 0.4])


def test_model_that_is_not_there_is_named(limit: Limit):
    with pytest.raises(ModelFileError, match="no model 'vgg'; the models are: boxes, colors"):
        limit.run(["vgg"], 0.01)


def test_pre_processing_that_it_does_not_know_is_refused(tmp_path: Path):
    document = graphs.classifier_document()
    stretched = document.input.model_copy(update={"resize": Stretch()})
    document = document.model_copy(update={"input": stretched})
    graphs.put(tmp_path, "colors", 1, graphs.export(graphs.classifier(), document)[0])
    with pytest.raises(ModelFileError, match="not stretch"):
        Limit(tmp_path, FILES).answers(["colors"])


def test_file_without_a_document_is_refused(tmp_path: Path):
    graphs.put(tmp_path, "colors", 1, graphs.classifier())
    with pytest.raises(ModelFileError, match="has no document"):
        Limit(tmp_path, FILES).answers(["colors"])


def test_it_executes_commands_and_reports_errors(models: Path, tmp_path: Path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(FILES[0])
    orders = [
        {"run": ["colors"], "seconds": 0.01},
        {"answers": ["colors"]},
        {"run": ["vgg"], "seconds": 0.01},
        {"walk": 1},
    ]
    said = _said("--models", models, picture, lines=[*map(json.dumps, orders), "no JSON"])
    assert said[0]["pictures"] == 1
    assert said[1]["per_s"] > 0
    assert len(said[2]["answers"]) == 1
    assert "no model 'vgg'" in said[3]["error"]
    assert all("error" in line for line in said[4:])
    assert len(said) == 6


def test_a_missing_repository_is_reported_at_once(tmp_path: Path):
    (said,) = _said("--models", tmp_path / "none", __file__, lines=[])
    assert "is not a folder" in said["error"]


def _said(*arguments: object, lines: list[str]) -> list[dict[str, Any]]:
    with Surroundings.temporary() as found:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "visavis_server.tools.limit", *map(str, arguments)],
            input="".join(f"{line}\n" for line in lines),
            cwd=found.elsewhere,
            env=found.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _xyxy(box: pb.BoundingBox) -> tuple[float, float, float, float]:
    return box.x_min, box.y_min, box.x_max, box.y_max
