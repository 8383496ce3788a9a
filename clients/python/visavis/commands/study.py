"""`visavis compare` of a folder: every model on every picture, counted and held to limits."""

import asyncio
import contextlib
import importlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from visavis.cards import Model, Task
from visavis.client import Client
from visavis.commands import unexpected
from visavis.commands.compare_options import FolderOptions
from visavis.commands.console import complain, plain, stderr
from visavis.commands.failures import sentence
from visavis.commands.output_files import require_writable, require_writable_folder
from visavis.commands.progress import Progress
from visavis.commands.serving import served
from visavis.dataset.given import given_pictures
from visavis.dataset.names import posix
from visavis.dataset.truth import FORMS, give_class_ids, read_truth
from visavis.errors import InvalidData, InvalidSettings, VisavisError
from visavis.peers import client_of

if TYPE_CHECKING:
    from visavis.commands.study_files import Compared
    from visavis.dataset.labels import Truth
    from visavis.evaluation.answers import AnswersFile
    from visavis.evaluation.collection import Source
    from visavis.evaluation.figures import Cost, Study, Truths


def compare_folder(given: Sequence[str], options: FolderOptions) -> None:
    """Compare models on all pictures. Exit codes: 0 passed, 1 a limit is broken, 2 not done."""
    with _not_done():
        _require_numpy()
        # Imported here: NumPy and pycocotools come with the extra `compare`.
        from visavis.commands import study_files, study_tables
        from visavis.evaluation import gate

        previous = _previous(options)
        least = gate.limits(options.fail_under, "--fail-under")
        most = gate.limits(options.max_drop, "--max-drop")
        if most and previous is None:
            raise InvalidSettings("--max-drop needs --baseline FILE.json, an earlier comparison")
        if options.cost and options.repository is None:
            raise InvalidSettings("--cost needs --repository: it serves each model on its own")
        before = gate.read_previous(previous) if previous else {}
        _require_files(options)
        folder, pictures = given_pictures(given)
        with (
            served(options.server, options.repository) as server,
            client_of(server, options.peers, options.timeout) as client,
        ):
            compared = _compared(client, server, folder, pictures, options)
        _require_answers(compared.study)
        checks = list(gate.fail_under(compared.study, least)) if least else []
        if most:
            checks += gate.max_drop(compared.study, most, before)
        study_tables.show(compared.study, checks, options.within_ms)
        study_files.write(compared, checks, options)
        if checks and (silent := gate.unanswered(compared.study)):
            raise InvalidData(
                f"{silent.card.name} answered no picture, so that no limit holds it: {silent.why}"
            )
        outcome = gate.outcome(checks)
        if outcome is gate.Outcome.FAILED or (
            options.strict and outcome is gate.Outcome.CANNOT_TELL
        ):
            raise typer.Exit(1)


def _require_answers(study: "Study") -> None:
    """Raise InvalidData if no picture was answered: nothing was compared, and no limit holds."""
    if len(study.failures) == study.pictures:
        path, why = next(iter(study.failures.items()))
        raise InvalidData(f"none of the pictures is answered ({study.pictures}): {path}: {why}")


def _require_files(options: FolderOptions) -> None:
    """Raise an error, before any work is done, for files that can't be read or written."""
    for labels in options.labels:
        if not labels.exists():
            raise InvalidData(f"--labels {labels} does not exist; give a file or folder of labels")
    require_writable(
        options.report,
        options.json,
        options.csv,
        options.csv_slices,
        options.csv_confusion,
        options.markdown,
        options.junit,
    )
    require_writable_folder(options.fiftyone)


def _compared(
    client: Client, server: str, folder: Path, pictures: Sequence[Path], options: FolderOptions
) -> "Compared":
    from visavis.commands.study_files import Compared
    from visavis.evaluation.answers import AnswersFile
    from visavis.evaluation.brightness import brightness
    from visavis.evaluation.collection import Source, compared_models
    from visavis.evaluation.study import study

    models = compared_models(client, options.models, options.tasks)
    truths = _truths(models, folder, pictures, options)
    paths = {posix(path.relative_to(folder)): path for path in pictures}
    source = Source(server, options.timeout, options.callers, peers=options.peers)
    with _answers_file(options) as file:
        kept = AnswersFile(file, models)
        with _going_on_from(options.answers):
            _ask(source, models, paths, kept)
        with stderr().status("reading the answers"):
            answers = list(kept.read(set(paths)))
    costs = _costs(models, pictures, options)
    baseline = None if _is_file(options.baseline) else options.baseline
    with stderr().status("measuring"):
        bright = brightness(paths)
        result = study(models, answers, truths, baseline, bright, costs)
    return Compared(result, answers, paths, truths)


def _ask(
    source: "Source", models: Sequence[Model], paths: "dict[str, Path]", kept: "AnswersFile"
) -> None:
    """Ask about all pictures that have no answer yet, and say how long that took."""
    from visavis.evaluation.collection import collect
    from visavis.evaluation.words import counted_pictures

    asked = 0

    async def ask(progress: Progress) -> None:
        nonlocal asked
        async for answers in collect(source, models, paths, kept):
            asked += answers is not None
            progress.advance()

    began = time.monotonic()
    with Progress(len(paths)) as progress:
        asyncio.run(ask(progress))
    seconds = time.monotonic() - began
    if asked:
        before = f"; {len(paths) - asked} were answered before" if asked < len(paths) else ""
        rate = f"{asked / seconds:.1f} per second"
        stderr().print(f"{counted_pictures(asked)} in {seconds:.1f} s, {rate}{before}")


