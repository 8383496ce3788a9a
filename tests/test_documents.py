"""The documents: their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Sphinx checks the links of pages that are made from the code.
GENERATED = "<!-- Written by docs/generated.py"
DOCUMENTS = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("clients/**/*.md"),
        *ROOT.glob("deploy/*.md"),
    )
    if not {"node_modules", "_build", "build"} & set(path.relative_to(ROOT).parts)
    and not path.read_text("utf-8").startswith(GENERATED)
)
LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


@pytest.fixture(scope="module", autouse=True)
def generated_pages() -> None:
    write = "import generated, pathlib; generated.write(pathlib.Path.cwd())"
    subprocess.run([sys.executable, "-c", write], cwd=ROOT / "docs", check=True)


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_has_its_target(document: Path) -> None:
    for link in LINK.findall(document.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve()
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_paths_in_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    paths = re.findall(r"`((?:server|export|protos|deploy|tests|clients)/[a-z0-9_./-]+)`", text)
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
