"""The documents: their links lead somewhere, and the README's settings are the server's."""

import re
from pathlib import Path

import pytest
import typer

from visavis_server.__main__ import _app
from visavis_server.settings import Settings

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


def settings_rows() -> list[tuple[list[str], bool]]:
    """Return for each row of the README's settings tables its names, and whether it is starred."""
    text = README[README.index("## Configuration") : README.index("## Operation")]
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [(re.findall(r"`(\w+)`", cell), cell.endswith("*")) for cell in cells]


def test_the_readme_lists_every_setting_once() -> None:
    names = [name for row, _ in settings_rows() for name in row]
    assert sorted(names) == sorted(Settings.model_fields)


def test_the_readme_stars_the_settings_without_a_flag() -> None:
    flags = {str(option.name) for option in typer.main.get_command(_app).params}
    starred = {name for row, star in settings_rows() if star for name in row}
    assert starred == set(Settings.model_fields) - flags
