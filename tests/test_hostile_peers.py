"""Peers that lie: their models fail with a reason, and nothing that they say acts elsewhere."""

import csv
import gzip
import json
import math
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from markdown_it import MarkdownIt
from visavis import Client
from visavis.commands import main
from visavis.errors import Overloaded, ServerFailed, VisavisError
from visavis.peer_clients import PeerClient
from visavis.peers import Peer, PeeredClient
from visavis.results import AnswerStatus
from visavis.target import Target
from visavis.v1 import vision_pb2 as pb

from tests.answering import Answer, answering
from tests.conftest import serving
from tests.server import graphs
from tests.server.pictures import BLUE, GREEN, RED, plain
from visavis_server.settings import Settings

SERVICE = "visavis.v1.VisionService"
Edit = Callable[[pb.CompareResponse], object]


@pytest.fixture(scope="module")
def main_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("main")
    colors, _ = graphs.export(graphs.classifier(2.0), graphs.classifier_document())
    graphs.put(folder, "colors", 1, colors)
    boxes, _ = graphs.export(graphs.constant(graphs.ROWS), graphs.detector_document())
    graphs.put(folder, "boxes", 1, boxes)
    with serving(Settings(models=folder, grpc="127.0.0.1:0", device="cpu")) as client:
        yield client


def cards(labels: tuple[str, ...] = ("red", "green", "blue")) -> list[pb.Model]:
    """Return the cards of a detector and a classifier."""
    kinds = {"hues": pb.TASK_CLASSIFICATION, "things": pb.TASK_OBJECT_DETECTION}
    return [
        pb.Model(
            name=name,
            version=1,
            versions=[1],
            tasks=[task],
            precision="fp32",
            execution_provider="CPUExecutionProvider",
            label_set=pb.LabelSet(name="own", size=len(labels), labels=labels),
        )
        for name, task in kinds.items()
    ]


def honest(labels: tuple[str, ...] = ("red", "green", "blue")) -> pb.CompareResponse:
    """Return a comparison of both models as a server sends it."""
    response = pb.CompareResponse(
        image_size=pb.ImageSize(width=64, height=64), models=cards(labels)
    )
    for card in response.models:
        del card.label_set.labels[:]
        answer = response.comparisons.add(task=card.tasks[0], baseline=card.name).answers.add(
            served_by=pb.ServedBy(model=card.name, version=1, precision="fp32"),
            timings=pb.Timings(inference_ms=1.0, total_ms=2.0),
        )
        if card.tasks[0] == pb.TASK_CLASSIFICATION:
            for k, label in enumerate(labels):
                answer.classifications.add(class_id=k, label=label, score=1 / (k + 1))
        else:
            box = pb.BoundingBox(x_min=1, y_min=2, x_max=30, y_max=40)
            answer.detections.add(class_id=0, label=labels[0], score=0.5, box=box)
    return response


def methods(
    response: pb.CompareResponse, labels: tuple[str, ...] = ("red", "green", "blue")
) -> dict[str, Answer]:
    """Return the methods of a peer that gives one answer about every picture."""
    own = cards(labels)

    def get_model(request: bytes, context: grpc.ServicerContext) -> bytes:
        name = pb.GetModelRequest.FromString(request).model
        (found,) = (card for card in own if card.name == name)
        return pb.GetModelResponse(model=found).SerializeToString()

    encoded = response.SerializeToString()
    return {
        "Compare": lambda request, context: encoded,
        "ListModels": lambda request, context: pb.ListModelsResponse(
            models=own
        ).SerializeToString(),
        "GetModel": get_model,
    }


def statuses(main_client: Client, address: str) -> dict[str, AnswerStatus]:
    peer = Peer("bad", Target(address))
    with PeeredClient(main_client._server.address, [peer], timeout=60) as client:
        client.learn()
        comparison = client.compare(plain(RED))
    return {a.served_by.model: a.status for task in comparison.comparisons for a in task.answers}


def test_an_honest_peer_answers(main_server: Client) -> None:
    with answering(SERVICE, methods(honest())) as address:
        found = statuses(main_server, address)
    assert {name: status.code for name, status in found.items()} == dict.fromkeys(
        ("colors", "hues@bad", "boxes", "things@bad"), "OK"
    )


def hue(response: pb.CompareResponse) -> pb.ModelAnswer:
    return response.comparisons[0].answers[0]


def thing(response: pb.CompareResponse) -> pb.ModelAnswer:
    return response.comparisons[1].answers[0]


def set_score(score: float) -> Edit:
    return lambda response: setattr(hue(response).classifications[0], "score", score)


def set_edge(edge: float) -> Edit:
    return lambda response: setattr(thing(response).detections[0].box, "x_max", edge)


def add_boxes(response: pb.CompareResponse) -> None:
    one = thing(response).detections[0]
    thing(response).detections.extend([one] * 1000)


