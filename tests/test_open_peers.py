"""Peers that speak the Open Inference Protocol only, with our card in their configuration."""

import json
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from visavis import Client
from visavis.commands import main
from visavis.errors import InvalidSettings
from visavis.peers import Peer, PeeredClient
from visavis.target import Target
from visavis.v1 import vision_pb2

from tests.answering import Answer, answering
from tests.conftest import serving
from tests.server import graphs
from tests.server.pictures import BLUE, GREEN, RED, plain
from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.card import LabelSet
from visavis_server.settings import Settings

SERVICE = "inference.GRPCInferenceService"
CARD = "visavis.card"


def forwarding(address: str, stack: ExitStack) -> dict[str, Answer]:
    """Return methods that pass every message on to another server, byte by byte."""
    channel = stack.enter_context(grpc.insecure_channel(address))

    def method(name: str) -> Answer:
        call = channel.unary_unary(f"/{SERVICE}/{name}")

        def forward(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return call(request, timeout=60)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return forward

    names = ("RepositoryIndex", "ModelMetadata", "ModelConfig", "ModelInfer")
    return {name: method(name) for name in names}


@dataclass(frozen=True)
class Servers:
    """One server with all models; one with half of them, and two doors to the other half.

    there: its address, as visavis. open: the same server behind the Open Inference Protocol.
    """

    both: Client
    here: Client
    there: str
    open: str
    methods: dict[str, Answer]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folders = {name: tmp_path_factory.mktemp(f"open-{name}") for name in ("both", "here", "there")}
    moved = graphs.ROWS.copy()
    moved[..., 0] += 3
    shuffled = LabelSet(name="shuffled", labels=("blue", "Red", "violet"))
    files = {
        ("here", "colors"): (graphs.classifier(2.0), graphs.classifier_document()),
        ("there", "paler"): (graphs.classifier(0.7), graphs.classifier_document()),
        ("there", "shuffled"): (
            graphs.classifier(0.7),
            graphs.classifier_document(label_set=shuffled),
        ),
        ("here", "boxes"): (graphs.constant(graphs.ROWS), graphs.detector_document()),
        ("there", "moved"): (graphs.constant(moved), graphs.detector_document()),
    }
    for (where, name), (graph, document) in files.items():
        contents, _ = graphs.export(graph, document)
        for folder in (folders["both"], folders[where]):
            graphs.put(folder, name, 1, contents)
    with ExitStack() as stack:
        both, here, there = (
            stack.enter_context(serving(Settings(models=folder, grpc="127.0.0.1:0", device="cpu")))
            for folder in folders.values()
        )
        methods = forwarding(there._server.address, stack)
        address = stack.enter_context(answering(SERVICE, methods))
        yield Servers(both, here, there._server.address, address, methods)


@contextmanager
def peered(servers: Servers, address: str) -> Iterator[PeeredClient]:
    peer = Peer("oip", Target(address))
    with PeeredClient(servers.here._server.address, [peer], timeout=60) as client:
        yield client


NAMES = ["colors", "paler", "shuffled", "boxes", "moved"]
SPLIT = ["colors", "paler@oip", "shuffled@oip", "boxes", "moved@oip"]


@pytest.mark.parametrize("color", [RED, GREEN, BLUE])
def test_an_open_peer_agrees_as_the_same_models_on_one_server(
    servers: Servers, color: tuple[int, int, int]
) -> None:
    expected = servers.both.compare(plain(color), models=NAMES, top_k=2)
    with peered(servers, servers.open) as client:
        found = client.compare(plain(color), models=SPLIT, top_k=2)
    assert found.image_size == expected.image_size
    for task, right_task in zip(found.comparisons, expected.comparisons, strict=True):
        for answer, right in zip(task.answers, right_task.answers, strict=True):
            assert answer.status.ok
            name, _, peer = answer.served_by.model.partition("@")
            assert name == right.served_by.model
            assert answer.served_by.execution_provider == right.served_by.execution_provider
            # The protocol has no stages' times.
            assert (answer.timings is None) == bool(peer)
            assert answer.classifications == right.classifications
            assert answer.detections == right.detections
            assert as_numbers(answer.agreement) == pytest.approx(
                as_numbers(right.agreement), abs=1e-5
            )


def as_numbers(agreement: object) -> dict[str, float]:
    if agreement is None:
        return {}
    names = [
        "same_top1", "top_k_overlap", "jensen_shannon_divergence", "matched", "only_here",
        "only_in_baseline", "mean_iou", "mean_score_difference", "f1", "unknown_here",
        "unknown_in_baseline",
    ]  # fmt: skip
    values = {name: getattr(agreement, name, None) for name in names}
    return {name: float(value) for name, value in values.items() if value is not None}


def test_options_of_a_comparison_reach_an_open_peer(servers: Servers) -> None:
    options: dict[str, Any] = {"iou_threshold": 0.7, "score_threshold": 0.5, "max_detections": 1}
    for more in ({}, {"labels": ["dog"]}, {"labels": ["cat"]}):
        asked = {**options, **more}
        expected = servers.both.compare(plain(RED), models=["boxes", "moved"], **asked)
        with peered(servers, servers.open) as client:
            found = client.compare(plain(RED), models=["boxes", "moved@oip"], **asked)
        (right,), (own,) = expected.comparisons, found.comparisons
        assert own.answers[1].detections == right.answers[1].detections
    with peered(servers, servers.open) as client:
        (task,) = client.compare(
            plain(RED), models=["boxes", "moved@oip"], explain=True
        ).comparisons
    assert task.answers[1].status.code == "INVALID_ARGUMENT"
    assert "has no heat maps" in task.answers[1].status.message


def test_an_open_peer_has_cards(servers: Servers) -> None:
    with peered(servers, servers.open) as client, peered(servers, servers.there) as other:
        assert client.list_models() == other.list_models()
        assert client.get_model("paler@oip") == other.get_model("paler@oip")


def folder_of_pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = ["file,class_index"]
    for index, color in enumerate([RED, GREEN, BLUE] * 4):
        (folder / f"{index}.png").write_bytes(plain(color))
        rows.append(f"{index}.png,{index % 3}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def test_a_folder_has_the_same_figures_in_either_protocol(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_pictures(tmp_path)
    server, models = servers.here._server.address, ",".join(SPLIT)
    asked = ["compare", str(folder), "--server", server, "--models", models]
    found = {}
    for name, address in {"visavis": servers.there, "open": servers.open}.items():
        file, report = tmp_path / f"{name}.json", tmp_path / f"{name}.html"
        options = ["--peer", f"oip={address}", "--json", str(file), "--report", str(report)]
        assert main([*asked, *options, "--within-ms", "1000"]) == 0
        found[name] = json.loads(file.read_text())
        assert "paler@oip" in report.read_text()
    by_name = {one["model"]: one for one in found["open"]["models"]}
    assert [one["model"] for one in found["visavis"]["models"]] == list(by_name)
    # Only times differ: an open peer has none.
    assert "latency_ms" in by_name["colors"] and "latency_ms" not in by_name["paler@oip"]
    for name in found:
        for one in found[name]["models"]:
            one.pop("latency_ms", None)
            one.pop("dominated_by", None)
    assert found["open"]["models"] == found["visavis"]["models"]
    assert found["open"]["pairs"] == found["visavis"]["pairs"]
    assert found["open"]["slices"] == found["visavis"]["slices"]
    printed = capsys.readouterr().out
    assert "paler@oip" in printed


def edited(methods: dict[str, Answer], edit: Callable[[pb.ModelConfig], None]) -> dict[str, Answer]:
    """Return the methods with changed configurations."""

    def config(request: bytes, context: grpc.ServicerContext) -> bytes:
        response = pb.ModelConfigResponse.FromString(methods["ModelConfig"](request, context))
        edit(response.config)
        return response.SerializeToString()

    return {**methods, "ModelConfig": config}


def without_card(config: pb.ModelConfig) -> None:
    del config.parameters[CARD]


def with_text(config: pb.ModelConfig) -> None:
    config.parameters[CARD].string_value = "{'name': 'paler'}"


def with_depth(config: pb.ModelConfig) -> None:
    config.parameters[CARD].string_value = "[" * 100_000


def with_size(config: pb.ModelConfig) -> None:
    config.parameters[CARD].string_value += " " * (9 << 20)


def without_labels(config: pb.ModelConfig) -> None:
    config.parameters[CARD].string_value = '{"name": "paler", "tasks": ["TASK_CLASSIFICATION"]}'


def with_tensors(config: pb.ModelConfig) -> None:
    config.input[0].name = "images"


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (without_card, "no card can be read: the configuration of moved, moved_image, paler"),
        (with_text, "is no card: Failed to load JSON"),
        (with_depth, "is no card: "),
        (with_size, "exceed 16777216 bytes"),
        (without_labels, "has no task or no labels"),
        (with_tensors, "take tensors; a compared model takes encoded pictures"),
    ],
)
def test_an_open_peer_without_a_usable_card_is_refused(
    servers: Servers,
    edit: Callable[[pb.ModelConfig], None],
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = folder_of_pictures(tmp_path)
    with answering(SERVICE, edited(servers.methods, edit)) as address:
        server = ["--server", servers.here._server.address, "--peer", f"oip={address}"]
        for what in (folder, folder / "0.png"):
            assert main(["compare", str(what), *server]) == 2
            said = " ".join(capsys.readouterr().err.split())
            assert why in said
            assert address in said


def test_a_server_of_neither_protocol_is_refused(servers: Servers) -> None:
    with (
        answering(SERVICE, {}) as address,
        peered(servers, address) as client,
        pytest.raises(InvalidSettings, match="it has neither visavis' service nor"),
    ):
        client.compare(plain(RED))


def own_model(answer: Callable[[bytes], pb.ModelInferResponse]) -> dict[str, Answer]:
    """Return methods of a server of one detector, written by hand after the protocol."""
    card = vision_pb2.Model(
        name="lamp",
        version=3,
        tasks=[vision_pb2.TASK_OBJECT_DETECTION],
        precision="fp16",
        label_set=vision_pb2.LabelSet(name="lamps", labels=("cat", "lamp")),
        detection_defaults=vision_pb2.DetectionDefaults(score_threshold=0.25),
    )
    index = pb.RepositoryIndexResponse()
    index.models.add(name="street_lamps", version="3", state="READY")
    config = pb.ModelConfigResponse()
    config.config.name = "street_lamps"
    config.config.input.add(name="IMAGE", data_type="TYPE_STRING", dims=[1])
    config.config.parameters[CARD].string_value = json_format.MessageToJson(card)

    def infer(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = pb.ModelInferRequest.FromString(request)
        assert asked.model_name == "street_lamps"
        (tensor,), (raw,) = asked.inputs, asked.raw_input_contents
        assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("IMAGE", "BYTES", [1, 1])
        (length,) = struct.unpack("<I", raw[:4])
        assert length == len(raw) - 4
        return answer(raw[4:]).SerializeToString()

    return {
        "RepositoryIndex": lambda request, context: index.SerializeToString(),
        "ModelConfig": lambda request, context: config.SerializeToString(),
        "ModelInfer": infer,
    }


def response(
    class_ids: list[int], scores: list[float], boxes: list[float]
) -> pb.ModelInferResponse:
    """Return outputs in typed fields, as Triton's Python clients also send them."""
    found = pb.ModelInferResponse(model_name="street_lamps", model_version="3")
    n = len(class_ids)
    found.outputs.add(name="class_ids", datatype="INT64", shape=[1, n]).contents.int64_contents[
        :
    ] = class_ids
    found.outputs.add(name="scores", datatype="FP32", shape=[1, n]).contents.fp32_contents[:] = (
        scores
    )
    found.outputs.add(name="boxes", datatype="FP32", shape=[1, n, 4]).contents.fp32_contents[:] = (
        boxes
    )
    return found


def shortened(name: str) -> pb.ModelInferResponse:
    """Return two rows, but one in an output, whose shape says so."""
    found = response([1, 1], [0.5, 0.5], [0, 0, 1, 1] * 2)
    (output,) = (one for one in found.outputs if one.name == name)
    output.shape[1] = 1
    del output.contents.fp32_contents[len(output.contents.fp32_contents) // 2 :]
    return found


def test_a_peer_with_too_many_models_is_refused(servers: Servers) -> None:
    methods = own_model(lambda encoded: response([], [], []))
    index = pb.RepositoryIndexResponse()
    for number in range(1001):
        index.models.add(name=f"m{number}", state="READY")
    methods["RepositoryIndex"] = lambda request, context: index.SerializeToString()
    with (
        answering(SERVICE, methods) as address,
        peered(servers, address) as client,
        pytest.raises(InvalidSettings, match="lists 1001 models; a peer may have 1000"),
    ):
        client.compare(plain(RED))


def test_another_servers_answers_are_read_as_the_protocol_has_them(servers: Servers) -> None:
    picture = plain(RED)
    # Not in order, and padded.
    given = response([0, 1, -1], [0.5, 0.75, 0.0], [1, 2, 30, 40, 5, 6, 7, 8, 0, 0, 0, 0])

    def answer(encoded: bytes) -> pb.ModelInferResponse:
        assert encoded == picture
        return given

    with answering(SERVICE, own_model(answer)) as address, peered(servers, address) as client:
        (task,) = client.compare(picture, models=["boxes", "street_lamps@oip"]).comparisons
    lamps = task.answers[1]
    assert lamps.served_by.model == "street_lamps@oip"
    assert (lamps.served_by.version, lamps.served_by.precision) == (3, "fp16")
    assert [(d.label, d.score, d.box.xyxy) for d in lamps.detections] == [
        ("lamp", 0.75, (5, 6, 7, 8)),
        ("cat", 0.5, (1, 2, 30, 40)),
    ]
    # The lamp is unknown to the baseline, and its dog to the peer.
    assert lamps.agreement is not None
    assert (lamps.agreement.unknown_here, lamps.agreement.unknown_in_baseline) == (1, 1)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (response([2], [0.5], [0, 0, 1, 1]), "answers with class id 2; its card has 2 labels"),
        (response([1], [0.5], [0, 0, 1]), "sends boxes as FP32"),
        (response([1, 1], [0.5], [0, 0, 1, 1]), "sends scores as FP32"),
        (pb.ModelInferResponse(), "has no output scores"),
        (response([1], [math.nan], [0, 0, 1, 1]), "answers with the score nan"),
        (response([1], [-0.5], [0, 0, 1, 1]), "answers with the score -0.5"),
        (response([1], [0.5], [0, 0, math.inf, 1]), "answers with the box [0.0, 0.0, inf, 1.0]"),
        (
            response([1] * 40_000, [0.5] * 40_000, [0, 0, 1, 1] * 40_000),
            "sends 40000 numbers as scores; it may send 32768",
        ),
        (shortened("scores"), "answers with 1 scores and 2 class ids"),
        (shortened("boxes"), "answers with 1 boxes and 2 scores"),
    ],
)
def test_an_answer_that_is_not_its_cards_is_that_models_failure(
    servers: Servers, given: pb.ModelInferResponse, why: str
) -> None:
    with (
        answering(SERVICE, own_model(lambda encoded: given)) as address,
        peered(servers, address) as client,
    ):
        comparison = client.compare(plain(RED))
    statuses = {
        a.served_by.model: a.status for task in comparison.comparisons for a in task.answers
    }
    assert statuses["boxes"].ok
    failed = statuses["street_lamps@oip"]
    assert failed.code == "INTERNAL"
    assert why in failed.message
