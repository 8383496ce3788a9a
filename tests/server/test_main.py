"""`python -m visavis_server`: its options, and its errors when it can't start."""

from pathlib import Path
from typing import Any

import pytest

from visavis_server.__main__ import FLAGS, main
from visavis_server.models.trial import Trial
from visavis_server.settings import Settings, default_text


@pytest.fixture
def served_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Settings]:
    """Collects the settings with which a server would have run."""
    collected: list[Settings] = []

    async def serve(settings: Settings, trial: Trial) -> None:
        collected.append(settings)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("visavis_server.app.serve", serve)
    return collected


def test_flags_become_settings(served_with: list[Settings]) -> None:
    flags: dict[str, Any] = {"--grpc": "unix:x", "--device": "cpu", "--cores": "3"}
    arguments = [part for flag in flags.items() for part in flag]
    assert main([*arguments, "--models", "there", "--reflection", "--log-format", "json"]) == 0
    (settings,) = served_with
    assert (settings.grpc, settings.device, settings.cores) == ("unix:x", "cpu", 3)
    assert (settings.models, settings.reflection) == (Path("there"), True)
    assert settings.log_format == "json"


def test_flags_not_given_leave_the_file_its_say(served_with: list[Settings]) -> None:
    Path("other.toml").write_text('device = "cpu"\nreflection = true\n')
    assert main(["--config", "other.toml"]) == 0
    (settings,) = served_with
    assert (settings.device, settings.reflection) == ("cpu", True)


@pytest.mark.parametrize("arguments", [["--device", "gpu"], ["--config", "none.toml"]])
def test_wrong_settings_end_with_one_line_and_a_two(
    served_with: list[Settings], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("visavis: ")
    assert arguments[1] in captured.err
    assert captured.err.count("\n") == 1
    assert served_with == []


def test_an_empty_repository_ends_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--models", str(tmp_path), "--device", "cpu", "--grpc", "127.0.0.1:0"]) == 1
    assert "visavis export" in capsys.readouterr().err


def test_help_shows_each_option_with_the_description_and_default_of_its_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    assert main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in FLAGS:
        assert f"--{name.replace('_', '-')} " in text
        description, default = Settings.model_fields[name].description, default_text(name)
        shown = f"{description} [default: ({default})]" if default else description
        assert shown in text, name
    assert "--watch-s" not in text


def test_the_earlier_name_of_an_option_is_accepted(served_with: list[Settings]) -> None:
    assert main(["--watch-s", "7"]) == 0
    (settings,) = served_with
    assert settings.watch_interval_s == 7
    assert [note for note in settings.notes if "watch_s" in note] != []