def add_labels(response: pb.CompareResponse) -> None:
    one = hue(response).classifications[0]
    hue(response).classifications.extend([one] * (1 << 19))


def add_heat_map(response: pb.CompareResponse) -> None:
    hue(response).heat_map.CopyFrom(pb.HeatMap(width=4096, height=4096, values=[0.5]))


def add_control_characters(response: pb.CompareResponse) -> None:
    hue(response).classifications[0].label = "red\x1b]0;title\x07"


def add_models(response: pb.CompareResponse) -> None:
    response.models.extend(pb.Model(name=f"m{k}") for k in range(1000))


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (set_score(math.nan), "hues at .* answers with the score nan"),
        (set_score(-0.5), "answers with the score -0.5"),
        (set_score(math.inf), "sends the number inf"),
        (set_edge(math.nan), "sends the number nan"),
        (lambda r: setattr(hue(r).timings, "inference_ms", math.nan), "inference_ms is nan"),
        (lambda r: setattr(hue(r).timings, "queue_ms", 1e300), r"queue_ms is 1e\+300"),
        (lambda r: setattr(r.timings, "decode_ms", -1), "decode_ms is -1"),
        (lambda r: setattr(hue(r).classifications[0], "class_id", 3), "class id 3; .* 3 labels"),
        (lambda r: setattr(thing(r).detections[0], "class_id", -1), "class id -1"),
        (lambda r: hue(r).ClearField("classifications"), "hues at .* answers without a label"),
        (add_boxes, "answers with 1001 boxes; the most are 1000"),
        (add_labels, "answers with more than 524288 labels and boxes"),
        (add_heat_map, "a heat map of 4096 × 4096 cells and 1 values"),
        (lambda r: r.comparisons[0].answers.append(hue(r)), "answers twice for hues"),
        (lambda r: setattr(hue(r).served_by, "model", "x" * 10_000), "for the model 'xxx"),
        (lambda r: r.models.append(r.models[0]), "lists a model twice"),
        (add_models, "lists 1002 models; a peer may have 1000"),
        (lambda r: setattr(r.models[0], "name", "../x"), "has a model called '../x'"),
        (lambda r: setattr(r.models[0].label_set, "size", 1 << 30), "1073741824 labels"),
        (lambda r: setattr(r.models[0], "precision", "p" * 5000), "a text of 5000 characters"),
        (add_control_characters, "sends control characters: "),
        (lambda r: r.image_size.Clear(), "the picture has 0 × 0 pixels"),
    ],
)
def test_an_answer_that_breaks_a_rule_is_its_models_failure(
    main_server: Client, edit: Edit, why: str
) -> None:
    response = honest()
    edit(response)
    with (
        answering(SERVICE, methods(response)) as address,
        PeerClient(Target(address), 60) as client,
    ):
        with pytest.raises(ServerFailed, match=why):
            client.compare(plain(RED))
        found = statuses(main_server, address)
    assert {name: status.code for name, status in found.items()} == {
        "colors": "OK",
        "hues@bad": "INTERNAL",
        "boxes": "OK",
        "things@bad": "INTERNAL",
    }
    assert len(found["hues@bad"].message) < 400


def test_a_card_of_another_model_is_refused() -> None:
    answers = methods(honest())
    answers["GetModel"] = lambda request, context: pb.GetModelResponse(
        model=cards()[1]
    ).SerializeToString()
    with (
        answering(SERVICE, answers) as address,
        PeerClient(Target(address), 60) as client,
        pytest.raises(ServerFailed, match="with the card of things, not of hues"),
    ):
        client.get_model("hues")


_ASK = """
import resource, sys
from visavis.errors import VisavisError
from visavis.peer_clients import PeerClient
from visavis.target import Target
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
with PeerClient(Target(sys.argv[1]), 60) as client:
    try:
        client.compare(sys.stdin.buffer.read())
    except VisavisError as error:
        print(error.message)
"""


@pytest.mark.parametrize("count", [8_000_000, 48 << 20])
def test_an_endless_answer_fits_into_bounded_memory(count: int) -> None:
    """Each empty label has two bytes in the message, and many times that once it is parsed."""
    label = b"\x1a\x00"  # ModelAnswer.classifications
    answer = _delimited(3, label * count)  # TaskComparison.answers
    whole = honest().SerializeToString() + _delimited(1, answer)
    answers = {**methods(honest()), "Compare": lambda request, context: whole}
    with answering(SERVICE, answers) as address:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK, address, str(3 << 30)],
            input=plain(RED),
            capture_output=True,
            check=False,
        )
    assert asked.returncode == 0, asked.stderr.decode()
    assert b"for the model ''" in asked.stdout or b"this client's limit is" in asked.stdout


def _delimited(number: int, contents: bytes) -> bytes:
    size, head = len(contents), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + contents


