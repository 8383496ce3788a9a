import io
import json
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.rpc import code_pb2, error_details_pb2
from visavis import Client
from visavis.commands import main
from visavis.v1 import vision_pb2 as pb

from . import canned, fakes
from .fakes import FakeServer, refusal

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]


def echoing(request: pb.ClassifyRequest, context: object) -> pb.ClassifyResponse:
    """Answer with the bytes of the picture as the only label; "b" is refused."""
    if request.image.encoded == b"b":
        detail = fakes.bad_field("image", "is no picture")
        refusal(code_pb2.INVALID_ARGUMENT, "image is no picture", detail)(request, context)
    label = request.image.encoded.decode()
    return pb.ClassifyResponse(classifications=canned.labels((label, 0.5)))


def test_json_is_one_line_per_picture_in_the_order_of_the_arguments(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    later_answered = threading.Event()

    def last_first(request, context):
        # The first picture waits for the third: the answers come in another order.
        if request.image.encoded == b"a":
            later_answered.wait(20)
        if request.image.encoded == b"c":
            later_answered.set()
        return echoing(request, context)

    fake.answers["Classify"] = last_first
    chosen = [pictures[0], pictures[2], pictures[3], pictures[4], pictures[5]]
    assert visavis("classify", *chosen, "--model", "resnet50", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["classifications"][0]["label"] for answer in answers] == list("acdef")


def test_json_is_lower_camel_case_and_prints_zero_values(
    visavis: Command, pictures: list[Path], capsys: Captured
):
    assert visavis("detect", pictures[0], "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["detections"][0]["classId"] == 0
    assert answer["servedBy"]["randomWeights"] is False
    assert answer["detections"][4]["box"]["xMin"] == 0.0


def test_failed_picture_keeps_its_line_and_does_not_stop_the_others(
    visavis: Command, fake: FakeServer, pictures: list[Path], capsys: Captured
):
    fake.answers["Classify"] = echoing
    assert visavis("classify", *pictures[:3], "--model", "resnet50", "--json") == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["classifications"][0]["label"] for line in (lines[0], lines[2])] == ["a", "c"]
    assert lines[1] == {
        "error": {"code": "INVALID_ARGUMENT", "message": "image is no picture", "field": "image"}
    }
    assert f"visavis: {pictures[1]}: image is no picture" in err


def test_every_picture_has_an_error_line_if_the_model_is_ambiguous(
    visavis: Command, pictures: list[Path], capsys: Captured
):
    assert visavis("classify", *pictures[:3], "--json") == 1
    out, err = capsys.readouterr()
    errors = [json.loads(line)["error"] for line in out.splitlines()]
    assert [error["field"] for error in errors] == ["model"] * 3
    assert err.count("several models are capable") == 1


def test_every_picture_has_an_error_line_if_no_server_answers(
    visavis: Command, nobody: str, pictures: list[Path], capsys: Captured
):
    arguments = ("--json", "--server", nobody)
    assert visavis("detect", *pictures[:2], *arguments) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["error"]["code"] for line in lines] == ["UNAVAILABLE"] * 2


def test_missing_file_is_named_and_the_next_one_answered(
    visavis: Command, pictures: list[Path], capsys: Captured
):
    missing = pictures[0].with_name("missing.jpg")
    assert visavis("detect", missing, pictures[0]) == 1
    out, err = capsys.readouterr()
    assert f"{missing}: can't read the picture: No such file or directory" in err
    assert "person" in out


