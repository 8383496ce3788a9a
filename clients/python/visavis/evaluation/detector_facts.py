"""Pictures on which detectors are wrong or differ, and what each does there."""

from collections.abc import Iterator

from visavis.evaluation.detector_runs import Detectors
from visavis.evaluation.error_types import RIGHT, JudgedBox
from visavis.evaluation.figures import NOTHING, Disagreement, Fact
from visavis.evaluation.runs import shown_boxes
from visavis.evaluation.shared_classes import Names


def disagreements(all_: Detectors) -> list[Disagreement]:
    """Return pictures where a model differs from the truth or from the baseline.

    The most different from the baseline first.
    """
    found = []
    for one in all_.answers:
        facts = _facts(all_, one.path)
        if not facts:
            continue
        against = {n: all_.against[n].get(one.path) for n in all_.against}
        worst = min((own.f1 for own in against.values() if own), default=1.0)
        answers = {}
        for model in all_.models:
            run = one.runs.get(model.name)
            if run is not None and not run.failure:
                count, own = len(shown_boxes(model, run).scores), against.get(model.name)
                text = f"{count} box{'es' * (count != 1)}"
                answers[model.name] = f"{text}, F1 {own.f1:.2f}" if own else text
        truth = all_.truths.get(one.path)
        objects = "" if truth is None else _counted(len(truth.real.scores))
        found.append((worst, Disagreement(one.path, answers, objects, facts=facts)))
    return [one for _, one in sorted(found, key=lambda each: (each[0], each[1].path))]


def _counted(objects: int) -> str:
    return f"{objects} object{'s' * (objects != 1)}"


def _facts(all_: Detectors, path: str) -> tuple[Fact, ...]:
    facts: dict[Fact, None] = {}  # each once, in this order
    names_of_baseline = all_.names[all_.baseline.name]
    for model in all_.models:
        own, names = all_.against.get(model.name, {}).get(path), all_.names[model.name]
        if own is not None:
            kinds = {
                "fixed": own.fixed,
                "broke": own.broke,
                "here": own.only_here,
                "baseline": own.only_there,
            }
            for kind, ids in kinds.items():
                for class_id in ids:
                    facts[Fact(model.name, kind, names_of_baseline[class_id])] = None
        picture = all_.judged.get(model.name, {}).get(path)
        if picture is None:
            continue
        for class_id in picture.missed:
            facts[Fact(model.name, "missed", names[class_id], NOTHING)] = None
        for box in picture.boxes:
            if box.kind != RIGHT:
                facts |= dict.fromkeys(_of_box(model.name, box, names))
    return tuple(facts)


def _of_box(model: str, box: JudgedBox, names: Names) -> Iterator[Fact]:
    """Yield the facts about a wrong box: those that the confusion matrix counts."""
    confused = box.kind == "class" and box.becomes is not None
    truth = names[box.truth] if confused and box.truth is not None else NOTHING
    yield Fact(model, box.kind, truth, names[box.class_id])
    if box.kind == "place" and box.becomes is not None:
        yield Fact(model, "place", names[box.becomes], NOTHING)
