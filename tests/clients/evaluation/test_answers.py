"""Answers kept in a file: each picture is asked about once, whatever happens in between."""

import asyncio
import json
import math
import time
import tracemalloc
from pathlib import Path

import pytest
from google.rpc import code_pb2, error_details_pb2
from visavis import Client
from visavis.errors import InvalidData, Overloaded, Unavailable
from visavis.evaluation.answers import AnswersFile, PictureAnswers
from visavis.evaluation.collection import Source, collect, compared_models

from tests import irregular_files

from .. import canned
from ..fakes import FakeServer, bad_field, refusal


def asked(
    fake: FakeServer, pictures: list[Path], file: Path, patience_s: float = 60.0
) -> list[PictureAnswers | None]:
    """Collect the answers about some pictures; return what was new, in any order."""
    with Client(fake.address, timeout=20) as client:
        models = compared_models(client, [], [])
    paths = {path.name: path for path in pictures}

    async def all_of_them() -> list[PictureAnswers | None]:
        kept = AnswersFile(file, models)
        source = Source(fake.address, 20, 3, patience_s)
        return [one async for one in collect(source, models, paths, kept)]

    return asyncio.run(all_of_them())


def read(fake: FakeServer, file: Path, names: set[str]) -> list[PictureAnswers]:
    with Client(fake.address, timeout=20) as client:
        return list(AnswersFile(file, compared_models(client, [], [])).read(names))


