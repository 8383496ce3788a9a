import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.rpc import code_pb2
from PIL import Image
from visavis.bench.process import Watched, listener
from visavis.bench.workload import calls_of, models_asked
from visavis.card_reading import read_model
from visavis.errors import InvalidRequest, InvalidSettings
from visavis.v1 import vision_pb2 as pb

from tests.server.pictures import EXIF_BLOCKS, with_exif

from . import canned
from .fakes import FakeServer, refusal

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]

BRIEF = ("--seconds", "0.2", "--warm-up", "0", "--rounds", "2")
CLASSIFY = ("--model", "resnet50", "--callers", "1,3", *BRIEF)
CARDS = [read_model(card) for card in canned.CARDS]


def test_sweep_has_a_line_for_each_load(visavis: Command, pictures: list[Path], capsys: Captured):
    assert visavis("bench", pictures[0], *CLASSIFY) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "classify: resnet50"
    header = next(line for line in lines if line.startswith("callers"))
    assert " ".join(header.split()) == "callers per s ms ms ms errors server client MiB"
    rows = [line.split() for line in lines if line.split()[:1] in (["1"], ["3"])]
    assert [row[0] for row in rows] == ["1", "3"]
    # Answers per second, three percentiles, errors, CPU of both, RSS.
    assert all(len(row) == 9 and float(row[1]) > 0 for row in rows)
    assert all(len(line) <= 80 for line in lines)


def test_json_has_every_round_and_the_machine(
    visavis: Command, pictures: list[Path], tmp_path: Path
):
    file = tmp_path / "bench.json"
    assert visavis("bench", *pictures[:2], *CLASSIFY, "--json", file) == 0
    report = json.loads(file.read_text())
    assert report["machine"]["cores"] >= 1
    assert [load["callers"] for load in report["loads"]] == [1, 3]
    for load in report["loads"]:
        assert len(load["rounds"]) == 2
        assert load["median"]["per_s"] > 0
        assert load["median"]["latency"]["p50_ms"] <= load["median"]["latency"]["p99_ms"]
        # The fake server is this very process.
        assert load["median"]["server_rss_mib"] > 1


def test_plot_is_a_picture(visavis: Command, pictures: list[Path], tmp_path: Path):
    for name, load in (("callers", CLASSIFY), ("rate", ("--rate", "20,40", *CLASSIFY[:2], *BRIEF))):
        file = tmp_path / f"{name}.png"
        assert visavis("bench", pictures[0], *load, "--plot", file) == 0
        with Image.open(file) as picture:
            assert picture.format == "PNG"
            # Something is drawn on it.
            assert len(picture.convert("L").getcolors() or ()) > 20


def test_pictures_are_sent_in_turn(visavis: Command, fake: FakeServer, pictures: list[Path]):
    assert visavis("bench", *pictures[:3], *CLASSIFY) == 0
    sent = {request.image.encoded for request in fake.requests if hasattr(request, "top_k")}
    assert sent == {b"a", b"b", b"c"}


