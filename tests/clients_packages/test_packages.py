"""The libraries of Go, C++ and Java, installed into an empty project by the language's own tool.

The program `check` in the language's folder here uses the library and prints a line for each
answer and each error; the Python SDK says what these lines must be. The program in the language's
README is built and run too.
"""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import pytest
from visavis import Client, Comparison
from visavis.results import ClassificationAgreement, DetectionAgreement, HeatMap
from visavis.v1 import vision_pb2 as pb

from tests.clients import canned
from tests.surroundings import Surroundings
from tests.test_clients import CLIENTS, built, require_tools

from .conftest import RETRY_MS, Arguments, Failing
from .installers import INSTALLERS, Installed, readme_program, require_debian, run


@pytest.fixture(scope="module")
def expected(arguments: Arguments) -> list[str]:
    with Client(arguments.server) as client:
        lines = [*_results(client, arguments.picture), *_comparison(client, arguments.picture)]
        names = ",".join(card.name for card in client.list_models())
    return [
        *lines,
        "rejected InvalidRequest field=top_k id=mine retry=0",
        "unknown ModelNotFound field=model id=some retry=0",
        f"tls {names}",
        "stranger AccessDenied field= id=some retry=0",
        "nobody Unavailable field= id= retry=0",
        "clear InvalidSettings field= id= retry=0",
        f"unix {','.join(card.name for card in canned.CARDS)}",
        _receipt(canned.RECEIPT),
        f"overloaded Overloaded field= id= retry={RETRY_MS}",
        "late DeadlineExceeded field= id= retry=0",
        f"again {len(canned.comparison().comparisons)}",
    ]


def _results(client: Client, picture: str) -> Iterator[str]:
    yield f"models {','.join(card.name for card in client.list_models())}"
    card = client.get_model("colors", version=1)
    labels = ",".join(card.label_set.labels)
    golden, receipt = (str(value).lower() for value in (card.verification.golden_sample, False))
    assert card.receipt is None
    yield f"card colors 1 {card.tasks[0]} {labels} {golden} {receipt}"
    classified = client.classify(picture, model="colors", top_k=2, annotate=True)
    for label in classified.classifications:
        yield f"label {label.label} {label.class_id} {label.score:.3f}"
    drawn = classified.annotated_image
    assert drawn and drawn.size and drawn.encoded.startswith(b"\xff\xd8")
    yield f"drawn {drawn.media_type} {drawn.size.width} {drawn.size.height} true"
    cats = client.detect(picture, model="boxes", iou_threshold=0.9, labels=["cat"]).detections
    assert len(cats) == 2
    for cat in cats:
        edges = " ".join(f"{edge:.1f}" for edge in cat.box.xyxy)
        yield f"box {cat.label} {cat.score:.3f} {edges}"
    for model, label in (("paints", None), ("paints", "green"), ("heads", None), ("heads", "bird")):
        call = client.classify if model == "paints" else client.detect
        map_ = call(picture, model=model, explain=label or True).heat_map
        assert map_ is not None
        yield _map(map_)
    yield "raw blue colors 1 8 true"


