"""The page with models whose label sets differ."""

from pathlib import Path

from tests.server import graphs
from visavis_server.card import LabelSet

from .conftest import Open, Playground


def test_classifiers_of_different_label_sets_are_compared(
    open_page: Open, picture: Path, tmp_path: Path
) -> None:
    paints = LabelSet(name="paints", labels=("violet", "ink", "green"))
    for name, document in (
        ("colors", graphs.classifier_document()),
        ("paints", graphs.classifier_document(label_set=paints)),
    ):
        graphs.put(tmp_path / "models", name, 1, graphs.export(graphs.classifier(), document)[0])
    with Playground(tmp_path / "models", tmp_path / "server") as server:
        page = open_page(server.url)
        panels = page.pick(picture)["tasks"]["TASK_CLASSIFICATION"]["panels"]
    shown = {name: {bar[1] for bar in panel["bars"]} for name, panel in panels.items()}
    assert shown == {"colors": set(graphs.COLORS), "paints": set(paints.labels)}
