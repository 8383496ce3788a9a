"""Logs: on standard error, for a person or a machine."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from visavis_server.log import RateLimit, configure_logging


def test_logs_for_a_machine_are_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    structlog.get_logger().warning("loaded", model="colors")
    captured = capsys.readouterr()
    entry = json.loads(captured.err)
    assert (entry["event"], entry["level"], entry["model"]) == ("loaded", "warning", "colors")
    assert captured.out == ""


def test_errors_for_a_machine_carry_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    structlog.get_logger().error("failed", exc_info=KeyError("lost"))
    assert "KeyError: 'lost'" in json.loads(capsys.readouterr().err)["exception"]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_traceback_of_an_error_shows_no_values(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    def fail(data: bytes) -> None:
        raise KeyError("lost")

    configure_logging(log_format)
    try:
        fail(bytes.fromhex("534543524554"))  # not in plain words: a traceback shows its source
    except KeyError:
        structlog.get_logger().exception("failed")
    error = capsys.readouterr().err
    assert "Traceback" in error and "KeyError: 'lost'" in error
    assert "SECRET" not in error


def test_logs_for_a_person_are_plain_where_no_terminal_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("console")
    structlog.get_logger().info("loaded", model="colors")
    error = capsys.readouterr().err
    assert "loaded" in error and "model=colors" in error
    assert "\x1b" not in error


FORGED = 'x\n{"event": "forged"}\r\x1b[31m'
ESCAPED = r'x\n{"event": "forged"}\r\x1b[31m'


def test_strangers_text_can_forge_no_entry_wherever_it_stands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("json")
    structlog.get_logger().error(
        FORGED,
        text=FORGED,
        nested={FORGED: [FORGED, {"deeper": (FORGED,)}]},
        raw=FORGED.encode(),
        path=Path(FORGED),
        number=math.nan,
        large=10**5000,
        **{FORGED: 1},
    )
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line, parse_constant=pytest.fail)
    assert entry["event"] == entry["text"] == entry["raw"] == entry["path"] == ESCAPED
    assert entry["nested"] == {ESCAPED: [ESCAPED, {"deeper": [ESCAPED]}]}
    assert entry[ESCAPED] == 1
    assert entry["number"] == "nan"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_errors_text_forges_no_entry(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure_logging(log_format)
    structlog.get_logger().error("failed", exc_info=ValueError(f"{FORGED}\n12:00:00 [info] forged"))
    error = capsys.readouterr().err
    assert "\x1b" not in error and "\r" not in error
    first, *more = error.splitlines()
    if log_format == "json":
        assert more == []
        assert "12:00:00 [info] forged" in json.loads(first)["exception"]
    else:
        # Each line of a traceback stands behind a margin.
        assert more and all(line.startswith("  | ") for line in more)
        assert any("12:00:00 [info] forged" in line for line in more)


def test_a_value_that_cannot_be_written_costs_no_entry(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    for log_format in ("console", "json"):
        configure_logging(log_format)
        structlog.get_logger().info("odd", value=Broken(), many=[Broken()])
        assert "<Broken>" in capsys.readouterr().err


def test_an_entry_has_a_bounded_size(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    deep: list[object] = []
    for _ in range(1000):
        deep = [deep]
    error = ValueError("\n".join(["x" * 4000] * 1000))
    structlog.get_logger().error(
        "large", text="x" * 10**6, many=[0] * 10**6, deep=deep, exc_info=error
    )
    assert len(capsys.readouterr().err) < 50_000


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def _passes(limit: RateLimit, event: str, **values: object) -> dict[str, object] | None:
    try:
        return dict(limit(None, "error", {"event": event, **values}))
    except structlog.DropEvent:
        return None


def test_the_same_reason_is_logged_once_in_a_while_and_then_with_a_count() -> None:
    clock = Clock()
    limit = RateLimit(window_s=10, clock=clock)
    assert _passes(limit, "refused", why="broken", model="a/1") is not None
    assert _passes(limit, "refused", why="broken", model="a/1") is None
    assert _passes(limit, "refused", why="broken", model="b/1") is not None
    assert _passes(limit, "refused", why="late", model="a/1") is not None
    clock.now = 10
    again = _passes(limit, "refused", why="broken", model="a/1")
    assert again is not None and again["suppressed"] == 1


def test_errors_of_calls_keep_their_request_ids_up_to_a_burst() -> None:
    limit = RateLimit(per_event=50)
    passed = [_passes(limit, "call failed", request_id=str(i)) for i in range(200)]
    assert [each["request_id"] for each in passed if each] == [str(i) for i in range(50)]


def test_dropped_entries_are_reported_even_if_no_entry_follows() -> None:
    clock = Clock()
    limit = RateLimit(per_event=1, window_s=10, clock=clock)
    for _ in range(3):
        _passes(limit, "failed")
    assert limit.overdue() == []
    clock.now = 10
    assert limit.overdue() == [("failed", "error", 2)]
    assert limit.overdue() == []


def test_entries_for_information_have_no_limit() -> None:
    limit = RateLimit(per_event=1)
    for _ in range(3):
        assert limit(None, "info", {"event": "loaded"}) == {"event": "loaded"}
