"""Detectors side by side: what each found, and which boxes are the same."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from visavis.commands.answer_tables import plain_table, score
from visavis.commands.console import plain
from visavis.commands.side_by_side import NOTHING, Column, SideBySide, model_header, time_cells
from visavis.results import Detection, DetectionAgreement, ModelAnswer, TaskComparison

_ROWS_MAX = 40


def detection_tables(task: TaskComparison) -> Iterator[RenderableType]:
    """Yield the detectors in numbers, then their boxes with matched pairs on one line."""
    if not task.answers:
        return
    yield Text()
    yield _summary(task)
    answered = [answer for answer in task.answers if answer.status.ok]
    answered.sort(key=lambda answer: answer.served_by.model != task.baseline)
    rows = list(_rows(task, answered))
    if rows:
        yield SideBySide(
            corner="box: x, y to x, y",
            rows=[_edges(detection) for detection, _ in rows[:_ROWS_MAX]],
            columns=[
                Column(
                    model_header(answer.served_by, brief=True),
                    [cells[index] for _, cells in rows[:_ROWS_MAX]],
                )
                for index, answer in enumerate(answered)
            ],
        )
    if len(rows) > _ROWS_MAX:
        yield Text(f"… and {len(rows) - _ROWS_MAX} more; --json has them all", style="dim")


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


def _rows(
    task: TaskComparison, answered: Sequence[ModelAnswer]
) -> Iterator[tuple[Detection, list[Text]]]:
    """Yield a detection and every model's cell for it.

    First the baseline's, each with what matches it in the others; then, model by model, what
    matches none of the baseline's.
    """
    pairs = [_pairs(answer) for answer in answered]
    first_other = 0
    if answered and answered[0].served_by.model == task.baseline:
        first_other = 1
        for index, detection in enumerate(answered[0].detections):
            cells = [_found(detection)]
            for answer, matches in zip(answered[1:], pairs[1:], strict=True):
                cells.append(_matched(answer, matches.get(index)))
            yield detection, cells
    for column in range(first_other, len(answered)):
        matched = {index for index, _ in pairs[column].values()}
        for index, detection in enumerate(answered[column].detections):
            if index not in matched:
                cells = [NOTHING] * len(answered)
                cells[column] = _found(detection)
                yield detection, cells


def _pairs(answer: ModelAnswer) -> dict[int, tuple[int, float]]:
    """Return, by the index of a detection of the baseline, the index of its match and the IoU."""
    if not isinstance(answer.agreement, DetectionAgreement):
        return {}
    return {
        match.baseline_index: (match.index, match.iou)
        for match in answer.agreement.matches
        if match.index in range(len(answer.detections))
    }


def _found(detection: Detection) -> Text:
    return Text(f"{score(detection.score)} {plain(detection.label)}")


def _matched(answer: ModelAnswer, match: tuple[int, float] | None) -> Text:
    if match is None:
        return NOTHING
    index, iou = match
    text = _found(answer.detections[index])
    return text.append(f" IoU {iou:.2f}", style="dim")


def _edges(detection: Detection) -> Text:
    x_min, y_min, x_max, y_max = detection.box.xyxy
    return Text(f"{x_min:.0f}, {y_min:.0f} to {x_max:.0f}, {y_max:.0f}")
