"""Logs: on standard error, for a person or a machine."""

import json

import pytest
import structlog

from server.log import configure_logging


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
