"""Makes the documentation's screenshots: `make screenshots`.

A terminal becomes SVG, a page in the browser WebP. The models are exported from the published
weights; the pictures are those of docs/pictures.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Final

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from visavis import Client

from tests.web.page import Browser, Page

_DOCS: Final = Path(__file__).parent
PICTURES: Final = _DOCS / "pictures"
MODELS: Final = ("resnet50", "resnet18", "yolov5n")
# As in the tutorial.
_LABELS: Final = """\
file,class_index
admiral.jpg,652
cat.jpg,281
coffee.jpg,967
rocket.jpg,657
"""
_COLUMNS: Final = 90
_READY_S: Final = 120.0
# Debian's name comes first.
_CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Studio:
    """A folder as a reader has it, with `photos`, and a server that answers there.

    grpc, http: its addresses.
    """

    folder: Path
    grpc: str
    http: str

    def terminal(self, *arguments: str) -> str:
        """Return what a command prints in a terminal with colours; raises if it fails."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "visavis", *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "VISAVIS_SERVER": self.grpc,
                "COLUMNS": str(_COLUMNS),
                "FORCE_COLOR": "1",
                "TERM": "xterm-256color",
                "LC_ALL": "C.UTF-8",
            },
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout

    @contextmanager
    def page(self, url: str, width: int, height: int) -> Iterator[Page]:
        """Yield a page in a browser; raises if something is wrong with it."""
        found = [path for name in _CHROMIUM if (path := shutil.which(name))]
        node = shutil.which("node")
        if not found or not node:
            raise SystemExit("screenshots of pages need Chromium and Node")
        browser = Browser(node, found[0])
        try:
            page = Page(browser, url, viewport={"width": width, "height": height})
            yield page
            if troubles := page.close():
                raise SystemExit(f"{url}: {troubles}")
        finally:
            browser.close()


def compare(studio: Studio) -> bytes:
    """Return the comparison of one picture, as the terminal shows it."""
    arguments = ("compare", "photos/coffee.jpg", "--annotate", "compared.jpg")
    output = Text.from_ansi(studio.terminal(*arguments))
    # The table of the models' cards, which follows, is longer than a screen.
    (answers, *_) = output.split("\nModels\n", include_separator=False)
    return _svg(f"visavis {' '.join(arguments)}", answers)


def annotated(studio: Studio) -> bytes:
    """Return the picture that the comparison draws."""
    studio.terminal("compare", "photos/coffee.jpg", "--annotate", "compared.jpg")
    return _webp(studio.folder / "compared.jpg")


def playground(studio: Studio) -> bytes:
    """Return the page with a comparison of one picture."""
    with studio.page(f"http://{studio.http}/", 1100, 1030) as page:
        page.pick(studio.folder / "photos" / "coffee.jpg")
        return _shot(page)


def report(studio: Studio) -> bytes:
    """Return the verdict and the first tables of a folder's report."""
    with _report(studio) as page:
        return _shot(page)


def pictures(studio: Studio) -> bytes:
    """Return the pictures of a folder's report."""
    with _report(studio) as page:
        return _shot(page, "#pictures-classification")


@contextmanager
def _report(studio: Studio) -> Iterator[Page]:
    """Yield the report of a folder, opened in the browser."""
    names, labels = "resnet50,resnet18", "photos/labels.csv"
    studio.terminal(
        "compare", "photos", "--models", names, "--labels", labels, "--report", "report.html"
    )
    with studio.page((studio.folder / "report.html").as_uri(), 1100, 840) as page:
        yield page


SCREENSHOTS: Final[dict[str, Callable[[Studio], bytes]]] = {
    "compare.svg": compare,
    "compared.webp": annotated,
    "playground.webp": playground,
    "report.webp": report,
    "report-pictures.webp": pictures,
}


def _svg(command: str, output: Text) -> bytes:
    """Return a command and its output as an SVG of a terminal."""
    shown = Text.assemble(("$ ", "dim"), (command, "bold"), "\n")
    shown.append_text(output)
    console = Console(record=True, width=_COLUMNS, file=StringIO(), force_terminal=True)
    console.print(shown)
    svg = console.export_svg(title="visavis", theme=MONOKAI, unique_id="terminal")
    # rich loads a font from another host; the reader's own monospaced one serves.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).encode()


def _shot(page: Page, selector: str = "") -> bytes:
    """Return what a page shows, or a part of it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.png")
        page.do("screenshot", path=str(file), selector=selector)
        return _webp(file)


def _webp(file: Path) -> bytes:
    """Return a picture as a small WebP."""
    webp = BytesIO()
    with Image.open(file) as picture:
        picture.convert("RGB").save(webp, "WEBP", quality=80, method=6)
    return webp.getvalue()


@contextmanager
def studio(models: Path) -> Iterator[Studio]:
    """Yield a folder with the pictures, and a server of some models."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copytree(PICTURES, folder / "photos")
        (folder / "photos" / "labels.csv").write_text(_LABELS)
        grpc, http = (f"127.0.0.1:{_free_port()}" for _ in range(2))
        command = [sys.executable, "-P", "-m", "visavis", "serve", "--models", str(models)]
        server = subprocess.Popen(
            [*command, "--grpc", grpc, "--http", http, "--log-level", "warning"], cwd=folder
        )
        try:
            with Client(grpc) as client:
                client.wait_until_ready(_READY_S)
            yield Studio(folder, grpc, http)
        finally:
            server.terminate()
            server.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _exported() -> Iterator[Path]:
    """Yield a folder of the models, exported from the published weights or VISAVIS_WEIGHTS."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-P", "-m", "visavis", "export", *MODELS, "--out", place]
        subprocess.run(command, check=True)
        yield Path(place)


def make(names: Sequence[str], models: Path, out: Path) -> None:
    """Write screenshots into a folder."""
    out.mkdir(exist_ok=True)
    with studio(models) as made:
        for name in names:
            contents = SCREENSHOTS[name](made)
            (out / name).write_bytes(contents)
            print(f"{out / name}: {len(contents) >> 10} KiB")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCREENSHOTS))
    parser.add_argument("--models", type=Path, help="a folder of exported models")
    parser.add_argument("--out", type=Path, default=_DOCS / "screenshots")
    given = parser.parse_args()
    if unknown := set(given.names) - set(SCREENSHOTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose of {', '.join(SCREENSHOTS)}")
    names = given.names or list(SCREENSHOTS)
    if given.models:
        make(names, given.models.resolve(), given.out)
        return
    with _exported() as models:
        make(names, models, given.out)


if __name__ == "__main__":
    main()
