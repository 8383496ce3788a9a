"""The documents: their links lead somewhere, and the README's settings are the server's."""

import re
from pathlib import Path

import pytest

from visavis_server.__main__ import FLAGS
from visavis_server.settings import Settings, default_text

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *ROOT.glob("clients/**/*.md"),
        *ROOT.glob("deploy/*.md"),
    )
    if "node_modules" not in path.parts
)
LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


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


def row(name: str) -> str:
    """Return a setting's row: its name, starred without a flag, its default and its meaning."""
    star = "" if name in FLAGS else " *"
    default = f"`{text}`" if (text := default_text(name)) else ""
    return f"| `{name}`{star} | {default} | {Settings.model_fields[name].description} |"


def test_the_readme_has_a_row_for_every_setting_from_its_own_description() -> None:
    text = README[README.index("## Configuration") : README.index("## Operation")]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(map(row, Settings.model_fields))


def test_the_paths_in_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    paths = re.findall(r"`((?:server|export|protos|deploy|tests|clients)/[a-z0-9_./-]+)`", text)
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