def test_a_folder_stands_for_the_pictures_in_it(
    visavis: Command, fake: FakeServer, pictures: list[Path], tmp_path: Path, capsys: Captured
):
    folder = tmp_path / "folder"
    for name in ("b.jpg", "a/c.jpg", "._b.jpg", ".Trash/d.jpg", "@eaDir/b.jpg", "Thumbs.db"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    assert visavis("detect", folder, pictures[0]) == 0
    assert visavis("compare", folder) == 0
    kinds = pb.DetectRequest, pb.CompareRequest
    asked = [each.image.encoded for each in fake.requests if isinstance(each, kinds)]
    assert sorted(asked) == sorted([b"a", *[b"a/c.jpg", b"b.jpg"] * 2])
    (folder / "empty").mkdir()
    assert visavis("compare", folder / "empty") == 2
    assert "empty has no JPEG, PNG or WebP picture" in capsys.readouterr().err


def test_a_url_is_rejected_as_one(visavis: Command, capsys: Captured):
    assert visavis("classify", "https://example.org/a.jpg", "--model", "resnet50") == 1
    assert "image is a URL" in capsys.readouterr().err


def test_picture_is_read_from_stdin(
    visavis: Command, fake: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    fake.answers["Classify"] = echoing
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert visavis("classify", "-", "--model", "resnet50") == 0
    out = capsys.readouterr().out
    assert out.startswith("stdin\n")
    assert "piped" in out


def test_stdin_given_twice_is_an_error(visavis: Command, capsys: Captured):
    assert visavis("detect", "-", "-") == 2
    assert "only once" in capsys.readouterr().err


def test_options_reach_the_server(visavis: Command, fake: FakeServer, pictures: list[Path]):
    arguments = "--model m --version 3 --score-threshold 0 --iou-threshold 1 --max-detections 7"
    labels = ["--labels", "bus,sports ball", "--labels", "person", "--class-agnostic"]
    assert visavis("detect", pictures[0], *arguments.split(), *labels) == 0
    arguments = "--models b,a --models c --tasks object-detection --baseline a --top-k 3"
    assert visavis("compare", pictures[0], *arguments.split()) == 0
    image = pb.Image(encoded=b"a")
    assert fake.requests == [
        pb.DetectRequest(
            image=image,
            model="m",
            version=3,
            score_threshold=0,
            iou_threshold=1,
            max_detections=7,
            labels=["bus", "sports ball", "person"],
            class_agnostic=True,
        ),
        pb.CompareRequest(
            image=image,
            models=["b", "a", "c"],
            tasks=[pb.TASK_OBJECT_DETECTION],
            baseline="a",
            top_k=3,
        ),
    ]


def test_single_capable_model_need_not_be_named(
    visavis: Command, fake: FakeServer, pictures: list[Path]
):
    assert visavis("detect", pictures[0]) == 0
    assert fake.requests[-1].model == "yolov5n"


def test_several_capable_models_are_listed_to_choose_from(
    visavis: Command, pictures: list[Path], capsys: Captured
):
    assert visavis("classify", pictures[0]) == 1
    assert "choose one with --model: resnet18, resnet50, yolov5n-cls" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (code_pb2.INVALID_ARGUMENT, 1),
        (code_pb2.NOT_FOUND, 1),
        (code_pb2.UNAUTHENTICATED, 1),
        (code_pb2.UNIMPLEMENTED, 1),
        (code_pb2.UNAVAILABLE, 3),
        (code_pb2.DEADLINE_EXCEEDED, 4),
        (code_pb2.INTERNAL, 5),
        (code_pb2.RESOURCE_EXHAUSTED, 5),
        (code_pb2.UNKNOWN, 5),
    ],
)
def test_exit_code_follows_from_the_status(
    visavis: Command, fake: FakeServer, pictures: list[Path], code: int, exit_code: int
):
    info = error_details_pb2.RequestInfo(request_id="3f2a")
    fake.answers["Classify"] = refusal(code, "because", info)
    assert visavis("classify", pictures[0], "--model", "resnet50") == exit_code


@pytest.mark.parametrize(
    "arguments",
    [
        ["detect"],
        ["detect", "a.jpg", "--score-threshold", "1.5"],
        ["detect", "a.jpg", "--server", "http://127.0.0.1:8001"],
        ["compare", "a.jpg", "--tasks", "segmentation"],
        ["models", "--version", "2"],
        ["dance"],
    ],
)
def test_invalid_arguments_exit_with_2(visavis: Command, arguments: list[str]):
    assert visavis(*arguments) == 2


def test_missing_server_exits_with_3_and_tells_how_to_start_one(nobody: str, capsys: Captured):
    assert main(["models", "--server", nobody]) == 3
    err = capsys.readouterr().err
    assert f"no answer from {nobody}" in err
    assert "visavis serve" in err


def test_timeout_exits_with_4(visavis: Command, fake: FakeServer, pictures: list[Path]):
    answered = threading.Event()
    fake.answers["Classify"] = lambda request, context: answered.wait(20)
    arguments = ("classify", pictures[0], "--model", "m", "--timeout", "0.05")
    assert visavis(*arguments) == 4
    answered.set()


def test_interruption_exits_quietly_with_130(
    visavis: Command, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "detect", interrupted)
    assert visavis("detect", pictures[0]) == 130
    assert capsys.readouterr() == ("", "")


def test_one_annotated_picture_is_written_to_a_file(
    visavis: Command, pictures: list[Path], tmp_path: Path, capsys: Captured
):
    target = tmp_path / "new" / "drawn.jpg"
    assert visavis("detect", pictures[0], "--annotate", target, "--json") == 0
    assert target.read_bytes() == canned.PICTURE.encoded
    assert "annotatedImage" not in json.loads(capsys.readouterr().out)


def test_command_reports_that_the_server_shrank_the_annotated_picture(
    visavis: Command,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
):
    whole = canned.SIZE
    for size, is_smaller in ((whole, False), (pb.ImageSize(width=9, height=7), True)):
        drawing = pb.AnnotatedImage(encoded=b"jpeg", media_type="image/jpeg", size=size)
        monkeypatch.setattr(canned, "PICTURE", drawing)
        assert visavis("detect", pictures[0], "--annotate", tmp_path / "drawn.jpg") == 0
        note = f"(shrunk from {whole.width} × {whole.height} to 9 × 7 px by the server's"
        assert (note in " ".join(capsys.readouterr().out.split())) is is_smaller


