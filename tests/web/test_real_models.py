"""The page with real weights where they are given: the numbers that it shows are the server's."""

from pathlib import Path

from visavis import Client

from tests.samples import Samples

from .conftest import Open, Playground


def test_the_bus_is_seen_as_over_grpc(open_page: Open, samples: Samples, tmp_path: Path) -> None:
    bus = samples.bus
    with Playground(samples.models, tmp_path / "real") as server, Client(server.address) as client:
        page = open_page(server.url)
        tasks = page.pick(bus)["tasks"]
        for model in ("resnet18", "resnet50"):
            shown = tasks["TASK_CLASSIFICATION"]["panels"][model]["bars"]
            labels = client.classify(bus, model=model).classifications
            assert [bar[1:] for bar in shown] == [[c.label, f"{c.score:.3f}"] for c in labels]
        for threshold in (0.25, 0.1, 0.7):
            tasks = page.slide("Score above", threshold)["tasks"]
            shown = tasks["TASK_OBJECT_DETECTION"]["panels"]["yolov5n"]["rows"]
            found = client.detect(bus, model="yolov5n", score_threshold=threshold).detections
            assert [row[1:] for row in shown] == [
                [d.label, f"{d.score:.3f}", "{:.0f}, {:.0f} to {:.0f}, {:.0f}".format(*d.box.xyxy)]
                for d in found
            ]
        assert "nothing to compare with" in tasks["TASK_OBJECT_DETECTION"]["alone"]
        random = tasks["TASK_CLASSIFICATION"]["panels"]["yolov5n-cls"]["text"]
        assert "random weights" in random
