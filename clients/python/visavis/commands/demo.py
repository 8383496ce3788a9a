"""`visavis demo`: the whole product in one command, each step shown as a person would type it."""

import contextlib
import importlib.util
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from visavis.client import Client
from visavis.commands.application import application_installed
from visavis.commands.console import complain, stdout
from visavis.errors import VisavisError

MODELS = ("resnet50", "resnet18", "yolov5n")
# Shares a task with ResNet; shown where its weights can be had.
EXTRA = "yolov5n-cls"
READY_TIMEOUT_S = 60.0

_BANNER = """\
################################################################################
#                                                                              #
#   RANDOM WEIGHTS: pretrained weights for all models are not within reach.    #
#   Everything below works, and no answer means anything.                      #
#                                                                              #
#   Give real ones with VISAVIS_WEIGHTS=FOLDER (resnet50.pth, resnet18.pth,    #
#   yolov5n.pt), or delete the folder demo and run this again online.          #
#                                                                              #
################################################################################"""


def demo(
    picture: Annotated[
        Path | None, typer.Argument(help="Picture to compare; a sample where none is given.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where models and the annotated picture go.")] = Path(
        "demo"
    ),
) -> None:
    """Export models, serve them, compare a picture, and show the answers."""
    if not application_installed():
        complain("the demo needs the application: pip install 'visavis-server[export]'")
        raise typer.Exit(2)
    picture = picture or _sample_copy(folder)
    models, random = _models(folder)
    if random:
        stdout().print(_BANNER, style="bold red")
    annotated = folder / "compared.jpg"
    with _server(models) as address:
        _run("models", "--server", address)
        compare = ("compare", str(picture), "--server", address, "--annotate", str(annotated))
        code = _run(*compare)
    if code == 0:
        stdout().print(f"\nThe picture with all answers side by side: {annotated}", soft_wrap=True)
    raise typer.Exit(code)


def _models(folder: Path) -> tuple[Path, bool]:
    """Return the folder with the demo's models, exported where they aren't, and if they are random.

    Random ones lie apart, so that real ones are still fetched once they can be.
    """
    real, random = folder / "models", folder / "random-models"
    given = "VISAVIS_WEIGHTS" in os.environ
    if _holds(real, MODELS):
        return real, False
    if _holds(random, MODELS) and not given:
        return random, True
    if _run("export", *_absent(real), "--out", str(real)) == 0:
        # Its absence is no failure: the export says what was missing.
        _run("export", EXTRA, "--out", str(real))
        return real, False
    code = _run("export", *_absent(random), "--out", str(random), "--weights", "random")
    if code:
        raise typer.Exit(code)
    return random, True


def _holds(repository: Path, names: tuple[str, ...]) -> bool:
    return all(any(repository.glob(f"{name}/*/model.onnx")) for name in names)


def _absent(repository: Path) -> list[str]:
    return [name for name in MODELS if not _holds(repository, (name,))]


@contextlib.contextmanager
def _server(models: Path) -> Iterator[str]:
    """Serve a repository for a while; yields the address, on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(_command("serve", "--models", str(models), "--grpc", address))
    try:
        with Client(address) as client:
            try:
                client.wait_until_ready(READY_TIMEOUT_S)
            except VisavisError as error:
                complain(f"the server did not become ready: {error}")
                raise typer.Exit(5) from None
        yield address
    finally:
        process.terminate()
        process.wait()


def _run(*arguments: str) -> int:
    """Run a sub-command of `visavis` and return its exit code."""
    return subprocess.run(_command(*arguments), check=False).returncode


def _command(*arguments: str) -> list[str]:
    """Print a sub-command as a person would type it; return it as this Python runs it."""
    stdout().print(f"\n$ visavis {shlex.join(arguments)}", style="bold", soft_wrap=True)
    sys.stdout.flush()
    return [sys.executable, "-P", "-m", "visavis", *arguments]


def _sample_copy(folder: Path) -> Path:
    """Return a copy of the sample in the demo's folder: a path that is short enough to type.

    A picture that is there already stays as it is.
    """
    picture = folder / "bus.jpg"
    if picture.exists():
        return picture
    sample = _sample()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample, picture)
    except OSError as error:
        complain(f"can't write {picture}: {error.strerror}")
        raise typer.Exit(1) from error
    return picture


def _sample() -> Path:
    """Return the picture that ultralytics ships, without importing ultralytics."""
    spec = importlib.util.find_spec("ultralytics")
    for location in (spec.submodule_search_locations or []) if spec else []:
        picture = Path(location, "assets", "bus.jpg")
        if picture.is_file():
            return picture
    complain("there is no sample picture without ultralytics; name one: visavis demo PICTURE")
    raise typer.Exit(2)