def test_every_model_answers_every_picture_once(
    fake: FakeServer, pictures: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "deep" / "answers.jsonl"
    found = asked(fake, pictures, file)
    assert len(found) == fake.calls["Compare"] == 6
    kept = read(fake, file, {path.name for path in pictures})
    assert [one.path for one in kept] == [path.name for path in pictures]
    runs = kept[0].runs
    assert any(run.classes for run in runs.values())
    assert any(len(run.boxes) for run in runs.values())
    assert (kept[0].width, kept[0].height) == (810, 1080)


def test_a_run_goes_on_where_it_was_cut_off(
    fake: FakeServer, pictures: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "answers.jsonl"
    asked(fake, pictures[:4], file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])  # in the middle of the last line
    fake.calls.clear()
    found = asked(fake, pictures, file)
    assert found.count(None) == 3
    assert fake.calls["Compare"] == 3
    assert len(read(fake, file, {path.name for path in pictures})) == 6


@pytest.mark.parametrize(
    ("failure", "calls"),
    [("UNAVAILABLE: the peer does not answer", 1), ("INTERNAL: the outputs are not finite", 0)],
)
def test_a_model_that_failed_in_passing_is_asked_again(
    failure: str, calls: int, fake: FakeServer, pictures: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "answers.jsonl"
    asked(fake, pictures[:2], file)
    heading, first, second = file.read_text("utf-8").splitlines()
    line = json.loads(first)
    name = next(iter(line["runs"]))
    line["runs"][name] = {"failure": failure}
    file.write_text("\n".join((heading, json.dumps(line), second)) + "\n", encoding="utf-8")
    fake.calls.clear()
    asked(fake, pictures[:2], file)
    assert fake.calls["Compare"] == calls
    (kept,) = read(fake, file, {line["path"]})
    assert kept.runs[name].failure == ("" if calls else failure)
    fake.calls.clear()
    asked(fake, pictures[:2], file)
    assert fake.calls["Compare"] == 0


def test_a_picture_that_changed_is_asked_about_again(
    fake: FakeServer, pictures: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "answers.jsonl"
    asked(fake, pictures[:2], file)
    pictures[0].write_bytes(b"another")
    fake.calls.clear()
    asked(fake, pictures[:2], file)
    assert fake.calls["Compare"] == 1
    assert len(read(fake, file, {"a.jpg", "b.jpg"})) == 2


def test_a_picture_that_is_refused_is_an_answer(
    fake: FakeServer, pictures: list[Path], tmp_path: Path
) -> None:
    fake.answers["Compare"] = refusal(
        code_pb2.INVALID_ARGUMENT, "it is damaged", bad_field("image", "it is damaged")
    )
    pictures[1].unlink()
    found = asked(fake, pictures[:2], tmp_path / "answers.jsonl")
    failures = {one.path: one.failure for one in found if one}
    assert "it is damaged" in failures["a.jpg"]
    assert "cannot be read" in failures["b.jpg"]


def test_a_server_that_is_busy_is_asked_again(
    fake: FakeServer, pictures: list[Path], tmp_path: Path
) -> None:
    busy = refusal(code_pb2.RESOURCE_EXHAUSTED, "too much to do")
    left = iter(range(2))

    def sometimes(request: object, context: object) -> object:
        if next(left, None) is not None:
            return busy(request, context)  # type: ignore[arg-type]
        del fake.answers["Compare"]
        return fake.Compare(request, context)

    fake.answers["Compare"] = sometimes
    assert len([one for one in asked(fake, pictures[:1], tmp_path / "a.jsonl") if one]) == 1


def test_a_busy_server_is_left_alone_for_as_long_as_it_says(
    fake: FakeServer, pictures: list[Path], tmp_path: Path
) -> None:
    delay = error_details_pb2.RetryInfo()
    delay.retry_delay.FromMilliseconds(700)
    busy = refusal(code_pb2.RESOURCE_EXHAUSTED, "too much to do", delay)
    times: list[float] = []

    def once(request: object, context: object) -> object:
        times.append(time.monotonic())
        if len(times) == 1:
            return busy(request, context)  # type: ignore[arg-type]
        return canned.comparison()

    fake.answers["Compare"] = once
    asked(fake, pictures[:1], tmp_path / "a.jsonl")
    assert times[1] - times[0] >= 0.7


@pytest.mark.parametrize("whole", [True, False], ids=["call", "models"])
def test_a_server_that_stays_busy_is_not_asked_for_ever(
    fake: FakeServer, pictures: list[Path], tmp_path: Path, whole: bool
) -> None:
    """Whether it refuses the call or answers that each model has too much to do."""
    if whole:
        fake.answers["Compare"] = refusal(code_pb2.RESOURCE_EXHAUSTED, "too much to do")
    else:
        busy = canned.comparison()
        for task in busy.comparisons:
            for answer in task.answers:
                answer.status.code = code_pb2.RESOURCE_EXHAUSTED
                answer.status.message = "too much to do"
        fake.answers["Compare"] = lambda request, context: busy
    began = time.monotonic()
    with pytest.raises(Overloaded, match=r"too much to do for 1 s: too much to do"):
        asked(fake, pictures[:2], tmp_path / "a.jsonl", patience_s=1.0)
    assert time.monotonic() - began < 15
    assert fake.calls["Compare"] < 12  # it backs off


def test_a_file_is_continued_however_long_its_last_line_is(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    kept = AnswersFile(file, [])
    heading = file.read_bytes()
    file.write_bytes(heading + b"x" * 200_000)
    kept.open().close()
    assert file.read_bytes() == heading


def test_a_server_that_is_gone_ends_the_run_and_keeps_what_it_answered(
    fake: FakeServer, pictures: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "answers.jsonl"
    asked(fake, pictures[:2], file)
    with Client(fake.address, timeout=20) as client:
        models = compared_models(client, [], [])
    paths = {path.name: path for path in pictures}

    async def run() -> None:
        source = Source("127.0.0.1:1", 1.0, 2)
        async for _ in collect(source, models, paths, AnswersFile(file, models)):
            pass

    with pytest.raises(Unavailable):
        asyncio.run(run())
    assert len(read(fake, file, set(paths))) == 2


@pytest.mark.parametrize("text", ["", "{", '{"format": 1, "models": []}\n'])
def test_answers_of_other_models_are_not_mixed(
    fake: FakeServer, pictures: list[Path], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidData, match=r"cannot be continued|of other models"):
        asked(fake, pictures, file)
    assert file.read_text() == text


def line(**changes: object) -> bytes:
    """Return a picture's line, as it is written or with changes."""
    whole = {"path": "a.jpg", "sha256": "00", "size": [8, 8], "failure": "", "runs": {}, **changes}
    return json.dumps(whole).encode() + b"\n"


def run(**fields: object) -> bytes:
    return line(runs={"m": fields})


@pytest.mark.parametrize(
    "text",
    [
        b"{}\n",
        b"[1]\n",
        b"7\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        line(path=["a.jpg"]),
        line(sha256=None),
        line(failure=3),
        line(size=[8]),
        line(size=[8, -1]),
        line(size=[0, 0], runs={"m": {}}),
        line(size=[1e999, 8]),
        line(runs=[1]),
        line(runs={"m": 1}),
        run(classes=["red"]),
        run(classes=[-1]),
        run(classes=[10**400]),
        run(boxes=[[1, 2, 3]]),
        run(boxes=[[1, 2, 3, math.nan, 0, 0.5]]),
        run(boxes=[[1, 2, 3, 4, -1, 0.5]]),
        run(boxes=[[1, 2, 3, 4, 0, 1e999]]),
        run(ms={"inference_ms": math.nan}),
        run(ms={"inference_ms": "long"}),
        run(ms=[1]),
        run(failure=[]),
    ],
)
def test_a_line_that_holds_no_answers_is_named(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "answers.jsonl"
    AnswersFile(file, [])
    file.write_bytes(file.read_bytes() + line() + text)
    with pytest.raises(InvalidData, match=r"answers.jsonl, line 3 holds no answers \(") as raised:
        list(AnswersFile(file, []).read({"a.jpg"}))
    assert len(str(raised.value)) < 500 + len(str(file))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    AnswersFile(file, [])
    with file.open("r+b") as sparse:
        sparse.truncate(1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidData, match="line 2 is longer than 67108864 bytes"):
            AnswersFile(file, [])
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_answers_are_kept_in_a_regular_file(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "answers.jsonl"
    irregular_files.put(file, kind)
    with pytest.raises(InvalidData, match="cannot be continued: it is no regular file"):
        AnswersFile(file, [])
