"""`visavis demo`: export, serve and compare in one command, printing every step."""

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
# With these, both families have a model for both tasks; each is included if its weights are
# available.
EXTRAS = ("yolov5n-cls", "retinanet_resnet50_fpn_v2")
READY_TIMEOUT_S = 60.0

_BANNER = """\
################################################################################
#                                                                              #
#   RANDOM WEIGHTS: the pretrained weights are not available.                  #
#   Everything below works, but the answers are meaningless.                   #
#                                                                              #
#   Set VISAVIS_WEIGHTS=FOLDER to use your own (resnet50.pth, resnet18.pth,    #
#   yolov5n.pt), or delete the folder `demo` and run this again online.        #
#                                                                              #
################################################################################"""


def demo(
    picture: Annotated[
        Path | None, typer.Argument(help="Picture to compare.", show_default="a sample")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder for models and the annotated picture.")] = (
        Path("demo")
    ),
) -> None:
    """Export models, serve them, and compare their answers."""
    if not application_installed():
        complain("the demo needs visavis-server: pip install 'visavis-server[export]'")
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
        stdout().print(
            f"\nThe picture with all answers side by side: {annotated}\n"
            f"Go on with: visavis serve --models {models} --http 127.0.0.1:8000 --open\n"
            "and compare your own pictures on the page, http://127.0.0.1:8000.",
            soft_wrap=True,
        )
    raise typer.Exit(code)


def _models(folder: Path) -> tuple[Path, bool]:
    """Return the folder of the demo's models, exported if missing, and True if they are random.

    Random models have a separate folder, so that a later run can still export real ones.
    """
    real, random = folder / "models", folder / "random-models"
    has_own_weights = "VISAVIS_WEIGHTS" in os.environ
    if _holds(real, MODELS):
        return real, False
    if _holds(random, MODELS) and not has_own_weights:
        return random, True
    if _run("export", *_absent(real), "--out", str(real)) == 0:
        # The demo works without these models; the export prints the reason for a failure.
        without = [name for name in EXTRAS if _run("export", name, "--out", str(real))]
        if without:
            stdout().print(f"\nThe demo goes on without {' and '.join(without)}.", soft_wrap=True)
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
    """Serve a repository on a free local port during the context; yields the address."""
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
    """Print a sub-command as typed in a shell; return the command line for this Python."""
    stdout().print(f"\n$ visavis {shlex.join(arguments)}", style="bold", soft_wrap=True)
    sys.stdout.flush()
    return [sys.executable, "-P", "-m", "visavis", *arguments]


def _sample_copy(folder: Path) -> Path:
    """Return a copy of the sample picture in the demo's folder, where its path is short.

    An existing copy is kept.
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
    """Return the path of ultralytics' sample picture, without importing ultralytics."""
    spec = importlib.util.find_spec("ultralytics")
    for location in (spec.submodule_search_locations or []) if spec else []:
        picture = Path(location, "assets", "bus.jpg")
        if picture.is_file():
            return picture
    complain("the sample picture needs ultralytics; give a picture: visavis demo PICTURE")
    raise typer.Exit(2)
