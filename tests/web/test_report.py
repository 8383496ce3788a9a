"""The report of a folder, opened from its file in a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from visavis.commands import main

from tests.server.pictures import BLUE, GREEN, RED, plain

from .conftest import Playground
from .page import Browser, Page

COLORS = [RED, GREEN, BLUE] * 4
# What is shown: the pictures' names, and how many boxes of each kind are on them.
SHOWN = """() => {
  const cards = [...document.querySelectorAll("figure")].filter((each) => each.checkVisibility());
  const seen = (selector) => cards.flatMap((card) => [...card.querySelectorAll(selector)])
    .filter((each) => each.checkVisibility()).length;
  return {
    names: cards.map((card) => card.querySelector("figcaption b").textContent),
    count: [...document.querySelectorAll(".shown-count")].map((each) => each.textContent),
    pictures: cards.filter((card) => card.querySelector("image")).length,
    kinds: { both: seen("rect.both"), here: seen("rect.here"), baseline: seen("rect.baseline") },
    panels: seen(".panel"),
    wide: document.documentElement.scrollWidth <= innerWidth,
  };
}"""


@pytest.fixture(scope="module")
def report(playground: Playground, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red, green and blue pictures; two of them have another label, and one a hostile name."""
    folder = tmp_path_factory.mktemp("report")
    pictures = folder / "pictures"
    pictures.mkdir()
    rows = ["file,class_index"]
    for number, color in enumerate(COLORS):
        name = f"{number:02}.png" if number else "00 <img src=x onerror=alert(1)>.png"
        (pictures / name).write_bytes(plain(color))
        rows.append(f"{name},{(number + (number in (3, 4))) % 3}")
    (pictures / "labels.csv").write_text("\n".join(rows))
    file = folder / "report.html"
    names = "colors,colors-soft,boxes,boxes-other"
    asked = ["compare", pictures, "--server", playground.address, "--models", names]
    assert main([*map(str, asked), "--report", str(file)]) == 0
    return file


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    page = Page(browser, report.as_uri(), viewport={"width": 1280, "height": 900})
    yield page
    # No script or style but its own has run, and nothing was asked of anywhere.
    assert page.close() == []


def shown(page: Page) -> Any:
    return page.evaluate(SHOWN)


def test_every_figure_leads_to_its_pictures(page: Page) -> None:
    seen = shown(page)
    assert len(seen["names"]) == 2 + 12  # wrong labels; every picture where boxes differ
    assert seen["count"] == ["2 of 2 pictures", "12 of 12 pictures"]
    page.do("click", selector="#classification .heat td.s8 a >> nth=0")
    assert shown(page)["count"][0].startswith("1 of 2 pictures: colors, truth ")
    page.do("click", selector="#pictures-classification .all")
    assert shown(page)["count"][0] == "2 of 2 pictures"
    page.do("select", selector="#pictures-classification select.kind", value="suspect")
    assert shown(page)["names"][:2] == ["03.png", "04.png"]
    # Each part of a filter counts: model, kind, class, truth, answer, slice.
    follow = """(filter) => { const link = document.querySelector("#classification a");
      link.dataset.filter = filter; link.click(); }"""
    first = page.evaluate("() => document.querySelector('figure').dataset.facts.split(' ')[0]")
    model, kind, truth, answer = first.split(":")
    for filter_, count in {
        f"{model}:{kind}:{truth}:{truth}:{answer}:": 1,
        f"9:{kind}::::": 0,
        f"{model}:broke::::": 0,
        f"{model}:{kind}:9:::": 0,
        f"{model}:{kind}::{answer}::": 0 if answer != truth else 1,
        f"{model}:{kind}:::9:": 0,
        f"{model}:{kind}::::99": 0,
    }.items():
        page.evaluate(follow, filter_)
        assert len(shown(page)["names"]) - 12 == count, filter_
    # The brightness of green is medium, of red and blue dark: two of four dark ones are wrong.
    page.do("click", selector="#classification a:text-is('medium')")
    assert shown(page)["names"][:1] == ["04.png"]


def test_the_difference_has_the_playgrounds_kinds_and_the_panels_all_boxes(page: Page) -> None:
    kinds = shown(page)["kinds"]
    # `boxes-other` shares one of two boxes with `boxes`, and has two others, on each picture.
    assert kinds["both"] == 12
    assert kinds["here"] > 0 < kinds["baseline"]
    assert "only in boxes" in page.do("text", selector="#pictures-detection .kinds")
    assert shown(page)["panels"] == 0
    page.do("click", selector="#pictures-detection .side")
    assert shown(page)["panels"] == 24


def test_tables_are_sorted_by_their_numbers(page: Page) -> None:
    column = """() => [...document.querySelectorAll("#classification details table")][0]
      .querySelectorAll("tbody tr")"""
    first = f"() => [...({column})()].map((row) => row.cells[0].textContent)"
    assert page.evaluate(first) == ["red", "green", "blue"]
    page.do("click", selector="#classification details >> nth=0 >> th:nth-child(1) button")
    assert page.evaluate(first) == ["blue", "green", "red"]


def test_a_hostile_name_is_text_and_a_script_in_it_does_not_run(page: Page) -> None:
    assert "00 <img src=x onerror=alert(1)>.png" in shown(page)["names"]
    assert page.evaluate("() => document.querySelectorAll('img').length") == 0
    # The browser reports a violation later than the insertion returns.
    inserted = """() => new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", () => {
        setTimeout(() => resolve(window.ran ?? 0), 100) });
      const script = document.createElement("script");
      script.textContent = "window.ran = 1"; document.body.append(script) })"""
    assert page.evaluate(inserted) == 0
    troubles = page.do("close")
    assert any("script-src" in each for each in troubles)
    page.do("open", url="about:blank", permissions=(), options={})


@pytest.mark.parametrize(
    "options", [{"viewport": {"width": 360, "height": 700}}, {"colorScheme": "dark"}]
)
def test_it_fits_a_phone_and_a_dark_screen(
    browser: Browser, report: Path, options: dict[str, Any]
) -> None:
    page = Page(browser, report.as_uri(), **options)
    assert shown(page)["wide"]
    assert page.close() == []