def test_annotated_picture_is_written_to_a_folder_if_the_path_ends_with_a_slash(
    visavis: Command, pictures: list[Path], tmp_path: Path
):
    assert visavis("detect", pictures[0], "--annotate", f"{tmp_path}/new/sub/") == 0
    assert (tmp_path / "new" / "sub" / "a.jpg").read_bytes() == canned.PICTURE.encoded


@pytest.mark.parametrize(("name", "written"), [("drawn", "drawn.jpg"), ("b.JPEG", "b.JPEG")])
def test_annotated_picture_has_the_suffix_of_a_jpeg(
    visavis: Command, pictures: list[Path], tmp_path: Path, name: str, written: str
):
    assert visavis("detect", pictures[0], "--annotate", tmp_path / "new" / name) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == [written]


def test_annotated_picture_with_another_suffix_is_an_error(
    visavis: Command, fake: FakeServer, pictures: list[Path], tmp_path: Path, capsys: Captured
):
    assert visavis("detect", pictures[0], "--annotate", tmp_path / "new" / "drawn.png") == 2
    assert "choose a .jpg or .jpeg file" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert not fake.requests


def test_several_annotated_pictures_are_written_to_a_folder_under_different_names(
    visavis: Command, pictures: list[Path], tmp_path: Path, capsys: Captured
):
    namesake = tmp_path / "other" / "a.png"
    namesake.parent.mkdir()
    namesake.write_bytes(b"png")
    folder = tmp_path / "drawn"
    assert visavis("compare", pictures[0], namesake, "--annotate", folder) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["a-2.jpg", "a.jpg"]
    assert f"Annotated picture: {folder}/a-2.jpg" in capsys.readouterr().out


def test_annotation_never_overwrites_a_picture(
    visavis: Command, pictures: list[Path], capsys: Captured
):
    assert visavis("detect", pictures[0], "--annotate", pictures[0].parent) == 1
    assert "would overwrite" in capsys.readouterr().err
    assert pictures[0].read_bytes() == b"a"


def test_models_prints_one_line_of_json(visavis: Command, capsys: Captured):
    assert visavis("models", "--json") == 0
    assert visavis("models", "yolov5n", "--json") == 0
    listed, card = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [model["name"] for model in listed["models"]] == [card.name for card in canned.CARDS]
    assert card["model"]["receipt"]["boxTolerancePx"] == 1.0


def test_version_is_the_version_of_the_distribution(capsys: Captured):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"visavis {metadata.version('visavis')}\n"


def test_help_lists_the_exit_codes(capsys: Captured):
    assert main(["--help"]) == 0
    assert "Exit codes: 0 success" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("command", "requirement"),
    [
        ("serve", "pip install visavis-server"),
        ("export", "pip install 'visavis-server[export]'"),
        ("verify", "pip install 'visavis-server[export]'"),
    ],
)
def test_missing_application_prints_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, command: str, requirement: str
):
    def nothing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", nothing)
    assert main([command, "--help"]) == 2
    assert requirement in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "export"])
def test_application_receives_every_argument_unchanged(
    monkeypatch: pytest.MonkeyPatch, command: str
):
    received = []

    class Application:
        @staticmethod
        def main(args: list[str], prog: str) -> int:
            received.append((args, prog))
            return 7

    modules = {f"visavis_{'server' if command == 'serve' else command}.__main__": Application}
    importlib = SimpleNamespace(import_module=modules.get)
    monkeypatch.setattr("visavis.commands.application.importlib", importlib)
    arguments = ["resnet50", "--help", "--", "-x", "--version", "--", "--models=a b"]
    assert main([command, *arguments]) == 7
    assert received == [(arguments, f"visavis {command}")]


def test_doctor_reports_if_the_server_answers(visavis: Command, nobody: str, capsys: Captured):
    assert visavis("doctor") == 0
    assert "ready at" in capsys.readouterr().out
    assert visavis("doctor", "--server", nobody) == 0
    assert "missing  server" in (out := capsys.readouterr().out)
    assert f"no answer from {nobody}" in " ".join(out.split())


def test_doctor_includes_the_report_of_the_application(
    visavis: Command, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    class Application:
        @staticmethod
        def report() -> list[tuple[str, str, str]]:
            return [("tensorrt", "missing", "pip install tensorrt")]

    importlib = SimpleNamespace(import_module={"visavis_server.tools.doctor": Application}.get)
    monkeypatch.setattr("visavis.commands.doctor.importlib", importlib)
    assert visavis("doctor") == 0
    assert "missing  tensorrt" in capsys.readouterr().out
