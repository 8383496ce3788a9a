"""What the wheels hold, and what they are worth where nothing else of the checkout is."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.faults.process import ServerProcess
from tests.server import graphs
from tests.server.pictures import RED, plain
from tests.surroundings import Surroundings
from visavis_server.vision.families.resize import rows_first_in_c

ROOT = Path(__file__).parents[1]

SDK = Path("clients", "python")
# gRPC with protobuf, and the command line; each line with what it needs itself.
OF_THE_SDK = {
    *("visavis", "grpcio", "grpcio-health-checking", "grpcio-status", "protobuf"),
    *("googleapis-common-protos", "typing_extensions"),
    *("rich", "markdown-it-py", "mdurl", "pygments"),
    *("typer", "annotated-doc", "click", "colorama", "shellingham"),
    *("pydantic", "pydantic_core", "annotated-types", "typing-inspection"),
}
HAS_COMPILER = shutil.which("cc") is not None


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy: what is compiled here stays as it is."""
    return copied(tmp_path / "sources")


def copied(copy: Path) -> Path:
    for folder in ("clients/python", "clients/web", "deploy", "export", "server"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("*.so"))
    for file in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / file, copy)
    return copy


def pip(python: Path | str, *arguments: str | Path, **environment: str) -> str:
    """Run pip; without an index there is nothing to test, but CI has one."""
    # It inherits where this machine's index is, and how to reach it.
    ran = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode and not os.environ.get("CI"):
        pytest.skip(f"pip can't do its part here: {ran.stderr[-500:]}")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def built(sources: Path, **environment: str) -> zipfile.ZipFile:
    dist = sources / "dist"
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", dist, sources, **environment)
    (wheel,) = dist.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of both distributions, by name."""
    sources = copied(tmp_path_factory.mktemp("wheels") / "sources")
    dist = sources / "dist"
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", dist, sources, sources / SDK)
    return {wheel.name.partition("-")[0]: wheel for wheel in dist.glob("*.whl")}


def new_environment(folder: Path) -> Path:
    """Make an empty environment; return the folder of its programs."""
    venv.create(folder, with_pip=True)
    return folder / "bin"


def ran(command: list[str | Path], found: Surroundings) -> str:
    """Run a command as a user does, in a folder that is not the checkout."""
    return subprocess.run(
        command,
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_a_wheel_brings_the_playground_and_what_was_compiled(sources: Path) -> None:
    wheel = built(sources)
    packed = {name for name in wheel.namelist() if name.startswith("visavis_server/web/")}
    page = {f"visavis_server/web/{path.name}" for path in (ROOT / "clients" / "web").iterdir()}
    assert "visavis_server/web/index.html" in packed and packed == page
    compiled = "visavis_server/vision/families/rows_first.so" in wheel.namelist()
    assert compiled == HAS_COMPILER
    assert compiled != Path(wheel.filename or "").name.endswith("-any.whl")


def test_without_a_compiler_a_wheel_is_for_every_machine(sources: Path) -> None:
    wheel = built(sources, CC="no-such-compiler")
    assert not [name for name in wheel.namelist() if name.endswith(".so")]
    assert Path(wheel.filename or "").name.endswith("py3-none-any.whl")


def test_a_source_archive_holds_all_that_the_wheel_is_built_from(
    sources: Path, tmp_path: Path
) -> None:
    sdist = [sys.executable, "-m", "build", "--sdist", "--outdir", str(tmp_path), str(sources)]
    done = subprocess.run(sdist, capture_output=True, text=True, check=False)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"pip can't do its part here: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    unpacked = tmp_path / "unpacked"
    with tarfile.open(archive) as opened:
        opened.extractall(unpacked)
    (again,) = unpacked.iterdir()
    assert not (again / "tests").exists()
    assert sorted(built(again).namelist()) == sorted(built(sources).namelist())


def test_the_wheels_serve_a_picture_from_an_environment_of_their_own(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    programs, found = new_environment(tmp_path / "environment"), Surroundings.under(tmp_path)
    pip(programs / "python", "install", *wheels.values())
    contents, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(tmp_path / "models", "colors", 1, contents)
    picture = tmp_path / "red.png"
    picture.write_bytes(plain(RED, 64, 64))

    class Installed(ServerProcess):
        command = (str(programs / "visavis"), "serve")

    with Installed(tmp_path / "models", tmp_path / "server") as server:
        ask = ["classify", picture, "--model", "colors", "--server", server.address, "--json"]
        answer = json.loads(ran([programs / "visavis", *ask], found))
    assert answer["classifications"][0]["label"] == "red"
    where = (
        "import visavis, visavis_export, visavis_server as s; print(s.__file__, visavis.__file__)"
    )
    places = ran([programs / "python", "-P", "-c", where], found).split()
    assert len(places) == 2
    assert all(str(tmp_path / "environment") in place for place in places)


def test_the_sdk_alone_brings_little_and_claims_no_name_of_others(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    programs, found = new_environment(tmp_path / "environment"), Surroundings.under(tmp_path)
    before = set(pip(programs / "python", "list", "--format=freeze").split())
    pip(programs / "python", "install", wheels["visavis"])
    after = set(pip(programs / "python", "list", "--format=freeze").split())
    came = {line.partition("==")[0].lower() for line in after - before}
    assert {"visavis", "grpcio", "typer"} <= came <= OF_THE_SDK
    top = {name.partition("/")[0] for name in zipfile.ZipFile(wheels["visavis"]).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"visavis"}
    assert ran([programs / "visavis", "--version"], found).startswith("visavis ")
    done = subprocess.run(
        [programs / "visavis", "serve"],
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install visavis-server" in done.stderr


def test_the_application_claims_no_name_of_others(wheels: dict[str, Path]) -> None:
    names = zipfile.ZipFile(wheels["visavis_server"]).namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "visavis_server",
        "visavis_export",
    }


@pytest.mark.skipif(not HAS_COMPILER, reason="there is no C compiler")
def test_what_is_installed_here_is_compiled() -> None:
    assert rows_first_in_c, "install again: rm .venv/.installed, then make install"
