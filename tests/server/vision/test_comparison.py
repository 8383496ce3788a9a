"""Comparisons: the selection of models, the models left out, and failures."""

import asyncio
from typing import Any

import numpy as np
import pytest

from visavis_server.card import LabelSet, ModelDocument, Task
from visavis_server.errors import InvalidRequest, ModelFailed, VisavisError
from visavis_server.runtime.scheduling.work import Caller
from visavis_server.telemetry.timings import Timings
from visavis_server.vision import comparison
from visavis_server.vision.comparison import ClassificationAgreement, select
from visavis_server.vision.results import Answer, Classified, Detected, Options, Picture, ServedBy

from .. import graphs
from ..answers import classified, detected

PICTURE = Picture(lambda: np.zeros((2, 2, 3), np.uint8))
CALL = Caller("Compare")
CLASSIFICATION, DETECTION = Task.CLASSIFICATION, Task.OBJECT_DETECTION


class Fake:
    """A model that gives a known answer or fails, once released."""

    def __init__(
        self,
        name: str,
        outcome: Classified | Detected | VisavisError,
        label_set: LabelSet | None = None,
    ) -> None:
        self.name = name
        self.outcome = outcome
        changes: dict[str, Any] = {"name": name}
        if label_set is not None:
            changes["label_set"] = label_set
        detects = isinstance(outcome, Detected)
        self.document: ModelDocument = (
            graphs.detector_document(**changes)
            if detects
            else graphs.classifier_document(**changes)
        )
        self.task = self.document.task
        self.served_by = ServedBy(name, 1, "fp32", "CPUExecutionProvider", False, self.task)
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.cancelled = False

    async def answer(self, picture: Picture, options: Options, caller: Caller) -> Answer:
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if isinstance(self.outcome, VisavisError):
            raise self.outcome
        return Answer(self.outcome, self.served_by, Timings())


def four() -> list[Fake]:
    """Two classifiers and two detectors, by name."""
    return [
        Fake("cls-a", classified(0.7, 0.2, 0.1)),
        Fake("cls-b", classified(0.1, 0.8, 0.1)),
        Fake("det-a", detected()),
        Fake("det-b", detected()),
    ]


def names(selection: comparison.Selection) -> dict[Task, list[str]]:
    return {task: [m.name for m in models] for task, models in selection.by_task.items()}


async def compared(
    models: list[Fake], baseline: str | None = None
) -> list[comparison.TaskComparison]:
    selection = select(models, [], [], baseline)
    given = [a async for a in comparison.answers(selection, PICTURE, Options(), CALL)]
    return comparison.conclude(selection, given)


def test_by_default_all_models_are_compared_for_all_tasks() -> None:
    selection = select(four(), [], [], None)
    assert names(selection) == {CLASSIFICATION: ["cls-a", "cls-b"], DETECTION: ["det-a", "det-b"]}
    assert selection.baselines == {CLASSIFICATION: "cls-a", DETECTION: "det-a"}
    assert selection.left_out == {}


def test_models_keep_the_order_of_the_request_and_the_first_is_the_baseline() -> None:
    selection = select(four(), [], ["det-b", "cls-b", "det-a", "det-b"], None)
    assert names(selection) == {CLASSIFICATION: ["cls-b"], DETECTION: ["det-b", "det-a"]}
    assert selection.baselines == {CLASSIFICATION: "cls-b", DETECTION: "det-b"}


def test_a_requested_baseline_applies_to_its_task_only() -> None:
    selection = select(four(), [], [], "cls-b")
    assert selection.baselines == {CLASSIFICATION: "cls-b", DETECTION: "det-a"}


def test_models_left_out_have_a_reason() -> None:
    assert select(four(), [DETECTION], ["cls-a", "det-b"], None).left_out == {
        "cls-a": "only capable of classification, which was not requested",
        "cls-b": "not among the requested models",
        "det-a": "not among the requested models",
    }


