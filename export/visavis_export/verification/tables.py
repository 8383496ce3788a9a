"""A verification as a person reads it: the verdict first, then stages, then pictures."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text
from visavis.commands.answer_tables import plain_table
from visavis.commands.console import plain

from visavis_export.verification.outcome import Finding, Outcome, PictureOutcome, Stage

_MOST_PICTURES = 20
_INDENT = "  "


def outcome_tables(outcome: Outcome) -> RenderableType:
    """Return the outcome: verdict, reasons, stages, and the pictures that differ."""
    return Group(*_parts(outcome))


def _parts(outcome: Outcome) -> Iterator[RenderableType]:
    same = outcome.file_is_same
    yield Text.assemble(
        (plain(outcome.file), "bold"),
        " against ",
        (plain(outcome.original), "bold"),
        ": ",
        ("same", "bold green") if same else ("differs", "bold red"),
    )
    if not same:
        yield Text(f"The difference begins in the {outcome.begins}.", style="bold")
    yield from _reasons(outcome.findings)
    yield Text()
    yield _stages(outcome)
    differing = [one for one in outcome.pictures if not (one.same and one.answers.same)]
    if differing:
        yield Text()
        yield _pictures(differing[:_MOST_PICTURES])
        if len(differing) > _MOST_PICTURES:
            yield Text(f"… and {len(differing) - _MOST_PICTURES} more; --json has all", style="dim")
    if outcome.theirs is not None:
        yield Text()
        mine = ("same", "bold green") if not outcome.theirs else ("differs", "bold red")
        yield Text.assemble("Your own input or answers: ", mine)
        yield from _reasons(outcome.theirs)
    for note in outcome.notes:
        yield Text(f"\nnote: {plain(note)}", style="dim")


def _reasons(findings: tuple[Finding, ...]) -> Iterator[Text]:
    for one in findings:
        yield Text.assemble(
            f"{_INDENT}{one.stage}: ",
            (plain(one.says), "bold"),
            "" if not one.todo else f"\n{_INDENT * 2}→ {plain(one.todo)}",
        )


def _stages(outcome: Outcome) -> RenderableType:
    table = plain_table()
    table.add_column("stage")
    table.add_column("result")
    table.add_column("pictures", justify="right")
    table.add_column("largest difference")
    for stage in Stage:
        different = sum(not one.stages[stage].same for one in outcome.pictures)
        marked = bool(different) or any(one.stage is stage for one in outcome.findings)
        result = Text("differs", "red") if marked else Text("same", "green")
        count = (
            f"{different} of {len(outcome.pictures)}" if different else str(len(outcome.pictures))
        )
        table.add_row(stage.value, result, count, _largest(outcome, stage))
    both, here, there = (
        sum(getattr(one.answers, name) for one in outcome.pictures)
        for name in ("both", "only_file", "only_original")
    )
    alike = f"{both} in both" + (
        f", {here} only file, {there} only PyTorch" if here or there else ""
    )
    ties = (here or there) and outcome.file_is_same
    answered = Text("differs", "red") if (here or there) and not ties else Text("same", "green")
    if ties:
        alike += " (near ties)" if outcome.precision == "fp32" else f" ({outcome.precision})"
    table.add_row("answers", answered, str(len(outcome.pictures)), alike)
    return table


def _largest(outcome: Outcome, stage: Stage) -> str:
    if stage is Stage.PREPROCESSING:
        levels = [one.levels for one in outcome.pictures]
        return (
            "another size"
            if None in levels
            else f"{_number(max(filter(None, levels), default=0))} grey levels"
        )
    differences = [one.stages[stage] for one in outcome.pictures]
    score = max(one.score for one in differences)
    boxes = [one.box_px for one in differences if one.box_px is not None]
    if stage is Stage.POSTPROCESSING and not score:
        return "—"
    return f"score {_number(score)}" + (f", box {_number(max(boxes))} px" if boxes else "")


def _pictures(pictures: list[PictureOutcome]) -> RenderableType:
    table = plain_table()
    table.add_column("picture", overflow="fold")
    table.add_column("begins in")
    for header in (
        "input\nlevels",
        "graph\nscore",
        "graph\nbox px",
        "in\nboth",
        "only\nfile",
        "only\nPyTorch",
    ):
        table.add_column(header, justify="right")
    for one in pictures:
        begins = next((stage.value for stage in Stage if not one.stages[stage].same), "")
        graph = one.stages[Stage.GRAPH]
        table.add_row(
            plain(one.name),
            begins or "—",
            "other size" if one.levels is None else _number(one.levels),
            _number(graph.score),
            "—" if graph.box_px is None else _number(graph.box_px),
            str(one.answers.both),
            str(one.answers.only_file),
            str(one.answers.only_original),
        )
    return table


def _number(value: float) -> str:
    """Return a figure with two digits, and without an exponent from 100 on."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"
