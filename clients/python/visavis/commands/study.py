"""`visavis compare` of a folder: every model on every picture, counted and held to limits."""

import asyncio
import contextlib
import importlib
import json as jsonlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import typer
from rich.table import Table

from visavis.bench.own_server import own_server
from visavis.cards import Model, Task
from visavis.client import Client
from visavis.commands.application import application_installed
from visavis.commands.compare_options import FolderOptions
from visavis.commands.console import complain, plain, stderr, stdout
from visavis.commands.failures import sentence
from visavis.commands.progress import Progress
from visavis.dataset import find_pictures, without_pictures
from visavis.dataset.names import posix
from visavis.dataset.truth import read_truth
from visavis.errors import InvalidData, InvalidSettings, VisavisError
from visavis.peers import PeeredClient

if TYPE_CHECKING:
    from visavis.evaluation.answers import AnswersFile, PictureAnswers
    from visavis.evaluation.gate import Check
    from visavis.evaluation.study import Study, Truths

_MANY_FAILURES = 5


def compare_folder(given: Sequence[str], options: FolderOptions) -> None:
    """Compare models on all pictures. Exit codes: 0 passed, 1 a limit is broken, 2 not done."""
    with _not_done():
        _require_numpy()
        # Imported here: NumPy and pycocotools come with the extra `compare`.
        from visavis.evaluation import gate

        previous = _previous(options)
        least = gate.limits(options.fail_under, "--fail-under")
        most = gate.limits(options.max_drop, "--max-drop")
        if most and previous is None:
            raise InvalidSettings("--max-drop needs --baseline FILE.json, an earlier comparison")
        folder, pictures = _pictures(given)
        with _server(options) as server, _client(server, options) as client:
            result, answers = _studied(client, server, folder, pictures, options)
        checks = list(gate.fail_under(result, least)) if least else []
        if most and previous is not None:
            checks += gate.max_drop(result, most, previous)
        _print(result, checks)
        if options.within_ms is not None:
            from visavis.evaluation import choice

            for task in result.tasks:
                sentence_ = choice.sentence(task, options.within_ms)
                stdout().print(plain(sentence_), style="bold", soft_wrap=True)
        _write(result, checks, options)
        if options.report is not None:
            from visavis.evaluation import report

            files = {posix(path.relative_to(folder)): path for path in pictures}
            _save(options.report, report.html(result, answers, files, checks))
        outcome = gate.outcome(checks)
        if outcome is gate.Outcome.FAILED or (
            options.strict and outcome is gate.Outcome.CANNOT_TELL
        ):
            raise typer.Exit(1)


def _studied(
    client: Client, server: str, folder: Path, pictures: Sequence[Path], options: FolderOptions
) -> "tuple[Study, list[PictureAnswers]]":
    from visavis.evaluation.answers import AnswersFile, Source, collect, compared_models
    from visavis.evaluation.study import study

    models = compared_models(client, options.models, options.tasks)
    truths = _truths(models, folder, pictures, options.labels)
    paths = {posix(path.relative_to(folder)): path for path in pictures}
    source = Source(server, options.timeout, options.callers, options.peers)

    async def ask(kept: "AnswersFile", progress: Progress) -> None:
        async for _ in collect(source, models, paths, kept):
            progress.advance()

    with _answers_file(options) as file:
        kept = AnswersFile(file, models)
        with Progress(len(paths)) as progress:
            asyncio.run(ask(kept, progress))
        answers = list(kept.read(set(paths)))
    baseline = None if _is_file(options.baseline) else options.baseline
    return study(models, answers, truths, baseline), answers


def _truths(
    models: Sequence[Model], folder: Path, pictures: Sequence[Path], labels: Path | None
) -> "dict[Task, Truths]":
    """Return the truth of each task by path. Raises InvalidData if --labels gave none."""
    truths: dict[Task, Truths] = {}
    for task in Task:
        capable = [model for model in models if task in model.tasks]
        if capable:
            names = capable[0].label_set.labels
            found = read_truth(folder, pictures, labels, task, names)
            truths[task] = {posix(one.path.relative_to(folder)): one.truth for one in found}
    if labels is not None and not any(truths.values()):
        raise InvalidData(f"--labels {labels} tells nothing that the compared models can do")
    return truths


