"""The figures of models on a folder of pictures: accuracy, agreement, differences and cost."""

from collections.abc import Mapping, Sequence

from visavis.cards import Model, Task
from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.classifiers import classifiers
from visavis.evaluation.detectors import detectors
from visavis.evaluation.figures import Cost, Study, Truths
from visavis.evaluation.slices import parts


def study(
    models: Sequence[Model],
    answers: Sequence[PictureAnswers],
    truths: Mapping[Task, Truths],
    baseline: str | None = None,
    brightness: Mapping[str, float] | None = None,
    costs: Mapping[str, Cost] | None = None,
) -> Study:
    """Return what the answers show.

    truths: class ids are those of the task's first model; other models are measured by name, on
    the classes that they know. baseline: of each task's models; else the first. brightness: the
    mean luma of pictures by path. costs: of models, where they were measured.
    """
    failures = {one.path: one.failure for one in answers if one.failure}
    answered = [one for one in answers if not one.failure]
    tasks = []
    for task in Task:
        capable = [model for model in models if task in model.tasks]
        if capable:
            names = [model.name for model in capable]
            first = capable[names.index(baseline)] if baseline in names else capable[0]
            known = truths.get(task, {})
            # Pictures without truth say nothing about accuracy.
            counted = [one for one in answered if not known or one.path in known]
            found = parts(counted, brightness or {})
            build = detectors if task is Task.DETECTION else classifiers
            tasks.append(build(capable, first, answered, known, found, costs or {}))
    return Study(len(answers), failures, tuple(tasks))
