"""The systemd unit is one, is hardened, and its settings file is what the server reads."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.surroundings import VISAVIS, Surroundings
from visavis_server.settings import Settings, load_settings

_FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
_UNIT = _FOLDER / "visavis.service"
# Of 10, by `systemd-analyze security`; docs/guides/systemd.md states it.
_EXPOSURE = 1.3


@pytest.fixture(autouse=True)
def needs_systemd() -> None:
    if not shutil.which("systemd-analyze"):
        assert os.environ.get("CI") != "true", "systemd is not installed"
        pytest.skip("needs systemd-analyze")


def _analyzed(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _security(unit: Path, limit: float) -> int:
    """Return the exit code of a unit's analysis; 0: its exposure is within the limit."""
    threshold = f"--threshold={round(limit * 10)}"
    done = _analyzed("security", "--offline=true", threshold, unit)
    assert "Overall exposure level" in done.stdout, done.stderr
    return done.returncode


def test_the_unit_has_no_unknown_settings(tmp_path: Path) -> None:
    unit = tmp_path / _UNIT.name
    text = _UNIT.read_text("utf-8").replace("/opt/visavis/bin/visavis", VISAVIS)
    unit.write_text(text, "utf-8")
    assert _analyzed("verify", "--man=no", unit).stderr == ""
    unit.write_text(text.replace("PrivateTmp=", "PrivateTemp="), "utf-8")
    assert "PrivateTemp" in _analyzed("verify", "--man=no", unit).stderr


def test_the_units_exposure_is_within_the_limit_that_is_stated(tmp_path: Path) -> None:
    assert _security(_UNIT, _EXPOSURE) == 0
    weaker = tmp_path / _UNIT.name
    weaker.write_text(_UNIT.read_text("utf-8").replace("DynamicUser=yes\n", ""), "utf-8")
    assert _security(weaker, _EXPOSURE) != 0
    page = (_FOLDER.parents[1] / "docs" / "guides" / "systemd.md").read_text("utf-8")
    assert f"at most {_EXPOSURE} of 10" in page


def test_systemd_waits_for_the_drain_and_disturbs_no_worker() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(_UNIT)
    drain_s = Settings.model_fields["grace_s"].default + 2
    assert float(unit["Service"]["TimeoutStopSec"]) > drain_s
    assert unit["Service"]["KillMode"] == "mixed"


def test_systemd_does_not_restart_a_server_whose_settings_are_invalid(tmp_path: Path) -> None:
    found = Surroundings.under(tmp_path)
    command = [VISAVIS, "serve", "--cores", "none"]
    done = subprocess.run(
        command, env=found.environment(), cwd=found.elsewhere, capture_output=True, check=False
    )
    assert f"\nRestartPreventExitStatus={done.returncode}\n" in _UNIT.read_text("utf-8")


def test_the_settings_file_is_valid_and_says_which_values_are_no_defaults() -> None:
    file = _FOLDER / "visavis.toml"
    found = load_settings({}, file)
    changed = {
        name
        for name in found.model_fields_set
        if getattr(found, name) != Settings.model_fields[name].default
    }
    assert found.model_fields_set > changed
    assert changed == {"models", "log_format"}


def test_settings_that_are_commented_out_are_valid_too(tmp_path: Path) -> None:
    text = (_FOLDER / "visavis.toml").read_text("utf-8")
    whole, count = re.subn(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert count
    (tmp_path / "visavis.toml").write_text(whole, "utf-8")
    assert load_settings({}, tmp_path / "visavis.toml").http == "127.0.0.1:8000"
