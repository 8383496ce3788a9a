"""Heat maps on the page: those of the server, in place and in its colours."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from visavis import Client
from visavis.results import HeatMap

from .conftest import Open, Playground, switch_heat_maps

# Returns what is drawn on a model's picture: the colours by cell, the edges of the map and of the
# picture on the screen, and the legend.
DRAWN = """model => {
  const panel = document.querySelector(`.panel[data-model="${model}"]`);
  const canvas = panel.querySelector("canvas.heat");
  if (!canvas.checkVisibility()) return null;
  const edges = (of) => {
    const { left, top, right, bottom } = of.getBoundingClientRect();
    return [left, top, right, bottom];
  };
  const { width, height } = canvas;
  return {
    size: [width, height],
    colors: [...canvas.getContext("2d").getImageData(0, 0, width, height).data],
    map: edges(canvas),
    picture: edges(panel.querySelector(".frame img")),
    opacity: getComputedStyle(canvas).opacity,
    legend: panel.querySelector(".scale").innerText,
  };
}"""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture, wider than high, whose quarters differ."""
    path = tmp_path / "quarters.png"
    pixels = np.kron([[0, 90], [170, 255]], np.ones((240, 320)))
    Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(path)
    return path


def assert_shows(drawn: Any, of: HeatMap, picture: tuple[int, int]) -> None:
    """Assert that a map is drawn in the server's colours, where it belongs, with its scale."""
    assert drawn["size"] == [of.width, of.height]
    span = of.max - of.min
    levels = [round((value - of.min) / span * 255) for value in of.values]
    bgr = cv2.applyColorMap(np.array(levels, np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0]
    colors = np.array(drawn["colors"]).reshape(-1, 4)
    assert np.abs(colors[:, :3] - bgr[:, ::-1].astype(int)).max() <= 9
    assert (colors[:, 3] == 255).all()
    left, top, right, bottom = drawn["picture"]
    scale_x, scale_y = (right - left) / picture[0], (bottom - top) / picture[1]
    expected = (
        left + of.area.x_min * scale_x,
        top + of.area.y_min * scale_y,
        left + of.area.x_max * scale_x,
        top + of.area.y_max * scale_y,
    )
    assert drawn["map"] == pytest.approx(expected, abs=1)
    assert drawn["opacity"] == "0.55"
    assert drawn["legend"].startswith(f"Heat map of {of.label}")


def test_the_switch_shows_each_models_map_on_the_picture(
    open_page: Open, explained: Playground, picture: Path
) -> None:
    page = open_page(explained.url)
    page.pick(picture)
    assert page.evaluate(DRAWN, "heads") is None
    assert page.evaluate(DRAWN, "explained") is None
    seen = switch_heat_maps(page)
    assert page.asked[-1]["explain"] == {}
    with Client(explained.address) as client:
        (labels, boxes) = client.compare(picture, explain=True).comparisons
    for answer in (*labels.answers, *boxes.answers):
        model = answer.served_by.model
        if answer.heat_map is None:
            continue
        assert_shows(page.evaluate(DRAWN, model), answer.heat_map, (640, 480))
    (old,) = (a for a in labels.answers if a.served_by.model == "old")
    panel = seen["tasks"]["TASK_CLASSIFICATION"]["panels"]["old"]
    assert panel["state"] == "failed"
    assert old.status.message in panel["text"]
    assert '"explain": {}' in page.do("text", selector="#snippet")
    page.do("click", selector="#languages >> text=Python")
    assert "explain=True," in page.do("text", selector="#snippet")
    page.do("click", selector="#languages >> text=Go")
    assert "visavis.Explain()," in page.do("text", selector="#snippet")
    seen = switch_heat_maps(page)
    assert "explain" not in page.asked[-1]
    assert page.evaluate(DRAWN, "heads") is None
    assert seen["tasks"]["TASK_CLASSIFICATION"]["panels"]["old"]["state"] == "answered"
