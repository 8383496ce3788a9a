"""The files that a comparison of a folder writes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from visavis.cards import Task
from visavis.commands.compare_options import FolderOptions
from visavis.errors import InvalidSettings
from visavis.evaluation import fiftyone, outputs, report
from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.figures import Study, Truths
from visavis.evaluation.gate import Check, Outcome


@dataclass(frozen=True)
class Compared:
    """A comparison and what it rests on. pictures: files by path. truths: by task and path."""

    study: Study
    answers: list[PictureAnswers]
    pictures: Mapping[str, Path]
    truths: Mapping[Task, Truths]


def write(compared: Compared, checks: Sequence[Check], options: FolderOptions) -> None:
    """Write the files that were asked for. Raises InvalidSettings where one cannot be written."""
    study = compared.study
    texts: dict[Path | None, Callable[[], str]] = {
        options.json: lambda: json.dumps(outputs.to_json(study, checks), indent=1) + "\n",
        options.csv: lambda: outputs.to_csv(study),
        options.csv_slices: lambda: outputs.slices_to_csv(study),
        options.csv_confusion: lambda: outputs.confusion_to_csv(study),
        options.markdown: lambda: outputs.to_markdown(study, checks),
        options.junit: lambda: junit(checks, strict=options.strict),
        options.report: lambda: report.html(
            study, compared.answers, compared.pictures, compared.truths, checks
        ),
    }
    for path, text in texts.items():
        if path is not None:
            _save(path, text())
    if options.fiftyone is not None:
        try:
            fiftyone.write(
                options.fiftyone, study, compared.answers, compared.pictures, compared.truths
            )
        except OSError as error:
            raise InvalidSettings(
                f"{options.fiftyone} cannot be written: {error.strerror}"
            ) from None


def junit(checks: Sequence[Check], *, strict: bool) -> str:
    """Return the checks as JUnit's XML, as pipelines read it.

    strict: what can't be told is a failure, as it is for the exit code.
    """
    untold = [check for check in checks if check.outcome is Outcome.CANNOT_TELL]
    failed = [check for check in checks if check.outcome is Outcome.FAILED]
    failed, skipped = (failed + untold, []) if strict else (failed, untold)
    suite = ElementTree.Element(
        "testsuite",
        name="visavis compare",
        tests=str(len(checks)),
        failures=str(len(failed)),
        skipped=str(len(skipped)),
    )
    for check in checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=check.model, name=f"{check.model}: {check.metric}"
        )
        if check in failed:
            ElementTree.SubElement(case, "failure", message=f"{check.outcome.value}: {check.why}")
        elif check in skipped:
            ElementTree.SubElement(case, "skipped", message=f"can't tell: {check.why}")
    return ElementTree.tostring(suite, encoding="unicode") + "\n"


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be written: {error.strerror}") from None
