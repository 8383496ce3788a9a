"""The page's own arithmetic, which moves with the sliders: it is the server's."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis_server.vision.comparison import classification_agreement, detection_agreement
from visavis_server.vision.labels import SharedNames
from visavis_server.vision.results import Box, Classification, Classified, Detected, Detection

from .conftest import Playground
from .page import Browser, Page

LABELS = ("cat", "dog", "bus")
NAMES = ("0", "1", "2", "3", "crane", "crane")
# Where edges are whole and few, many boxes overlap alike, or by exactly a half.
edges = st.integers(0, 12).map(float) | st.floats(0, 12, width=32)
scores = st.floats(0, 1, width=32)


@st.composite
def detected(draw: st.DrawFn) -> Detected:
    def detection() -> Detection:
        xs, ys = (sorted((draw(edges), draw(edges))) for _ in "xy")
        class_id = draw(st.integers(0, len(LABELS) - 1))
        box = Box(xs[0], ys[0], xs[1], ys[1])
        return Detection(box, class_id, LABELS[class_id], draw(scores))

    return Detected(tuple(detection() for _ in range(draw(st.integers(0, 8)))))


@st.composite
def labelled(draw: st.DrawFn, labels: tuple[str, ...]) -> Detected:
    def detection() -> Detection:
        class_id = draw(st.integers(0, len(labels) - 1))
        return Detection(Box(0, 0, draw(st.integers(1, 3)), 1), class_id, labels[class_id], 0.5)

    return Detected(tuple(detection() for _ in range(draw(st.integers(0, 6)))))


@st.composite
def classified(draw: st.DrawFn) -> Classified:
    ids = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True))
    # Two ids have the same name, as in ImageNet.
    labels = [Classification(i, "crane" if i > 3 else str(i), draw(scores)) for i in ids]
    return Classified(tuple(labels), np.full(6, 1 / 6, np.float32))


@pytest.fixture(scope="module")
def page(browser: Browser, playground: Playground) -> Iterator[Page]:
    page = Page(browser, playground.url)
    yield page
    assert page.close() == []


def computed(page: Page, function: str, ours: object, theirs: object, by: str) -> Any:
    return page.evaluate(
        f"""async ([ours, theirs, by]) =>
            (await import("./agreement.js")).{function}(ours, theirs, (of) => of[by])""",
        [ours, theirs, by],
    )


@settings(max_examples=300, deadline=None)
@given(ours=detected(), theirs=detected())
def test_detectors_agree_in_the_page_as_in_the_server(
    page: Page, ours: Detected, theirs: Detected
) -> None:
    shown = computed(page, "detectionAgreement", in_json(ours), in_json(theirs), "classId")
    right = detection_agreement(ours, theirs)
    assert shown["matches"] == [
        {"index": match.index, "baselineIndex": match.baseline_index, "iou": match.iou}
        for match in right.matches
    ]
    assert shown["onlyHere"] == right.only_here
    assert shown["onlyInBaseline"] == right.only_in_baseline
    assert shown["f1"] == right.f1
    assert shown["meanIou"] == pytest.approx(right.mean_iou)
    assert shown["meanScoreDifference"] == pytest.approx(right.mean_score_difference)


@settings(max_examples=100, deadline=None)
@given(ours=classified(), theirs=classified(), by_id=st.booleans())
def test_classifiers_agree_in_the_page_as_in_the_server(
    page: Page, ours: Classified, theirs: Classified, by_id: bool
) -> None:
    by = "classId" if by_id else "label"
    shown = computed(page, "classificationAgreement", in_json(ours), in_json(theirs), by)
    names = None if by_id else SharedNames(NAMES, NAMES)
    right = classification_agreement(ours, theirs, names)
    assert shown["sameTop1"] == right.same_top1
    assert shown["topKOverlap"] == pytest.approx(right.top_k_overlap)


LABEL_SETS = [
    ("sofa", "TV monitor", "N/A", "potted_plant", "Café"),
    ("couch", "tv", "zebra", "pottedplant", "cafe"),
]


@given(ours=labelled(LABEL_SETS[0]), theirs=labelled(LABEL_SETS[1]))
@settings(max_examples=100, deadline=None)
def test_models_of_other_label_sets_agree_in_the_page_as_in_the_server(
    page: Page, ours: Detected, theirs: Detected
) -> None:
    sets = [{"name": f"set-{n}", "size": 5, "labels": one} for n, one in enumerate(LABEL_SETS)]
    shown = page.evaluate(
        """async ([ours, theirs, one, other]) => {
            const { detectionAgreement, labelKey } = await import("./agreement.js");
            const of = detectionAgreement(ours, theirs, labelKey(one, other));
            return { ...of, unknown: of.unknown.size, baselineUnknown: of.baselineUnknown.size };
        }""",
        [in_json(ours), in_json(theirs), *sets],
    )
    right = detection_agreement(ours, theirs, SharedNames(*LABEL_SETS))
    assert len(shown["matches"]) == len(right.matches)
    assert shown["unknown"] == right.unknown_here
    assert shown["baselineUnknown"] == right.unknown_in_baseline
    assert (shown["onlyHere"], shown["onlyInBaseline"]) == (right.only_here, right.only_in_baseline)
    assert shown["f1"] == right.f1


def in_json(answer: Detected | Classified) -> list[dict[str, object]]:
    """Return an answer's list with the names that protobuf's JSON gives it."""
    if isinstance(answer, Classified):
        return [{"classId": c.class_id, "label": c.label} for c in answer.classifications]
    return [
        {
            "classId": found.class_id,
            "label": found.label,
            "score": found.score,
            "box": {camel_case(edge): value for edge, value in asdict(found.box).items()},
        }
        for found in answer.detections
    ]


def camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
