"""The site builds without a warning, links to nothing that is missing, and loads nothing remote."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.surroundings import Surroundings

_DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site, built by the command of `make docs`."""
    folder = tmp_path_factory.mktemp("site")
    found = Surroundings.under(folder)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", _DOCS, folder / "html"],
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_has_a_markdown_twin(site: Path) -> None:
    sources = {path.relative_to(_DOCS) for path in _DOCS.rglob("*.md") if "_build" not in str(path)}
    assert len(sources) > 25
    assert [path for path in sources if not (site / path).exists()] == []
    index = (site / "llms.txt").read_text("utf-8")
    assert "(guides/own-checkpoint.html.md)" in index


def test_pictures_of_the_markdown_twins_exist(site: Path) -> None:
    pictures = [
        (page.parent / link)
        for page in site.rglob("*.md")
        for link in re.findall(r"!\[[^]]*\]\((?!https?:)([^)]+)\)", page.read_text("utf-8"))
    ]
    assert len(pictures) > 3
    assert [path for path in pictures if not path.exists()] == []


def test_every_page_names_the_version(site: Path) -> None:
    version = metadata.version("visavis-server")
    for page in ("index", "tutorial", "guides/call"):
        assert f"version {version}" in (site / f"{page}.html").read_text("utf-8")


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    loaded = re.compile(r'<(?:link|script|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//', re.I)
    pages = list(site.rglob("*.html"))
    assert pages
    assert [page for page in pages if loaded.search(page.read_text("utf-8"))] == []


def test_internal_links_have_their_targets(site: Path) -> None:
    missing = []
    for page in (page for page in site.rglob("*.html") if "_downloads" not in page.parts):
        for link in re.findall(r'href="([^":?]+?)"', page.read_text("utf-8")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path) if path else page
            if not target.exists() or (
                anchor and f'id="{anchor}"' not in target.read_text("utf-8")
            ):
                missing.append((page.name, link))
    assert missing == []
