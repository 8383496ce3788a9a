"""`python -m tests.gpu`: prints a report, and exits with 1 if a proof failed."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from visavis_server.log import configure_logging
from visavis_server.models.model_files import ModelFile
from visavis_server.tools import doctor

from . import throughput
from .proofs import PROOFS, Failed
from .site import Site, exported, made_up, missing, pictures, scratch

_console = Console(highlight=False)


def prove(
    device: Annotated[str, typer.Option(help="cuda or tensorrt.")] = "cuda",
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Try the CPU in a GPU's place: tests this script only.")
    ] = False,
    models: Annotated[
        Path | None, typer.Option(help="Model repository.  [exported from VISAVIS_WEIGHTS]")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Length of a measurement.")] = 2.0,
    proofs_only: Annotated[bool, typer.Option("--proofs", help="Measure no throughput.")] = False,
) -> None:
    """Prove what must hold on a GPU, and measure the server beside a plain loop."""
    if not cpu and (why := missing(device)):
        _console.print(f"nothing to prove here: {why}", soft_wrap=True)
        raise typer.Exit(2)
    weights = os.environ.get("VISAVIS_WEIGHTS", "")
    if models is None and not weights:
        raise typer.BadParameter("set VISAVIS_WEIGHTS, or give a repository", param_hint="--models")
    images = os.environ.get("VISAVIS_IMAGES")
    configure_logging("console", "error")
    began = time.monotonic()
    with scratch() as folder:
        files = pictures(Path(images) if images else None) or made_up(folder)
        repository = models or exported(weights)
        site = Site.of("stand-in" if cpu else device, repository, files, seconds)
        for name, _, text in doctor.report():
            if name.startswith(("onnxruntime", "NVIDIA", "GPU", "cores")):
                _console.print(f"{name}: {text}", soft_wrap=True)
        failed = [not _proven(site, file) for file in site.models]
        if not proofs_only:
            failed.append(not _measured(site))
    _console.print(f"{time.monotonic() - began:.0f} s")
    if any(failed):
        raise typer.Exit(1)


def _proven(site: Site, file: ModelFile) -> bool:
    """Print what each proof saw; return True if all hold."""
    _console.print(f"\n[bold]{file.name}[/] on {site.provider.name}")
    holds = True
    for proof in PROOFS:
        name = proof.__name__.replace("_", " ")
        try:
            _console.print(f"  [green]✓[/] {name}: {proof(site, file)}", soft_wrap=True)
        except Failed as error:
            holds = False
            _console.print(f"  [red]✗[/] {name}: {error}", soft_wrap=True)
        except Exception:  # noqa: BLE001  the other proofs may tell why
            holds = False
            _console.print(f"  [red]✗[/] {name} ended by an error:")
            _console.print_exception(max_frames=8)
    return holds


def _measured(site: Site) -> bool:
    """Print the throughput of each model; return False if it can't be measured."""
    _console.print("\nPictures a second, from JPEG files:")
    holds = True
    for file in site.models:
        try:
            for row in throughput.rows(site, file):
                _console.print(
                    f"  {row.model}, batches of {row.batch}: server {row.server:.0f}, plain loop "
                    f"{row.loop:.0f}; device alone {row.device:.0f}, cores alone {row.cores:.0f}; "
                    f"bottleneck: {row.bottleneck}",
                    soft_wrap=True,
                )
        except Failed as error:
            holds = False
            _console.print(f"  [red]✗[/] {file.name}: {error}", soft_wrap=True)
    return holds


if __name__ == "__main__":
    typer.run(prove)
