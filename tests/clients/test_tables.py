import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text
from visavis.commands.console import plain
from visavis.commands.side_by_side import Column, SideBySide
from visavis.v1 import vision_pb2 as pb

from . import canned
from .fakes import FakeServer

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]


def comparing(comparison: pb.CompareResponse) -> Callable[..., pb.CompareResponse]:
    return lambda request, context: comparison


@pytest.mark.parametrize("width", ["80", "120", "40"])
def test_every_table_fits_the_terminal(
    visavis: Command,
    pictures: list[Path],
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    width: str,
):
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.chdir(pictures[0].parent)
    for arguments in (["models"], ["models", "yolov5n"], ["detect", "a.jpg"], ["compare", "a.jpg"]):
        assert visavis(*arguments) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= int(width)


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_no_terminal_is_too_narrow_for_a_column(width: int):
    columns = [Column(Text(f"model-{k}"), [Text(f"0.{k}"), Text("—")]) for k in range(4)]
    out = io.StringIO()
    Console(file=out, width=width).print(SideBySide("", [Text("mAP50-95"), Text("p")], columns))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for k in range(4):
        assert any(f"model-{k}" in line for line in lines)
        assert any(f"0.{k}" in line for line in lines)


@pytest.mark.parametrize("width", range(40, 121, 5))
def test_models_never_break_a_word(
    visavis: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch, width: int
):
    monkeypatch.setenv("COLUMNS", str(width))
    assert visavis("models") == 0
    words = capsys.readouterr().out.split()
    assert words.count("classification") == 3
    assert words.count("Ultralytics") == 1
    assert words.count("BSD-3-Clause") == 3


def test_models_are_compared_by_the_rows_that_people_know_first(
    visavis: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch
):
    """The order and the words of the comparison page that the project began with."""
    monkeypatch.setenv("COLUMNS", "160")
    assert visavis("models") == 0
    lines = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    start = lines.index("organization")
    assert lines[start : start + 9] == [
        "organization",
        "category",
        "modality",
        "release date",
        "context window",
        "parameters",
        "licence",
        "vision tasks",
        "real-time vision",
    ]


