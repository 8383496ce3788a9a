"""Models of several servers, compared as one: the same figures as where one server has them all."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from visavis import Client
from visavis.commands import main
from visavis.errors import InvalidRequest, InvalidSettings, Unavailable
from visavis.peers import Peer, PeeredClient, parse_peer, parse_peers
from visavis.results import ClassificationAgreement, Comparison, DetectionAgreement
from visavis.target import Target

from tests.conftest import serving
from tests.server import graphs
from tests.server.pictures import BLUE, GREEN, RED, plain
from visavis_server.card import LabelSet
from visavis_server.settings import Settings

SCHEMA = json.loads((Path(__file__).parents[1] / "docs/compare.schema.json").read_text())
# Nothing listens on port 1.
NOBODY = "127.0.0.1:1"


@dataclass(frozen=True)
class Servers:
    """One server with all four models, and two with two of them each."""

    both: Client
    here: Client
    there: Client

    @property
    def peer(self) -> Peer:
        return Peer("gpu", Target(self.there._server.address))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("both", "here", "there")}
    moved = graphs.ROWS.copy()
    moved[..., 0] += 3
    files = {
        ("here", "colors"): graphs.export(graphs.classifier(2.0), graphs.classifier_document()),
        ("there", "paler"): graphs.export(graphs.classifier(0.7), graphs.classifier_document()),
        ("here", "boxes"): graphs.export(graphs.constant(graphs.ROWS), graphs.detector_document()),
        ("there", "moved"): graphs.export(graphs.constant(moved), graphs.detector_document()),
    }
    for (where, name), (contents, _) in files.items():
        for folder in (folders["both"], folders[where]):
            graphs.put(folder, name, 1, contents)
    with ExitStack() as stack:
        yield Servers(
            *(
                stack.enter_context(
                    serving(Settings(models=folder, grpc="127.0.0.1:0", device="cpu"))
                )
                for folder in folders.values()
            )
        )


@pytest.fixture
def peered(servers: Servers) -> Iterator[PeeredClient]:
    with PeeredClient(servers.here._server.address, [servers.peer], timeout=60) as client:
        yield client


def agreements(comparison: Comparison) -> dict[str, object]:
    return {
        answer.served_by.model.partition("@")[0]: answer.agreement
        for task in comparison.comparisons
        for answer in task.answers
    }


@pytest.mark.parametrize("color", [RED, GREEN, BLUE])
def test_two_servers_agree_as_the_same_models_on_one(
    servers: Servers, peered: PeeredClient, color: tuple[int, int, int]
) -> None:
    picture = plain(color)
    names = ["colors", "paler", "boxes", "moved"]
    expected = agreements(servers.both.compare(picture, models=names, top_k=2))
    split = ["colors", "paler@gpu", "boxes", "moved@gpu"]
    comparison = peered.compare(picture, models=split, top_k=2)
    found = agreements(comparison)
    assert {name: type(one) for name, one in found.items()} == {
        "colors": type(None),
        "paler": ClassificationAgreement,
        "boxes": type(None),
        "moved": DetectionAgreement,
    }
    labels, theirs = found["paler"], expected["paler"]
    assert isinstance(labels, ClassificationAgreement)
    assert isinstance(theirs, ClassificationAgreement)
    assert (labels.same_top1, labels.top_k_overlap) == (theirs.same_top1, theirs.top_k_overlap)
    assert theirs.jensen_shannon_divergence is not None
    assert theirs.jensen_shannon_divergence > 0.001
    assert labels.jensen_shannon_divergence == pytest.approx(theirs.jensen_shannon_divergence)
    boxes, reference = found["moved"], expected["moved"]
    assert isinstance(boxes, DetectionAgreement) and isinstance(reference, DetectionAgreement)
    assert boxes.matched == reference.matched > 0
    assert boxes.f1 == pytest.approx(reference.f1)
    assert boxes.mean_iou == pytest.approx(reference.mean_iou, abs=1e-5)
    assert boxes.mean_score_difference == pytest.approx(reference.mean_score_difference, abs=1e-6)
    assert [(m.index, m.baseline_index) for m in boxes.matches] == [
        (m.index, m.baseline_index) for m in reference.matches
    ]
    assert len(comparison.comparisons[0].answers[0].classifications) == 2


def test_without_names_all_models_are_columns_and_cards(peered: PeeredClient) -> None:
    comparison = peered.compare(plain(RED))
    names = [a.served_by.model for task in comparison.comparisons for a in task.answers]
    assert names == ["colors", "paler@gpu", "boxes", "moved@gpu"]
    assert {card.name for card in comparison.models} == set(names)
    assert {card.name for card in peered.list_models()} == set(names)
    assert peered.get_model("paler@gpu").label_set.labels == ("red", "green", "blue")


def test_the_baseline_may_be_a_peers_model(peered: PeeredClient) -> None:
    (task,) = peered.compare(plain(RED), tasks=["classification"], baseline="paler@gpu").comparisons
    assert task.baseline == "paler@gpu"
    assert {a.served_by.model: a.agreement is None for a in task.answers} == {
        "colors": False,
        "paler@gpu": True,
    }
    with pytest.raises(InvalidRequest, match="baseline 'other' is not among the models compared"):
        peered.compare(plain(RED), baseline="other")


def test_a_peer_that_is_gone_is_a_status_of_its_models(servers: Servers) -> None:
    address = servers.here._server.address
    with PeeredClient(address, [servers.peer], timeout=60) as client:
        client.learn()
        client._peers["gpu"].close()
        client._peers["gpu"] = Client(NOBODY, timeout=2)
        comparison = client.compare(plain(RED))
    statuses = {
        a.served_by.model: a.status.code for task in comparison.comparisons for a in task.answers
    }
    assert statuses == {
        "colors": "OK",
        "paler@gpu": "UNAVAILABLE",
        "boxes": "OK",
        "moved@gpu": "UNAVAILABLE",
    }


def test_a_peer_that_never_answered_is_left_out_with_the_reason(servers: Servers) -> None:
    address = servers.here._server.address
    with PeeredClient(address, [Peer("edge", Target(NOBODY))], timeout=2) as client:
        comparison = client.compare(plain(RED))
    assert [a.served_by.model for t in comparison.comparisons for a in t.answers] == [
        "colors",
        "boxes",
    ]
    (left,) = comparison.left_out
    assert left.model == "its models@edge" and left.reason.startswith("UNAVAILABLE: ")


def test_the_main_servers_error_is_the_comparisons(servers: Servers) -> None:
    with (
        PeeredClient(servers.here._server.address, [servers.peer], timeout=60) as client,
        pytest.raises(InvalidRequest),
    ):
        client.compare(b"no picture")
    with (
        PeeredClient(NOBODY, [servers.peer], timeout=2) as client,
        pytest.raises(Unavailable),
    ):
        client.compare(plain(RED))


def test_the_command_shows_a_column_per_model_of_each_server(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "red.png").write_bytes(plain(RED))
    peer = f"gpu={servers.peer.target.address}"
    arguments = ["compare", str(tmp_path / "red.png"), "--server", servers.here._server.address]
    assert main([*arguments, "--peer", peer, "--tasks", "classification"]) == 0
    printed = capsys.readouterr().out
    assert "colors" in printed and "paler@gpu" in printed
    assert "labels shared" in printed
    assert main([*arguments, "--peer", peer, "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert [a["servedBy"]["model"] for a in written["comparisons"][0]["answers"]] == [
        "colors",
        "paler@gpu",
    ]
    assert main([*arguments, "--peer", "gpu", "--json"]) == 2
    assert "NAME=HOST:PORT" in capsys.readouterr().err


def test_a_folder_is_compared_across_servers(servers: Servers, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, color in enumerate([RED, GREEN, BLUE] * 2):
        (folder / f"{index}.png").write_bytes(plain(color))
    target = tmp_path / "compared.json"
    peer = f"gpu={servers.peer.target.address}"
    server = servers.here._server.address
    options = ["--peer", peer, "--server", server, "--json", str(target)]
    assert main(["compare", str(folder), *options]) == 0
    written = json.loads(target.read_text())
    assert [one["model"] for one in written["models"]] == [
        "colors",
        "paler@gpu",
        "boxes",
        "moved@gpu",
    ]
    pairs = {pair["model"]: pair["agreement"] for pair in written["pairs"]}
    assert pairs == {"paler@gpu": 1.0, "moved@gpu": 1.0}


def test_a_folder_is_not_compared_without_a_peers_cards(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on its models would pass unnoticed."""
    (tmp_path / "red.png").write_bytes(plain(RED))
    options = ["--peer", f"edge={NOBODY}", "--server", servers.here._server.address]
    options += ["--timeout", "2", "--report", str(tmp_path / "report.html")]
    assert main(["compare", str(tmp_path), *options]) == 2
    assert "peer edge: " in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gpu", "is not NAME=HOST:PORT"),
        ("=host:1", "is not NAME=HOST:PORT"),
        ("a@b=host:1", "is not NAME=HOST:PORT"),
        ("gpu=host", "invalid address 'host'"),
        ("gpu=host:1,password=x", "'password=x' is unknown"),
        ("gpu=host:1,tls=yes", "'tls=yes' is unknown"),
        ("gpu=host:1,token-file=none", "can't read the token file none"),
        ("gpu=host:1,cert=c.pem", "needs its private key"),
    ],
)
def test_a_peer_that_cannot_be_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidSettings, match=why):
        parse_peer(text)