@pytest.mark.parametrize(
    ("tasks", "wanted", "baseline", "field"),
    [
        ([], [], "nobody", "baseline"),
        ([], ["cls-a"], "cls-b", "baseline"),
        ([DETECTION], [], "cls-a", "baseline"),
        ([DETECTION], ["cls-a"], None, "models"),
    ],
)
def test_an_empty_selection_is_refused(
    tasks: list[Task], wanted: list[str], baseline: str | None, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        select(four(), tasks, wanted, baseline)
    assert refused.value.field == field


def test_a_task_without_a_capable_model_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no model is capable of object detection") as refused:
        select(four()[:2], [DETECTION], [], None)
    assert refused.value.field == "tasks"


async def test_answers_arrive_as_soon_as_they_are_available() -> None:
    slow, fast = four()[:2]
    slow.may_answer.clear()
    stream = comparison.answers(select([slow, fast], [], [], None), PICTURE, Options(), CALL)
    assert (await anext(stream)).model is fast
    slow.may_answer.set()
    assert (await anext(stream)).model is slow
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_early_cancels_the_remaining_answers() -> None:
    slow, fast = four()[:2]
    slow.may_answer.clear()
    stream = comparison.answers(select([slow, fast], [], [], None), PICTURE, Options(), CALL)
    await anext(stream)
    await stream.aclose()
    await asyncio.sleep(0)  # Lets the cancellation arrive.
    assert slow.cancelled


async def test_a_failing_model_affects_no_other() -> None:
    broken = Fake("cls-0", ModelFailed("broken"))
    (classifiers, _) = await compared([broken, *four()], baseline="cls-a")
    by_name = {answer.model.name: answer for answer in classifiers.answers}
    assert by_name["cls-0"].outcome is broken.outcome
    assert by_name["cls-0"].agreement is None
    assert isinstance(by_name["cls-b"].agreement, ClassificationAgreement)


async def test_without_the_baselines_answer_there_is_no_agreement() -> None:
    (only,) = await compared([Fake("cls-0", ModelFailed("broken")), *four()[:2]])
    assert only.baseline == "cls-0"
    assert [answer.agreement for answer in only.answers] == [None] * 3


async def test_the_baseline_has_no_agreement_with_itself() -> None:
    classifiers, detectors = await compared(four())
    assert classifiers.answers[0].agreement is None
    assert detectors.answers[0].agreement is None
    assert detectors.answers[1].agreement is not None


async def test_a_single_model_has_nothing_to_compare_with() -> None:
    (alone,) = await compared(four()[:1])
    assert alone.nothing_to_compare == (
        "nothing to compare with: cls-a is the only model for classification"
    )
    (two,) = await compared(four()[:2])
    assert two.nothing_to_compare == ""


async def test_a_known_label_set_is_compared_by_id_whatever_its_spelling() -> None:
    one = LabelSet(name="imagenet-1k", labels=("a", "b", "c"))
    spelt_otherwise = LabelSet(name="imagenet-1k", labels=("A", "B", "C"))
    models = [
        Fake("x", classified(0.7, 0.2, 0.1), one),
        Fake("y", classified(0.7, 0.2, 0.1, labels="ABC"), spelt_otherwise),
    ]
    (only,) = await compared(models)
    assert only.answers[1].agreement == ClassificationAgreement(True, 1.0, 0.0)


async def test_label_sets_that_only_share_a_name_are_compared_by_label() -> None:
    one = LabelSet(name="three", labels=("a", "b", "c"))
    other = LabelSet(name="three", labels=("c", "b", "a"))
    models = [
        Fake("x", classified(0.7, 0.2, 0.1), one),
        Fake("y", classified(0.7, 0.2, 0.1, labels="cba"), other),
    ]
    (only,) = await compared(models)
    agreement = only.answers[1].agreement
    assert isinstance(agreement, ClassificationAgreement)
    assert not agreement.same_top1
    assert agreement.jensen_shannon_divergence is None


def test_a_task_that_the_named_models_lack_is_refused_with_those_that_have_it() -> None:
    with pytest.raises(InvalidRequest, match=r"capable are: det-a, det-b$"):
        select(four(), [DETECTION], ["cls-a"], None)


@pytest.mark.parametrize(
    ("name", "labels", "same"),
    [
        ("imagenet-1k", ("a", "b", "other"), True),
        ("imagenet-1k", ("a", "b"), False),
        ("custom-1", ("a", "b", "c"), True),
        ("custom-1", ("a", "b", "other"), False),
        ("custom-2", ("a", "b", "c"), False),
    ],
)
async def test_ids_mean_the_same_in_one_set_of_labels(
    name: str, labels: tuple[str, ...], same: bool
) -> None:
    first = "imagenet-1k" if name == "imagenet-1k" or name == "custom-2" else name
    one = LabelSet(name=first, labels=("a", "b", "c"))
    other = LabelSet(name=name, labels=labels)
    models = [Fake("one", classified(0.7, 0.2, 0.1), one)]
    models.append(Fake("other", classified(*(0.7, 0.2, 0.1)[: len(labels)]), other))
    (task,) = await compared(models, "one")
    agreement = task.answers[1].agreement
    assert isinstance(agreement, ClassificationAgreement)
    assert (agreement.jensen_shannon_divergence is not None) is same