def test_a_comparison_ends_with_the_facts_of_its_models(
    visavis: Command, pictures: list[Path], capsys: Captured, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "200")
    assert visavis("compare", pictures[0]) == 0
    rows = {line.split("  ")[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    # resnet18, resnet50, yolov5n and yolov5n-cls; a vision model has no context window.
    assert rows["context window"] == ["window", *"————"]
    assert rows["category"] == ["open"] * 4
    assert rows["licence"] == ["MIT", "MIT", "AGPL-3.0-only", "MIT"]


@pytest.mark.parametrize(
    ("versions", "text"),
    [([1], "1"), ([1, 7], "1 (available: 1, 7)"), ([1, 2, 7], "1 (available: 1, 2, 7)")],
)
def test_card_shows_its_version_and_the_available_ones(
    visavis: Command, fake: FakeServer, capsys: Captured, versions: list[int], text: str
):
    card = pb.Model(name="resnet18", version=1, versions=versions)
    fake.answers["GetModel"] = lambda request, context: pb.GetModelResponse(model=card)
    assert visavis("models", "resnet18", "--version", 1) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"version {text}" in lines


def test_a_variants_card_shows_the_cost_of_its_precision(
    visavis: Command, fake: FakeServer, capsys: Captured
):
    picture = pb.ReceiptPicture(
        name="bus.jpg", width=810, height=1080, compared=5, only_here=1, only_in_original=2
    )
    card = pb.Model(
        name="yolov5n-int8",
        version=1,
        versions=[1],
        precision="int8",
        variant_of="yolov5n",
        provenance=pb.Provenance(conversion="static QDQ, calibrated with 64 pictures"),
        accuracy=pb.Accuracy(
            metric="mAP50-95",
            value=0.316,
            original=0.321,
            error=0.007,
            pictures=64,
            source="64 of the 128 pictures in coco",
            held_out=True,
        ),
        receipt=pb.Receipt(
            made_at="2026-11-23T12:00:00Z",
            max_score_difference=0.07,
            max_box_difference_px=12,
            pictures=[picture],
        ),
    )
    fake.answers["GetModel"] = lambda request, context: pb.GetModelResponse(model=card)
    assert visavis("models", "yolov5n") == 0
    out = capsys.readouterr().out
    words = " ".join(out.split())
    assert "variant of yolov5n" in words
    assert "mAP50-95 31.6 %, original 32.1 % (difference -0.50 ± 0.70 points)" in words
    assert "converted static QDQ, calibrated with 64 pictures" in words
    assert "score 0.07, box 12 px. They have no limit" in words
    assert "bus.jpg 810 × 1080 5 1 2 0.0e+00 —" in words


def test_random_weights_are_marked_in_every_table(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    served_by = canned.served_by("m", random_weights=True)
    fake.answers["Classify"] = lambda request, context: pb.ClassifyResponse(served_by=served_by)
    fake.answers["Detect"] = lambda request, context: pb.DetectResponse(served_by=served_by)
    detection = pb.TaskComparison(
        task=pb.TASK_OBJECT_DETECTION,
        baseline="m",
        answers=[pb.ModelAnswer(served_by=served_by, detections=canned.BUS_BOXES)],
    )
    fake.answers["Compare"] = comparing(pb.CompareResponse(comparisons=[detection]))
    for arguments, marks in (
        (["models"], 1),
        (["models", "yolov5n-cls"], 1),
        (["classify", pictures[0], "--model", "m"], 1),
        (["detect", pictures[0], "--model", "m"], 1),
        (["compare", pictures[0]], 2),
    ):
        assert visavis(*arguments) == 0
        assert capsys.readouterr().out.count("RANDOM WEIGHTS") == marks, arguments


def test_matched_boxes_share_a_line_and_unmatched_ones_have_their_own(
    visavis: Command, pictures: list[Path], capsys: Captured
):
    assert visavis("compare", pictures[0]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "12, 232 to 804, 756 0.673 bus 0.771 bus IoU 0.97" in lines
    assert "670, 388 to 810, 878 0.643 person —" in lines
    assert "0, 254 to 33, 325 — 0.311 stop sign" in lines


def test_comparison_shows_the_first_boxes_of_each_model_and_counts_the_rest(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    answers = [
        pb.ModelAnswer(
            served_by=canned.served_by(name),
            detections=canned.boxes(*[(f"{name}-box", 0.5, (1, 2, 3, 4))] * count),
        )
        for name, count in (("few", 3), ("many", 25), ("most", 90))
    ]
    task = pb.TaskComparison(task=pb.TASK_OBJECT_DETECTION, baseline="many", answers=answers)
    fake.answers["Compare"] = comparing(pb.CompareResponse(comparisons=[task]))
    assert visavis("compare", pictures[0]) == 0
    out = capsys.readouterr().out
    assert [out.count(f"{name}-box") for name in ("few", "many", "most")] == [3, 20, 20]
    assert "… and 75 more" in out


def test_comparison_shows_failures_agreement_and_models_left_out(
    visavis: Command, pictures: list[Path], capsys: Captured
):
    assert visavis("compare", pictures[0]) == 0
    out = capsys.readouterr().out
    words = " ".join(out.split())
    assert "same top-1 — yes no" in words
    assert "divergence — 0.118 0.973" in words
    assert "yolov5x failed: INTERNAL: internal error" in words
    assert "yolov5m: not loaded: the digest is wrong" in words


def test_labels_that_the_other_model_lacks_are_counted_apart(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    comparison = canned.comparison()
    agreement = comparison.comparisons[1].answers[1].detection_agreement
    agreement.unknown_here, agreement.unknown_in_baseline = 2, 1
    fake.answers["Compare"] = comparing(comparison)
    assert visavis("compare", pictures[0]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert (
        "2 of its answers and 1 of yolov5n's are left out of the agreement: the other model lacks "
        "their labels"
    ) in words
    assert words.count("left out of the agreement") == 1


def test_other_label_set_has_no_divergence(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    comparison = canned.comparison()
    agreement = comparison.comparisons[0].answers[1].classification_agreement
    agreement.ClearField("jensen_shannon_divergence")
    fake.answers["Compare"] = comparing(comparison)
    assert visavis("compare", pictures[0]) == 0
    assert "divergence — other labels" in " ".join(capsys.readouterr().out.split())


def test_single_model_is_shown_with_the_reason_for_comparing_nothing(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    alone = pb.TaskComparison(
        task=pb.TASK_OBJECT_DETECTION,
        baseline="yolov5n",
        answers=[
            pb.ModelAnswer(served_by=canned.served_by("yolov5n"), detections=canned.BUS_BOXES)
        ],
        nothing_to_compare="only yolov5n is capable of object detection",
    )
    fake.answers["Compare"] = comparing(pb.CompareResponse(comparisons=[alone]))
    assert visavis("compare", pictures[0]) == 0
    out = capsys.readouterr().out
    assert "only yolov5n is capable" in out
    assert "0.673 bus" in out
    assert "compared with" not in out


def test_comparison_without_a_single_answer_is_a_failure(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    failed = pb.ModelAnswer(
        served_by=canned.served_by("resnet50"), status=pb.AnswerStatus(code=13, message="broken")
    )
    task = pb.TaskComparison(task=pb.TASK_CLASSIFICATION, baseline="resnet50", answers=[failed])
    fake.answers["Compare"] = comparing(pb.CompareResponse(comparisons=[task]))
    assert visavis("compare", pictures[0]) == 5
    assert "resnet50 failed: INTERNAL: broken" in capsys.readouterr().out


def test_models_that_do_not_fit_side_by_side_follow_below_with_the_baseline(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    names = [f"model-{number}" for number in range(7)]
    answers = [
        pb.ModelAnswer(served_by=canned.served_by(name), classifications=canned.BUS_LABELS)
        for name in names
    ]
    task = pb.TaskComparison(task=pb.TASK_CLASSIFICATION, baseline="model-3", answers=answers)
    fake.answers["Compare"] = comparing(pb.CompareResponse(comparisons=[task]))
    assert visavis("compare", pictures[0]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.strip().startswith("model-")]
    assert [row[0] for row in rows] == ["model-3"] * 3
    assert sorted({name for row in rows for name in row}) == names


@pytest.mark.parametrize("text", ["[bold red]bus[/]", "[/]", ":bus:", "\\[x]"])
def test_untrusted_text_is_not_markup(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured, text: str
):
    detections = canned.boxes((text, 0.9, (1, 2, 3, 4)))
    response = pb.DetectResponse(detections=detections, served_by=canned.served_by(text))
    fake.answers["Detect"] = lambda request, context: response
    picture = pictures[0].with_name("[red]bus.jpg")
    picture.write_bytes(b"jpeg")
    assert visavis("detect", picture, picture.with_name("[red]missing.jpg"), "--model", "m") == 1
    out, err = capsys.readouterr()
    assert out.count(text) == 2
    assert "[red]bus.jpg" in out
    assert "[red]missing.jpg" in err


def test_untrusted_text_cannot_control_the_terminal(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    detections = canned.boxes(("\x1b]0;owned\x07bus\r\x9b2J\u202e", 0.9, (1, 2, 3, 4)))
    fake.answers["Detect"] = lambda request, context: pb.DetectResponse(detections=detections)
    assert visavis("detect", pictures[0], "--model", "m") == 0
    assert not set("\x1b\x07\r\x9b\u202e") & set(capsys.readouterr().out)


@given(st.text())
def test_plain_text_is_one_printable_line(text: str):
    assert plain(text).isprintable()
    assert len(plain(text)) == len(text)


@given(st.text().filter(str.isprintable))
def test_plain_text_keeps_printable_characters(text: str):
    assert plain(text) == text