def test_a_token_is_read_from_a_file_and_only_sent_encrypted(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    peer = parse_peer(f"gpu=gpu.example.com:8001,tls,token-file={tmp_path / 'token'}")
    assert (peer.name, peer.target.address, peer.target.token) == (
        "gpu",
        "gpu.example.com:8001",
        "secret",
    )
    assert peer.target.tls is not None
    with pytest.raises(InvalidSettings, match="would be sent in the clear"):
        parse_peer(f"gpu=gpu.example.com:8001,token-file={tmp_path / 'token'}")
    with pytest.raises(InvalidSettings, match="gpu is given twice"):
        parse_peers(["gpu=a:1", "gpu=b:1"])


def test_many_boxes_agree_as_on_the_server() -> None:
    """The SDK's matching against the server's, on random boxes."""
    from visavis.agreement import detection_agreement
    from visavis.v1 import vision_pb2 as pb

    from visavis_server.vision import comparison
    from visavis_server.vision.results import Box, Detected, Detection

    random = np.random.default_rng(0)

    def some(count: int) -> tuple[Detected, list[pb.Detection]]:
        corners = random.uniform(0, 60, (count, 2)).astype(np.float32)
        sides = random.uniform(10, 60, (count, 2)).astype(np.float32)
        rows = np.concatenate((corners, corners + sides), 1)
        ids = random.integers(0, 3, count)
        scores = random.random(count).astype(np.float32)
        ours = Detected(
            tuple(
                Detection(Box(*map(float, row)), int(k), f"c{k}", float(s))
                for row, k, s in zip(rows, ids, scores, strict=True)
            )
        )
        theirs = [
            pb.Detection(
                box=pb.BoundingBox(x_min=r[0], y_min=r[1], x_max=r[2], y_max=r[3]),
                class_id=int(k),
                label=f"c{k}",
                score=s,
            )
            for r, k, s in zip(rows.tolist(), ids, scores.tolist(), strict=True)
        ]
        return ours, theirs

    for count in (0, 1, 40, 120):
        (one, one_pb), (other, other_pb) = some(count), some(count + 5)
        expected = comparison.detection_agreement(one, other)
        found = detection_agreement(one_pb, other_pb)
        assert found.matched == len(expected.matches)
        assert found.f1 == pytest.approx(expected.f1)
        assert [(m.index, m.baseline_index) for m in found.matches] == [
            (m.index, m.baseline_index) for m in expected.matches
        ]
        if expected.matches:
            assert found.mean_iou == pytest.approx(expected.mean_iou, abs=1e-5)


@pytest.fixture(scope="module")
def other_labels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Models whose label sets differ, in names, order and number, but not always in their own."""
    folders = {
        name: tmp_path_factory.mktemp(f"labels-{name}") for name in ("both", "here", "there")
    }
    colors = LabelSet(name="mine", labels=("red", "green", "blue"))
    # As many, under the same name of the set: ids don't mean the same.
    spelled = LabelSet(name="mine", labels=("Violet", "GREEN", "Red"))
    things = LabelSet(name="two-things", labels=("cat", "dog"))
    others = LabelSet(name="others", labels=("zebra", "Cat"))
    files = {
        ("here", "colors"): (graphs.classifier(2.0), graphs.classifier_document, colors),
        ("there", "spelled"): (graphs.classifier(1.0), graphs.classifier_document, spelled),
        ("here", "boxes"): (graphs.constant(graphs.ROWS), graphs.detector_document, things),
        ("there", "swapped"): (graphs.constant(_SWAPPED), graphs.detector_document, others),
    }
    for (where, name), (graph, document, labels) in files.items():
        contents, _ = graphs.export(graph, document(label_set=labels))
        for folder in (folders["both"], folders[where]):
            graphs.put(folder, name, 1, contents)
    with ExitStack() as stack:
        yield Servers(
            *(
                stack.enter_context(
                    serving(Settings(models=folder, grpc="127.0.0.1:0", device="cpu"))
                )
                for folder in folders.values()
            )
        )


# The first cat is a cat here too; two zebras lie where the other model has a dog and nothing.
_SWAPPED = graphs.yolov5_rows(
    (21, 20, 20, 20, 1.0, 0.1, 0.9),
    (50, 50, 10, 20, 0.5, 0.9, 0.1),
    (20, 50, 10, 10, 0.5, 0.9, 0.1),
)


@pytest.mark.parametrize("color", [RED, GREEN, BLUE])
@pytest.mark.parametrize("baseline", ["first", "last"])
def test_what_one_side_cannot_know_is_left_out_and_counted_as_on_one_server(
    other_labels: Servers, color: tuple[int, int, int], baseline: str
) -> None:
    picture, last = plain(color), baseline == "last"
    for names, split in (
        (["colors", "spelled"], ["colors", "spelled@gpu"]),
        (["boxes", "swapped"], ["boxes", "swapped@gpu"]),
    ):
        asked = {"top_k": 2, "baseline": names[-1] if last else None}
        (expected,) = other_labels.both.compare(picture, models=names, **asked).comparisons
        address = other_labels.here._server.address
        with PeeredClient(address, [other_labels.peer], timeout=60) as client:
            asked["baseline"] = split[-1] if last else None
            (found,) = client.compare(picture, models=split, **asked).comparisons
        for one, other in zip(expected.answers, found.answers, strict=True):
            for field in ("classification_agreement", "detection_agreement"):
                right, own = getattr(one.message, field), getattr(other.message, field)
                assert own.SerializePartialToString(deterministic=True) == (
                    right.SerializePartialToString(deterministic=True)
                ) or _nearly(own, right)


def _nearly(own: object, right: object) -> bool:
    """Compare field by field: the server computes in single precision."""
    assert {field.name for field, _ in own.ListFields()} == {
        field.name for field, _ in right.ListFields()
    }
    for field, value in right.ListFields():
        if field.name == "matches":
            assert [(m.index, m.baseline_index) for m in own.matches] == [
                (m.index, m.baseline_index) for m in value
            ]
        else:
            assert getattr(own, field.name) == pytest.approx(value, abs=1e-5)
    return True


def test_unknown_labels_are_counted_by_hand(other_labels: Servers) -> None:
    address = other_labels.here._server.address
    with PeeredClient(address, [other_labels.peer], timeout=60) as client:
        comparison = client.compare(plain(RED), top_k=2)
    found = agreements(comparison)
    labels, boxes = found["spelled"], found["swapped"]
    assert isinstance(labels, ClassificationAgreement) and isinstance(boxes, DetectionAgreement)
    assert labels.jensen_shannon_divergence is None
    # Only "violet" lights up for red; after it, green and red are even, and green comes first.
    assert (labels.same_top1, labels.unknown_here, labels.unknown_in_baseline) == (False, 1, 0)
    # The cats match; the dog and two zebras are unknown to the other model.
    assert (boxes.matched, boxes.only_here, boxes.only_in_baseline) == (1, 0, 0)
    assert (boxes.unknown_here, boxes.unknown_in_baseline, boxes.f1) == (2, 1, 1.0)


def test_a_folder_says_how_many_answers_are_left_out(
    other_labels: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target = tmp_path / "pictures", tmp_path / "compared.json"
    folder.mkdir()
    for index, color in enumerate([RED, RED, GREEN, GREEN, GREEN, BLUE]):
        (folder / f"{index}.png").write_bytes(plain(color))
    report, markdown = tmp_path / "report.html", tmp_path / "summary.md"
    options = ["--peer", f"gpu={other_labels.peer.target.address}", "--json", str(target)]
    options += ["--report", str(report), "--markdown", str(markdown)]
    server = other_labels.here._server.address
    assert main(["compare", str(folder), "--server", server, *options]) == 0
    data = json.loads(target.read_text())
    jsonschema.validate(data, SCHEMA)
    pairs = {pair["model"]: pair for pair in data["pairs"]}
    # For red, the first class of the other model is violet; blue is unknown to it.
    labels, boxes = pairs["spelled@gpu"], pairs["swapped@gpu"]
    assert (labels["unknown_here"], labels["unknown_in_baseline"]) == (2, 1)
    assert labels["agreement"] == 1.0
    assert (boxes["unknown_here"], boxes["unknown_in_baseline"]) == (12, 6)
    assert boxes["agreement"] == 1.0
    said = "12 of its answers and 6 of boxes's are left out of the agreement"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in markdown.read_text()
    assert said in report.read_text().replace("&#39;", "'")


def test_a_peers_latency_has_its_own_decoding(servers: Servers) -> None:
    from visavis.errors import VisavisError
    from visavis.merging import MAIN, Asked, Outcome, merged
    from visavis.v1 import vision_pb2 as pb

    def answered(model: str, decode_ms: float) -> Outcome:
        answer = pb.ModelAnswer(served_by=pb.ServedBy(model=model), timings=pb.Timings(total_ms=9))
        task = pb.TaskComparison(task=pb.TASK_CLASSIFICATION, baseline=model, answers=[answer])
        return Outcome(
            pb.CompareResponse(
                comparisons=[task],
                timings=pb.Timings(decode_ms=decode_ms),
                image_size=pb.ImageSize(width=8, height=8),
            )
        )

    response = merged({MAIN: answered("a", 3.0), "gpu": answered("b", 7.0)}, Asked())
    times = {a.served_by.model: a.timings.decode_ms for a in response.comparisons[0].answers}
    assert (times, response.timings.decode_ms) == ({"a": 0.0, "b@gpu": 7.0}, 3.0)
    with pytest.raises(VisavisError, match="does not tell a picture's size"):
        merged({"gpu": Outcome(pb.CompareResponse())}, Asked())