@contextmanager
def raw_peer(answer: Callable[[h2.connection.H2Connection, int], None]) -> Iterator[str]:
    """Run a server that answers each call with frames of its own."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
                http.initiate_connection()
                connection.sendall(http.data_to_send())
                while data := connection.recv(1 << 16):
                    for event in http.receive_data(data):
                        if isinstance(event, h2.events.StreamEnded):
                            answer(http, event.stream_id)
                    connection.sendall(http.data_to_send())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def test_a_compressed_answer_is_refused_unexpanded() -> None:
    """Expanded, it would be larger than the limit, and the error would say that."""
    packed = gzip.compress(bytes(17 << 20))
    assert len(packed) < 18 << 10

    def answer(http: h2.connection.H2Connection, stream: int) -> None:
        headers = [(":status", "200"), ("content-type", "application/grpc")]
        http.send_headers(stream, [*headers, ("grpc-encoding", "gzip")])
        message = struct.pack(">BI", 1, len(packed)) + packed
        http.send_data(stream, message[:16_000])
        http.send_data(stream, message[16_000:])
        http.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    with (
        raw_peer(answer) as address,
        PeerClient(Target(address), 5) as client,
        pytest.raises(VisavisError, match=r"gzip|deserializing"),
    ):
        client.list_models()


def refusing(details: bytes) -> dict[str, Answer]:
    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")

    return {"ListModels": refuse}


def status_with(detail: any_pb2.Any) -> bytes:
    whole = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="busy", details=[detail])
    return whole.SerializeToString()


def retry_in(seconds: int) -> any_pb2.Any:
    detail, retry = any_pb2.Any(), error_details_pb2.RetryInfo()
    retry.retry_delay.seconds = seconds
    detail.Pack(retry)
    return detail


@pytest.mark.parametrize(
    ("details", "retry_after_s"),
    [
        (b"\xff\xff", None),
        (
            status_with(
                any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")
            ),
            None,
        ),
        (status_with(retry_in(-5)), 0.0),
        (status_with(retry_in(1 << 62)), float(1 << 62)),
    ],
    ids=["no status", "no detail", "the past", "for ever"],
)
def test_a_status_that_cannot_be_read_is_still_a_status(
    details: bytes, retry_after_s: float | None
) -> None:
    with (
        answering(SERVICE, refusing(details)) as address,
        PeerClient(Target(address), 10) as client,
        pytest.raises(Overloaded, match="busy") as raised,
    ):
        client.list_models()
    assert raised.value.retry_after_s == retry_after_s


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    '=HYPERLINK("http://x.example","b")',
    "[link](http://x.example) ![p](http://x.example/p.png) `code` | cell <script>1</script> @team",
)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}


def test_what_a_peer_and_a_folder_say_is_inert_in_every_file(
    main_server: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    response = honest(HOSTILE)
    del response.models[1:], response.comparisons[1:]
    response.left_out.add(model="m", reason="\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe")
    folder, labels = tmp_path / "pictures", tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "class_index"])
        for number, color in enumerate([RED, GREEN, BLUE] * 10):
            path = Path(HOSTILE[number % 2].replace("/", "-"), f"{number}.png")
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(plain(color))
            rows.writerow([path, number % 3])
    options = {"--markdown": "m.md", "--junit": "j.xml", "--json": "f.json", "--report": "r.html"}
    options |= {"--csv-confusion": "c.csv", "--csv-slices": "s.csv", "--fiftyone": "fo"}
    files = {name: tmp_path / name for name in options.values()}
    with answering(SERVICE, methods(response, HOSTILE)) as address:
        servers = ["--server", main_server._server.address, "--peer", f"bad={address}"]
        arguments = ["compare", str(folder), *servers, "--models", "hues@bad,colors"]
        arguments += ["--labels", str(labels), "--fail-under", "top1=0.01"]
        for option, name in options.items():
            arguments += [option, str(files[name])]
        assert main(arguments) == 0, capsys.readouterr().err
        assert main(["compare", str(next(folder.rglob("*.png"))), *servers]) == 0
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert all(c.isprintable() or c == "\n" for c in text)
    tags = _Tags()
    tags.feed(files["r.html"].read_text())
    assert "figure" in tags.found and not tags.found & {"img", "iframe", "object"}
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in tags.links)
    assert "&lt;img src=x" in files["r.html"].read_text()
    markdown = files["m.md"].read_text()
    kinds = {
        child.type
        for token in MarkdownIt("commonmark").enable("table").parse(markdown)
        for child in [token, *(token.children or ())]
    }
    assert HOSTILE[0] in markdown and "table_open" in kinds
    assert not kinds & {"html_inline", "html_block", "link_open", "image"}
    ElementTree.fromstring(files["j.xml"].read_text())
    json.loads(files["f.json"].read_text())
    for name in ("c.csv", "s.csv"):
        cells = [cell for row in csv.reader(files[name].read_text().splitlines()) for cell in row]
        assert any(cell.startswith("'=HYPERLINK") for cell in cells)
        assert not any(cell.startswith("=") for cell in cells)