def _costs(
    models: Sequence[Model], pictures: Sequence[Path], options: FolderOptions
) -> "dict[str, Cost]":
    """Return what each model costs on a server of its own; nothing unless that is asked for."""
    from visavis.bench.alone import measured_alone
    from visavis.evaluation.figures import Cost

    costs: dict[str, Cost] = {}
    if not options.cost or options.repository is None:
        return costs
    # A peer's models are not in the repository.
    own = [model for model in models if not (options.peers and "@" in model.name)]
    for model in own:
        with stderr().status(f"measuring {model.name} on its own"):
            alone = measured_alone(options.repository, model, pictures, options.cost)
        if alone.per_s:
            memory = alone.server_rss_mib
            costs[model.name] = Cost(
                alone.per_s,
                alone.server_cpu_ms,
                None if memory is None else round(memory * (1 << 20)),
            )
    return costs


def _truths(
    models: Sequence[Model], folder: Path, pictures: Sequence[Path], options: FolderOptions
) -> "dict[Task, Truths]":
    """Return the truth of each task by path. Raises InvalidData if one of --labels gave none."""
    from visavis.evaluation.label_sizes import require_sizes

    labels = options.labels
    truths: dict[Task, Truths] = {}
    told: set[Path] = set()
    for task in Task:
        capable = [model for model in models if task in model.tasks]
        if not capable:
            continue
        names = capable[0].label_set.labels
        known: dict[str, int | tuple[Truth, ...]] = {}
        left_out = Counter[str]()
        truths[task] = known
        for given in labels or (None,):
            labelled = read_truth(folder, pictures, given, task, names, left_out)
            require_sizes(labelled)
            found = {posix(one.path.relative_to(folder)): one.truth for one in labelled}
            if twice := known.keys() & found.keys():
                raise InvalidData(
                    f"--labels {given} has a truth for {min(twice)}, as another --labels has; keep "
                    "one of the two"
                )
            if found and give_class_ids(folder, pictures, given):
                _require_meaning(capable, are_named=bool(options.models))
            known.update(found)
            if given is not None and found:
                told.add(given)
        _note_odd(capable[0], known, left_out)
    for given in labels:
        if given not in told:
            tasks = " or ".join(truths)
            raise InvalidData(f"--labels {given} has no truth for {tasks}; give {FORMS}")
    return truths


def _note_odd(model: Model, known: "Truths", left_out: Counter[str]) -> None:
    """Say which objects do not count, and how many pictures have none: names may be misspelt."""
    from visavis.evaluation.words import counted_pictures

    if left_out:
        names = ", ".join(f"{name[:80]!r} ({count})" for name, count in left_out.most_common(5))
        more = f" and {len(left_out) - 5} more classes" if len(left_out) > 5 else ""
        stderr().print(
            plain(f"Objects of classes that {model.name} lacks do not count: {names}{more}.")
        )
    empty = sum(truth == () for truth in known.values())
    if empty:
        stderr().print(f"Without a labelled object: {empty} of {counted_pictures(len(known))}.")


def _require_meaning(models: Sequence[Model], *, are_named: bool) -> None:
    """Say whose class ids labels are read as, where models have different ones.

    are_named: the caller named the models, in an order. Raises InvalidData if nothing says whose.
    """
    from visavis.evaluation.shared_classes import have_same_ids

    first = models[0]
    other = next((one for one in models if not have_same_ids(one, first)), None)
    if other is None:
        return
    sets = (
        f"the class ids of {first.name} ({first.label_set.name}) and of {other.name} "
        f"({other.label_set.name}) mean different classes"
    )
    if not are_named:
        raise InvalidData(
            f"the labels have class ids, and {sets}; list the models with --models, and first one "
            "whose class ids the labels have"
        )
    stderr().print(
        f"{sets[0].upper()}{sets[1:]}: the labels are read as those of {first.name}, the first of "
        "--models."
    )


@contextlib.contextmanager
def _not_done() -> Iterator[None]:
    """End with exit code 2 where the comparison cannot be made: 1 is for a broken limit."""
    try:
        yield
    except VisavisError as error:
        complain(sentence(error))
        _print_notes(error)
        raise typer.Exit(2) from error
    except (OSError, MemoryError) as error:
        code = unexpected.report(error)
        _print_notes(error)
        raise typer.Exit(code if code == unexpected.FAULT else 2) from error
    except KeyboardInterrupt as error:
        _print_notes(error)
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _going_on_from(answers: Path | None) -> Iterator[None]:
    """Note on an error that the answers are kept, if they are."""
    try:
        yield
    except (VisavisError, OSError, MemoryError, KeyboardInterrupt) as error:
        if answers is not None:
            error.add_note(
                f"The answers so far are in {answers}: the same command goes on from there."
            )
        raise


def _print_notes(error: BaseException) -> None:
    for note in getattr(error, "__notes__", ()):
        stderr().print(plain(note), soft_wrap=True)


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


def _require_numpy() -> None:
    try:
        for module in ("numpy", "pycocotools", "jinja2", "PIL"):
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InvalidSettings(
            f"comparing a folder needs {error.name}: pip install 'visavis[compare]'"
        ) from None