def _pictures(given: Sequence[str]) -> tuple[Path, list[Path]]:
    """Return the folder that paths are relative to, and the pictures."""
    paths = [Path(name) for name in given]
    if len(paths) == 1 and paths[0].is_dir():
        pictures = find_pictures(paths[0])
        if not pictures:
            raise InvalidData(f"the folder {paths[0]} {without_pictures(paths[0])}")
        return paths[0], pictures
    chosen: list[Path] = []
    for path in paths:
        chosen += find_pictures(path) if path.is_dir() else [path]
    if not chosen:
        raise InvalidData("there is no picture to compare")
    common = Path(*_common_parts([path.absolute().parent for path in chosen]))
    return common, [path.absolute() for path in chosen]


def _common_parts(folders: Sequence[Path]) -> Iterator[str]:
    for parts in zip(*(folder.parts for folder in folders), strict=False):
        if len(set(parts)) > 1:
            return
        yield parts[0]


@contextlib.contextmanager
def _not_done() -> Iterator[None]:
    """End with exit code 2 where the comparison cannot be made: 1 is for a broken limit."""
    try:
        yield
    except VisavisError as error:
        complain(sentence(error))
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _server(options: FolderOptions) -> Iterator[str]:
    """Yield the server's address; with --repository, of one that runs as long as it is needed."""
    if options.repository is None:
        yield options.server
        return
    if not application_installed():
        raise InvalidSettings(
            "--repository needs the application; install it: pip install visavis-server"
        )
    with own_server(options.repository) as server:
        yield server.address


def _client(server: str, options: FolderOptions) -> Client:
    if options.peers:
        return PeeredClient(server, options.peers, timeout=options.timeout)
    return Client(server, timeout=options.timeout)


@contextlib.contextmanager
def _answers_file(options: FolderOptions) -> Iterator[Path]:
    if options.answers is not None:
        yield options.answers
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "answers.jsonl"


def _previous(options: FolderOptions) -> Path | None:
    return Path(options.baseline) if options.baseline and _is_file(options.baseline) else None


def _is_file(baseline: str | None) -> bool:
    return baseline is not None and baseline.endswith(".json")


def _print(result: "Study", checks: "Sequence[Check]") -> None:
    from visavis.evaluation.outputs import pairs_table, table, verdicts

    console = stdout()
    for line in verdicts(result):
        console.print(plain(line), style="bold", soft_wrap=True)
    for task in result.tasks:
        console.print(
            f"\n{task.task.value.capitalize()}, {result.pictures} pictures"
            f" ({task.labelled} with truth)"
        )
        for header, rows in (table(task), pairs_table(task)):
            if rows:
                shown = Table()
                for name in header:
                    shown.add_column(name, overflow="fold")
                for row in rows:
                    shown.add_row(*map(plain, row))
                console.print(shown)
        suspects = [one for one in task.disagreements if one.suspect]
        if suspects:
            console.print(f"{len(suspects)} labels look wrong: all models agree on another class")
            for one in suspects[:_MANY_FAILURES]:
                said = next(iter(one.answers.values()))
                console.print(plain(f"  {one.path}: {one.truth}, the models say {said}"))
    for path, why in list(result.failures.items())[:_MANY_FAILURES]:
        complain(why, about=path)
    if len(result.failures) > _MANY_FAILURES:
        stderr().print(f"… and {len(result.failures) - _MANY_FAILURES} more pictures failed")
    for check in checks:
        console.print(plain(f"{check.outcome.value}: {check.model}: {check.why}"), soft_wrap=True)


def _write(result: "Study", checks: "Sequence[Check]", options: FolderOptions) -> None:
    from visavis.evaluation import outputs

    texts: dict[Path | None, Callable[[], str]] = {
        options.json: lambda: jsonlib.dumps(outputs.to_json(result, checks), indent=1) + "\n",
        options.csv: lambda: outputs.to_csv(result),
        options.markdown: lambda: outputs.to_markdown(result, checks),
        options.junit: lambda: _junit(checks),
    }
    for path, text in texts.items():
        if path is not None:
            _save(path, text())


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be written: {error.strerror}") from None


def _junit(checks: "Sequence[Check]") -> str:
    """Return the checks as JUnit's XML, as pipelines read it."""
    from visavis.evaluation.gate import Outcome

    failed = [check for check in checks if check.outcome is Outcome.FAILED]
    skipped = [check for check in checks if check.outcome is Outcome.CANNOT_TELL]
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
            ElementTree.SubElement(case, "failure", message=check.why)
        elif check in skipped:
            ElementTree.SubElement(case, "skipped", message=f"can't tell: {check.why}")
    return ElementTree.tostring(suite, encoding="unicode") + "\n"


def _require_numpy() -> None:
    try:
        for module in ("numpy", "pycocotools", "jinja2", "PIL"):
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InvalidSettings(
            f"comparing a folder needs {error.name}: pip install 'visavis[compare]'"
        ) from None