def test_mixed_load_calls_all_methods_and_reports_their_shares(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    models = ("--model", "resnet50,yolov5n", "--method", "mixed", "--callers", "3")
    assert visavis("bench", pictures[0], *models, *BRIEF) == 0
    out = capsys.readouterr().out
    assert all(fake.calls[rpc] for rpc in ("Classify", "Detect", "Compare"))
    assert out.startswith("classify, detect, compare: resnet50, yolov5n\n")
    cells = [line.split() for line in out.splitlines()]
    methods = [row[1] for row in cells if row[:1] == ["3"] and len(row) > 1 and row[1].isalpha()]
    assert methods == ["classify", "compare", "detect"]


def test_errors_are_counted_by_status(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    numbers = itertools.count()

    def half(request: object, context: object) -> pb.ClassifyResponse:
        if next(numbers) % 2:
            refusal(code_pb2.RESOURCE_EXHAUSTED, "full")(request, context)
        return canned.CLASSIFIED

    fake.answers["Classify"] = half
    assert visavis("bench", pictures[0], "--model", "resnet50", "--callers", "1", *BRIEF) == 0
    assert "RESOURCE_EXHAUSTED" in capsys.readouterr().out


def test_load_without_answers_fails(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    fake.answers["Classify"] = refusal(code_pb2.INTERNAL, "broken")
    assert visavis("bench", pictures[0], *CLASSIFY) == 5
    out, err = capsys.readouterr()
    assert " INTERNAL" in out
    assert "no call succeeded at 1 caller: INTERNAL" in err


def test_check_finds_an_answer_that_differs(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    numbers = itertools.count()

    def changing(request: object, context: object) -> pb.ClassifyResponse:
        label = "cab" if next(numbers) == 4 else "bus"
        return pb.ClassifyResponse(
            classifications=canned.labels((label, 0.5)), served_by=canned.served_by("resnet50")
        )

    fake.answers["Classify"] = changing
    one = ("--model", "resnet50", "--callers", "1", *BRIEF)
    assert visavis("bench", pictures[0], *one, "--check") == 5
    out, err = capsys.readouterr()
    assert "1 of " in out
    assert "a.jpg: resnet50: rank 1 is 'cab' instead of 'bus'" in out
    assert "answers differ" in err
    assert visavis("bench", pictures[0], *one, "--check") == 0
    assert "all equal the first answers" in capsys.readouterr().out


def test_raw_pixels_are_sent_upright(visavis: Command, fake: FakeServer, tmp_path: Path):
    picture = Image.new("RGB", (2, 1), "red")
    picture.putpixel((1, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: what lies left is above
    picture.save(tmp_path / "turned.png", exif=exif)
    assert visavis("bench", tmp_path / "turned.png", *CLASSIFY, "--raw") == 0
    raw = fake.requests[-1].image.raw
    assert (raw.format, raw.width, raw.height) == (pb.PIXEL_FORMAT_RGB, 1, 2)
    assert raw.data == bytes([255, 0, 0, 0, 0, 255])


@pytest.mark.parametrize(("blocks", "turned"), EXIF_BLOCKS)
def test_raw_pixels_are_rotated_as_the_server_does(
    visavis: Command, fake: FakeServer, tmp_path: Path, blocks: list[bytes], turned: bool
):
    (tmp_path / "a.jpg").write_bytes(with_exif("JPEG", *blocks))
    assert visavis("bench", tmp_path / "a.jpg", *CLASSIFY, "--raw") == 0
    raw = fake.requests[-1].image.raw
    assert (raw.width, raw.height) == ((10, 20) if turned else (20, 10))


def test_undecodable_file_is_rejected_by_name(
    visavis: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], fake: FakeServer
):
    (tmp_path / "a.jpg").write_bytes(b"<html>")
    assert visavis("bench", tmp_path / "a.jpg", *CLASSIFY, "--raw") == 1
    assert "can't decode" in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
def test_a_file_that_pillow_fails_on_in_other_ways_is_rejected_by_name(
    visavis: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert visavis("bench", tmp_path / "a.png", *CLASSIFY, "--raw") == 1
    assert "can't decode" in capsys.readouterr().err

    def patched(*arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'pi_heif'")

    monkeypatch.setattr(Image, "open", patched)
    assert visavis("bench", tmp_path / "a.png", *CLASSIFY, "--raw") == 1
    assert "can't decode" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--callers", "0"), "0"),
        (("--callers", "many"), "many"),
        (("--rate", "0"), "above 0"),
        (("--rate", "nan"), "nan"),
        (("--callers", "1", "--rate", "2"), "either --callers or --rate"),
        (("--method", "guess"), "unknown"),
        (("--method", "mixed", "--callers", "2"), "each method needs at least one"),
        (("--method", "mixed", "--limit"), "only one --method"),
        (("--limit-graph", "yolov5n"), "NAME=FILE"),
    ],
)
def test_invalid_options_exit_with_2(
    visavis: Command,
    pictures: list[Path],
    capsys: Captured,
    arguments: tuple[str, ...],
    message: str,
):
    assert visavis("bench", pictures[0], *arguments) == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in error


def test_missing_server_exits_with_3(visavis: Command, nobody: str, pictures: list[Path]):
    assert visavis("bench", pictures[0], "--server", nobody, *CLASSIFY) == 3


def test_missing_picture_is_named(visavis: Command, tmp_path: Path, capsys: Captured):
    assert visavis("bench", tmp_path / "none.jpg", *CLASSIFY) == 1
    assert "none.jpg" in capsys.readouterr().err


def test_serving_models_needs_the_application(
    visavis: Command,
    pictures: list[Path],
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("VISAVIS_SERVER")
    monkeypatch.setattr("visavis.commands.bench.application_installed", lambda: False)
    assert visavis("bench", pictures[0]) == 2
    assert "pip install visavis-server" in capsys.readouterr().err


def test_models_are_chosen_by_their_tasks():
    assert models_asked("detect", CARDS, []) == ("yolov5n",)
    assert models_asked("classify", CARDS, ["yolov5n", "resnet18"]) == ("resnet18",)
    assert models_asked("compare", CARDS, ["yolov5n", "resnet18"]) == ("yolov5n", "resnet18")
    assert len(models_asked("compare", CARDS, [])) == 4
    for method, wanted, message in (
        ("classify", [], "resnet18, resnet50"),
        ("detect", ["resnet50"], "no model is capable of detection; considered: resnet50"),
        ("compare", ["vgg"], "unknown model 'vgg'"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            models_asked(method, CARDS, wanted)


def test_requests_equal_those_of_the_clients(pictures: list[Path]):
    (call,) = calls_of("compare", ("a", "b"), pictures[:1])
    request = pb.CompareRequest.FromString(call.request)
    assert request == pb.CompareRequest(image=pb.Image(encoded=b"a"), models=["a", "b"])


def test_own_process_can_be_watched_and_found_by_its_address(fake: FakeServer):
    watched = Watched(os.getpid())
    assert (watched.cpu_s() or 0) > 0
    assert (watched.rss_bytes() or 0) > 1 << 20
    assert listener(fake.address) == os.getpid()


def test_of_workers_at_one_address_the_parent_is_watched():
    sharing = (
        "import socket, sys, time\n"
        "s = socket.socket()\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
        "s.bind(('127.0.0.1', int(sys.argv[1])))\n"
        "s.listen()\n"
        "print(s.getsockname()[1], flush=True)\n"
        "time.sleep(60)\n"
    )
    workers = []
    try:
        port = "0"
        for _ in range(2):
            command = [sys.executable, "-c", sharing, port]
            workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            port = workers[-1].stdout.readline().strip()
        assert listener(f"127.0.0.1:{port}") == os.getpid()
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def test_the_ceiling_is_what_calls_without_a_picture_reach(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    assert visavis("bench", pictures[0], *CLASSIFY, "--ceiling") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    found = re.fullmatch(
        r"without picture and model: ([\d,]+) calls per s, ([\d.]+) ms of the server's CPU each; "
        r"so one process answers at most ([\d,]+) per s, .*",
        last,
    )
    assert found, last
    per_s, cpu_ms, most = (float(figure.replace(",", "")) for figure in found.groups())
    assert per_s > 10
    assert most == pytest.approx(1e3 / cpu_ms, rel=0.05)
    # The warm-up is a fifth of what is counted and measured.
    assert fake.calls["GetModel"] == pytest.approx(per_s * 2.5, rel=0.5)


def test_missing_process_is_named():
    with pytest.raises(InvalidSettings, match="can't watch process 4194305"):
        Watched(4194305)  # Above Linux's highest process ID.


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_unwritable_file_is_reported_before_the_first_call(
    option: str,
    visavis: Command,
    fake: FakeServer,
    pictures: list[Path],
    tmp_path: Path,
    capsys: Captured,
):
    file = tmp_path / "nowhere" / "file"
    assert visavis("bench", pictures[0], *CLASSIFY, option, file) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "No such file or directory; choose a file in a writable folder" in text
    assert not fake.calls