def _comparison(client: Client, picture: str) -> Iterator[str]:
    compared = client.compare(picture, baseline="colors", top_k=2)
    yield f"arrived {sum(len(task.answers) for task in compared.comparisons)}"
    for task in compared.comparisons:
        for answer in task.answers:
            line = f"compared {task.task} {task.baseline} {answer.served_by.model}"
            match answer.agreement:
                case ClassificationAgreement() as of:
                    same, divergence = str(of.same_top1).lower(), of.jensen_shannon_divergence
                    distance = "none" if divergence is None else f"{divergence:.3f}"
                    yield f"{line} {same} {of.top_k_overlap:.3f} {distance} {_unknown(of)}"
                case DetectionAgreement() as of:
                    counts = f"{of.matched} {of.only_here} {of.only_in_baseline}"
                    yield f"{line} {counts} {of.f1:.3f} {_unknown(of)}"
                case None:
                    yield line
    yield "alone 1 true"
    (explained,) = client.compare(picture, models=["boxes", "heads"], explain="cat").comparisons
    boxes, heads = explained.answers
    assert (boxes.status.code, boxes.heat_map) == ("INVALID_ARGUMENT", None)
    assert heads.heat_map is not None
    yield "boxes false"
    yield f"heads {_map(heads.heat_map)}"
    yield "streamed true"
    two = ["boxes", "heads"]
    sides = _size(client.compare(picture, models=two, annotate=True))
    difference = _size(client.compare(picture, models=two, annotate_difference=True))
    assert sides != difference  # The legend of the three colours makes the picture higher.
    yield f"side by side {sides}"
    yield f"difference {difference} {difference}"


def _size(of: Comparison) -> str:
    image = of.annotated_image
    assert image is not None
    assert image.size is not None
    return f"{image.size.width} {image.size.height}"


def _receipt(receipt: pb.Receipt) -> str:
    """Return the heat maps' figures of a receipt as a line."""
    (picture,) = receipt.pictures
    maps = f"{receipt.max_heat_map_difference:.6f} {picture.max_heat_map_difference:.6f}"
    return f"receipt {receipt.heat_map_tolerance:.3f} {maps}"


def _unknown(of: ClassificationAgreement | DetectionAgreement) -> str:
    return f"{of.unknown_here} {of.unknown_in_baseline}"


def _map(of: HeatMap) -> str:
    """Return a map as a line: its second value tells rows from columns."""
    assert len(of.values) == of.width * of.height
    size = f"{of.class_id} {of.width} {of.height} {len(of.values)}"
    values = f"{of.values[1]:.3f} {of.min:.3f} {of.max:.3f}"
    edges = " ".join(f"{edge:.1f}" for edge in of.area.xyxy)
    return f"map {of.label} {size} {values} {edges}"


@pytest.fixture(scope="module", params=INSTALLERS)
def installed(
    request: pytest.FixtureRequest, arguments: Arguments, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    language: str = request.param
    require_tools(language)
    require_debian(language)
    built(language)
    readme = readme_program(language, arguments.unix)
    return INSTALLERS[language](tmp_path_factory.mktemp(language), readme)


def test_the_package_works_in_an_empty_project(
    installed: Installed,
    arguments: Arguments,
    failing: Failing,
    expected: list[str],
    tmp_path: Path,
) -> None:
    failing.fake.calls.clear()
    failing.headers.clear()
    found = Surroundings.under(tmp_path)
    command = [*installed.check, *astuple(arguments)]
    done = start(command, found)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines() == expected
    assert failing.fake.calls == {"Classify": 1, "Detect": 1, "Compare": 3}
    sent = {"authorization": "Bearer secret", "x-team": "vision"}
    assert [sent.items() <= headers.items() for headers in failing.headers] == [True]


def test_the_readmes_program_works(
    installed: Installed, arguments: Arguments, tmp_path: Path
) -> None:
    found = Surroundings.under(tmp_path)
    shutil.copy(arguments.picture, found.elsewhere / "bus.jpg")
    done = start(installed.readme, found)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == len(canned.BUS_BOXES)
    assert all(box.label in line for box, line in zip(canned.BUS_BOXES, lines, strict=True))


def start(
    command: list[str | Path], surroundings: Surroundings
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=surroundings.elsewhere,
        env=surroundings.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_go_module_passes_its_own_tests() -> None:
    require_tools("go")
    run("make", "test", cwd=CLIENTS / "go")


@pytest.mark.parametrize(("language", "tool"), [("cpp", "doxygen"), ("java", "javadoc")])
def test_the_documentation_has_no_warnings(language: str, tool: str) -> None:
    require_tools(language)
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    run("make", "doc", cwd=CLIENTS / language)
