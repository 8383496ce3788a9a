"""The Grafana dashboard: what it asks Prometheus for is what a server has."""

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator
from itertools import combinations
from pathlib import Path

import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from visavis.v1 import vision_pb2 as pb

from visavis_server.app import App

from .server import graphs, pictures
from .server.serving import image, served_by, settings

ROOT = Path(__file__).parent.parent
BOARD = json.loads((ROOT / "deploy" / "grafana" / "visavis.json").read_text("utf-8"))
PANELS = BOARD["panels"]
VARIABLES = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
TARGETS = [target for panel in PANELS for target in panel.get("targets", ())]

OF_PROMETHEUS = {"instance", "job"}

Exposed = dict[str, dict[str, set[str]]]
"""Metrics by name; of each, the labels with their values."""


@pytest_asyncio.fixture
async def exposed(tmp_path: Path) -> AsyncIterator[Exposed]:
    """What a server that watches its folder says when it has answered and failed."""
    model, _ = graphs.export(graphs.nan_on_black(), graphs.classifier_document())
    graphs.put(tmp_path, "fragile", 1, model)
    app = App(settings(tmp_path, metrics="127.0.0.1:0", watch_interval_s=60))
    async with served_by(app) as served:
        bright, dark = image((200, 200, 200)), image(pictures.BLACK)
        await served.stub.Classify(pb.ClassifyRequest(image=bright, model="fragile"))
        await served.refused("Classify", pb.ClassifyRequest(image=dark, model="fragile"))

        def get() -> str:
            with urllib.request.urlopen(f"http://{app.metrics_address}/metrics") as response:
                return response.read().decode()  # type: ignore[no-any-return]

        found: Exposed = {}
        for family in text_string_to_metric_families(await asyncio.to_thread(get)):
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
        yield found


def expressions() -> Iterator[str]:
    yield from (target["expr"] for target in TARGETS)
    for name, variable in VARIABLES.items():
        if variable["type"] == "query":
            values = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert values, name
            yield f"sum by ({values[2]}) ({values[1]})"


def test_every_query_asks_for_metrics_and_labels_that_are_there(exposed: Exposed) -> None:
    for expression in expressions():
        selectors = re.findall(r"(visavis_\w+)(?:{(.*?)})?", expression)
        assert selectors, expression
        labels = set(OF_PROMETHEUS)
        for name, matchers in selectors:
            assert name in exposed, expression
            labels |= set(exposed[name])
            for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"(.*?)"', matchers):
                assert label in {*exposed[name], *OF_PROMETHEUS}, expression
                if operator != "!=" and not value.startswith("$"):
                    assert any(re.fullmatch(value, seen) for seen in exposed[name][label])
        for names in re.findall(r"by \((.*?)\)", expression):
            assert set(names.split(", ")) <= labels, expression


def test_every_legend_is_of_labels_that_the_query_keeps() -> None:
    for target in TARGETS:
        kept = re.findall(r"by \((.*?)\)", target["expr"])
        for label in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
            assert all(label in names.split(", ") for names in kept), target


def test_every_variable_is_defined() -> None:
    used = set(re.findall(r"\$(?:{(\w+)}|([a-z_]\w*))", json.dumps(BOARD)))
    assert {"".join(names) for names in used} - {"__rate_interval", "__all"} == set(VARIABLES)


def test_every_panel_asks_the_chosen_prometheus() -> None:
    asking = [item for item in (*PANELS, *VARIABLES.values()) if "datasource" in item]
    assert {json.dumps(item["datasource"], sort_keys=True) for item in asking} == {
        '{"type": "prometheus", "uid": "${datasource}"}'
    }
    assert all("datasource" in panel for panel in PANELS if panel["type"] != "row")


def test_panels_have_room() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)

    def apart(a: dict[str, int], b: dict[str, int]) -> bool:
        return any(
            one[at] + one[size] <= other[at]
            for one, other in ((a, b), (b, a))
            for at, size in (("x", "w"), ("y", "h"))
        )

    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    assert all(apart(*pair) for pair in combinations(places, 2))
