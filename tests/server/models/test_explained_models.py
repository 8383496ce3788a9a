"""Models with class activation maps: how they are loaded, and how explained jobs share a batch."""

import re
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from visavis_server.app import App
from visavis_server.card import METADATA_KEY, ClassActivation, ClassScores
from visavis_server.models.engine import Engine, Job, PictureJob, TensorJob
from visavis_server.runtime.scheduling.work import Stop
from visavis_server.vision.heat_maps import Explain
from visavis_server.vision.results import Classified, ClassifyOptions, Picture

from .. import graphs
from ..pictures import noise
from ..serving import served_by, settings


def file(changes: dict[str, str]) -> bytes:
    """Return a model whose document names other parts for its heat maps."""
    names = {"features": "features", "weights": "weights", **changes}
    activation = ClassActivation.model_validate(names)
    output = ClassScores(layout="logits", tensor="logits", activation=activation)
    document = graphs.explained_document(output=output)
    return graphs.with_metadata(
        graphs.explained_classifier(), {METADATA_KEY: document.model_dump_json()}
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": "elsewhere"}, "the graph has no output elsewhere"),
        ({"weights": "nowhere"}, "names the initializer .*nowhere.*, which the graph lacks"),
        ({"weights": "kernel"}, r"fit together: features \[\d, 4, 2, 2\], weights \[4, 3"),
        ({"weights": "bias"}, r"fit together: features \[\d, 4, 2, 2\], weights \[3\]"),
        ({"scales": "weights"}, "fit together"),
        ({"features": "logits"}, r"fit together: features \[\d, 3\]"),
    ],
)
async def test_parts_that_do_not_fit_together_are_refused(
    changes: dict[str, str], words: str, tmp_path: Path
) -> None:
    graphs.put(tmp_path, "wrong", 1, file(changes))
    graphs.put(tmp_path, "right", 1, file({}))
    with capture_logs() as logs:
        async with served_by(App(settings(tmp_path))) as served:
            names = list(served.app._models.repository.names())
    assert names == ["right"]
    assert any(re.search(words, str(entry)) for entry in logs), logs


def test_features_are_part_of_the_golden_sample() -> None:
    _, document = graphs.export(graphs.explained_classifier(), graphs.explained_document())
    assert document.golden_sample is not None
    names = [output.tensor for output in document.golden_sample.outputs]
    assert names == ["logits", "features"]


def job(seed: int, explain: Explain | None) -> PictureJob:
    picture = Picture(lambda: noise(20, 20, 3, seed=seed))
    return PictureJob(picture=picture, options=ClassifyOptions(top_k=3, explain=explain))


def answers(engine: Engine, jobs: list[Job]) -> list[Classified]:
    """Return what one batch answers."""
    engine.allocate(jobs)
    for each in jobs:
        engine.prepare(each)
    outputs = engine.run(jobs, False, Stop(len(jobs)))
    return [engine.finish(*each) for each in zip(jobs, outputs, strict=True)]


async def test_an_explained_job_changes_no_other_answer_of_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, _ = graphs.export(graphs.explained_classifier(), graphs.explained_document())
    graphs.put(tmp_path, "model", 1, contents)
    async with served_by(App(settings(tmp_path))) as served:
        engine = served.app._models.repository.get("model").engine
        fetched, run = [], engine.sessions.run

        def recorded(tensor: np.ndarray, names: list[str], *others: object) -> object:
            fetched.append(names)
            return run(tensor, names, *others)

        monkeypatch.setattr(engine.sessions, "run", recorded)
        plain = answers(engine, [job(seed, None) for seed in range(3)])
        mixed = answers(engine, [job(0, None), job(1, Explain()), job(2, Explain("red"))])
        tensor = np.ones((3, 8, 8), np.float32)
        (bare, _) = answers(engine, [TensorJob(tensor=tensor), job(1, Explain())])
        (alone,) = answers(engine, [TensorJob(tensor=tensor)])
    # The features are fetched only where they are asked for.
    assert fetched == [["logits"], *[["logits", "features"]] * 2, ["logits"]]
    for one, other in zip(plain, mixed, strict=True):
        assert one.classifications == other.classifications
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
    labels = [answer.heat_map.label if answer.heat_map else None for answer in mixed]
    assert labels == [None, mixed[1].classifications[0].label, "red"]
    assert all(answer.heat_map is None for answer in plain)
    np.testing.assert_array_equal(bare, alone)
