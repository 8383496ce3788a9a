"""The boxes and the agreement of detectors, side by side."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from visavis.commands.answer_tables import plain_table, score
from visavis.commands.console import plain
from visavis.commands.side_by_side import NOTHING, Column, SideBySide, model_header, time_cells
from visavis.results import Detection, DetectionAgreement, ModelAnswer, TaskComparison

_ROWS_MAX = 20  # Per model.


def detection_tables(task: TaskComparison) -> Iterator[RenderableType]:
    """Yield the counts and agreement of all detectors, then their boxes, one match per line."""
    if not task.answers:
        return
    yield Text()
    yield _summary(task)
    answered = [answer for answer in task.answers if answer.status.ok]
    answered.sort(key=lambda answer: answer.served_by.model != task.baseline)
    sections = [list(section) for section in _sections(task, answered)]
    rows = [row for section in sections for row in section[:_ROWS_MAX]]
    if rows:
        yield SideBySide(
            corner="box: x, y to x, y",
            rows=[_edges(detection) for detection, _ in rows],
            columns=[
                Column(
                    model_header(answer.served_by, brief=True),
                    [cells[index] for _, cells in rows],
                )
                for index, answer in enumerate(answered)
            ],
        )
    left = sum(map(len, sections)) - len(rows)
    if left:
        yield Text(f"… and {left} more; --json prints all", style="dim")


def _summary(task: TaskComparison) -> RenderableType:
    table = plain_table()
    table.add_column("model", overflow="fold")
    several = len(task.answers) > 1
    columns = ["boxes"]
    if several:
        columns += ["pairs", "only\nhere", "only\nbase", "mean\nIoU", "score\ndiff", "F1"]
    for column in [*columns, "model\nms", "total\nms"]:
        table.add_column(column, justify="right", no_wrap=True)
    for answer in task.answers:
        is_baseline = several and answer.served_by.model == task.baseline
        header = model_header(answer.served_by, baseline=is_baseline)
        boxes = Text(str(len(answer.detections))) if answer.status.ok else Text("—", style="red")
        measures = _measures(answer.agreement) if several else []
        table.add_row(header, boxes, *measures, *time_cells(answer.timings), end_section=True)
    return table


def _measures(agreement: object) -> list[Text]:
    if not isinstance(agreement, DetectionAgreement):
        return [NOTHING] * 6
    return [
        Text(str(agreement.matched)),
        Text(str(agreement.only_here)),
        Text(str(agreement.only_in_baseline)),
        _measure(agreement.mean_iou),
        _measure(agreement.mean_score_difference),
        _measure(agreement.f1),
    ]


def _measure(value: float | None) -> Text:
    return NOTHING if value is None else Text(score(value))


def _sections(
    task: TaskComparison, answered: Sequence[ModelAnswer]
) -> Iterator[Iterator[tuple[Detection, list[Text]]]]:
    """Yield a section of rows per model; a row is a detection and each model's cell for it.

    The baseline's section has all its detections, each with its matches in the other models. The
    other sections have the detections that match none of the baseline's.
    """
    pairs = [_pairs(answer) for answer in answered]
    for column, answer in enumerate(answered):
        if answer.served_by.model == task.baseline:
            yield _baseline_rows(answered, pairs)
        else:
            yield _unmatched_rows(answered, column, {index for index, _ in pairs[column].values()})


def _baseline_rows(
    answered: Sequence[ModelAnswer], pairs: Sequence[dict[int, tuple[int, float]]]
) -> Iterator[tuple[Detection, list[Text]]]:
    for index, detection in enumerate(answered[0].detections):
        others = zip(answered[1:], pairs[1:], strict=True)
        cells = [_matched(answer, matches.get(index)) for answer, matches in others]
        yield detection, [_cell(detection), *cells]


def _unmatched_rows(
    answered: Sequence[ModelAnswer], column: int, matched: set[int]
) -> Iterator[tuple[Detection, list[Text]]]:
    for index, detection in enumerate(answered[column].detections):
        if index not in matched:
            cells = [NOTHING] * len(answered)
            cells[column] = _cell(detection)
            yield detection, cells


def _pairs(answer: ModelAnswer) -> dict[int, tuple[int, float]]:
    """Return the index and the IoU of each match, by the index of the baseline's detection."""
    if not isinstance(answer.agreement, DetectionAgreement):
        return {}
    return {
        match.baseline_index: (match.index, match.iou)
        for match in answer.agreement.matches
        if match.index in range(len(answer.detections))
    }


def _cell(detection: Detection) -> Text:
    return Text(f"{score(detection.score)} {plain(detection.label)}")


def _matched(answer: ModelAnswer, match: tuple[int, float] | None) -> Text:
    if match is None:
        return NOTHING
    index, iou = match
    text = _cell(answer.detections[index])
    return text.append(f" IoU {iou:.2f}", style="dim")


def _edges(detection: Detection) -> Text:
    x_min, y_min, x_max, y_max = detection.box.xyxy
    return Text(f"{x_min:.0f}, {y_min:.0f} to {x_max:.0f}, {y_max:.0f}")
