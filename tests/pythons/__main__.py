"""Tries the wheels under several versions of Python, as a user would.

Installs the packages that a deployed server pins and, beside them, the export with PyTorch. Exports
a classifier and a detector, serves them, and asks about a picture: all versions of Python must give
the same answers. Needs the real weights and pictures of the tests, and 8 GB of disk; for the
Pythons of Debian's releases also root, debootstrap, podman and runc. The wheels must be in dist/:
make wheels.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tests.faults.process import PATIENCE_S, ServerProcess
from tests.image.engine import Engine, output
from tests.image.sources import debian, machine_of_this, pip_configuration

ROOT = Path(__file__).parents[2]
# Debian's releases that have a Python which the product claims to support.
RELEASES = ("bookworm", "trixie", "forky")
TOOLS = ("debootstrap", "podman", "runc")
# Python, and the libraries that opencv-python takes from the system.
PACKAGES = ("python3", "python3-venv", "libgl1", "libglib2.0-bin", "libsm6", "libxext6")
INSTALL = """
"$0" -m venv "$1/deployed"
"$1/deployed/bin/pip" install --require-hashes --requirement "$2/deploy/requirements-cpu.txt"
"$1/deployed/bin/pip" install --no-index --no-deps --find-links "$2/dist" visavis visavis-server
"$0" -m venv "$1/product"
"$1/product/bin/pip" install --find-links "$2/dist" 'visavis-server[export,http]'
"""
VERSIONS = "import sys, torch; print(sys.version.split()[0], torch.__version__)"
# Of a score, between the answers under two versions.
MOST_DIFFERENCE = 1e-3

Answers = dict[str, float]


def main(
    weights: Annotated[Path, typer.Option(envvar="VISAVIS_WEIGHTS", help="The real weights.")],
    images: Annotated[Path, typer.Option(envvar="VISAVIS_IMAGES", help="The real pictures.")],
    python: Annotated[list[str] | None, typer.Option(help="A program: python3.12.")] = None,
    release: Annotated[list[str] | None, typer.Option(help="A release of Debian.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep what was downloaded here.")] = None,
) -> None:
    """Try programs or releases; if none is given, all releases that have a supported Python."""
    releases = release or ([] if python else RELEASES)
    if releases and (absent := [tool for tool in TOOLS if not shutil.which(tool)]):
        sys.exit(f"missing: apt-get install {' '.join(absent)}")
    first: Answers = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = (folder or Path(temporary)).resolve()
        given = (weights.resolve(), images.resolve())
        for name in (*(python or ()), *releases):
            home = work / "home"
            home.mkdir(parents=True)
            begin = time.monotonic()
            try:
                if name in releases:
                    with of_debian(work, name, home, *given) as prefix:
                        answers = tried(prefix, "python3", home, *given)
                else:
                    answers = tried((), name, home, *given)
            finally:
                shutil.rmtree(home)
            print(f"             {time.monotonic() - begin:.0f} s", flush=True)
            first = first or answers
            for what in first.keys() | answers.keys():
                difference = abs(first.get(what, 0) - answers.get(what, 0))
                assert difference <= MOST_DIFFERENCE, f"{what}: {first} but {answers}"


@contextmanager
def of_debian(work: Path, release: str, *folders: Path) -> Iterator[Sequence[str]]:
    """Yield what runs a command on a release of Debian, with some folders where they are here."""
    engine, configuration, downloads = Engine(work), work / "pip.conf", work / "pip"
    downloads.mkdir(exist_ok=True)
    read_only = (ROOT, *pip_configuration(configuration))
    options = [
        *("run", "--rm", "--network=host", "--ulimit=host", "--env=HOME=/root"),
        *(f"--volume={path}:{path}" for path in folders),
        *(f"--volume={path}:{path}:ro" for path in read_only),
        *(f"--volume={configuration}:/etc/pip.conf:ro", f"--volume={downloads}:/root/.cache/pip"),
    ]
    tree = debian(work, f"python-{release}", machine_of_this(), *PACKAGES, release=release)
    try:
        yield (*engine.podman_command(), *options, "--rootfs", str(tree))
    finally:
        shutil.rmtree(tree)


def tried(prefix: Sequence[str], python: str, home: Path, weights: Path, images: Path) -> Answers:
    """Return the answers under a version of Python: the scores by model, place and label."""
    output(*prefix, "sh", "-ec", INSTALL, python, home, ROOT)
    product, deployed = home / "product" / "bin", home / "deployed" / "bin"
    models = home / "models"
    export = ("export", "resnet18", "yolov5n", "--weights", weights, "--out", models)
    output(*prefix, product / "visavis", *export)
    print(
        "python       {}, with torch {}".format(
            *output(*prefix, product / "python", "-c", VERSIONS).split()
        )
    )

    class Deployed(ServerProcess):
        command = (*prefix, str(deployed / "visavis"), "serve")

    answers: Answers = {}
    with Deployed(models, home / "server") as server:
        for command, model in (("classify", "resnet18"), ("detect", "yolov5n")):
            ask = (command, images / "bus.jpg", "--model", model, "--server", server.address)
            found = json.loads(output(*prefix, deployed / "visavis", *ask, "--json"))
            for place, each in enumerate(found.get("classifications") or found["detections"]):
                answers[f"{model} {place} {each['label']}"] = each["score"]
        # Not killed, as at the end of the context: the container must end too.
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0, server.log
    print(f"answers      {', '.join(f'{name} {score:.3f}' for name, score in answers.items())}")
    return answers


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
