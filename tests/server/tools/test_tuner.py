"""What is tried, what counts as better, and what is written into the settings file."""

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from visavis_server.errors import StartupError
from visavis_server.models.model_files import ModelFile, scan
from visavis_server.models.planning import Planner, planner_of
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.providers import CPU
from visavis_server.settings import TunedPlan, load_settings
from visavis_server.tools.tune import main, write
from visavis_server.tools.tuner import Candidate, Tuner

from .. import graphs


def candidate(goal: str, per_s: list[float], p95_ms: list[float]) -> Candidate:
    return Candidate(TunedPlan.model_validate({"goal": goal}), Plan(), per_s, p95_ms)


def colors(models: Path) -> ModelFile:
    return next(file for file in scan(models) if file.name == "colors")


def test_throughput_is_tried_with_wider_runs_and_larger_batches(
    models: Path, tmp_path: Path
) -> None:
    with Tuner(colors(models), Planner(CPU, 4), "throughput", tmp_path) as tuner:
        tried = [(c.plan.instances, c.plan.threads, c.plan.batch) for c in tuner.candidates]
    assert tried[0] == (4, 1, 4)  # without tuning
    assert sorted(tried) == [
        (instances, threads, batch)
        for instances, threads in ((1, 4), (2, 2), (4, 1))
        for batch in (1, 2, 4, 8)
    ]


def test_latency_is_tried_with_one_image_in_a_run(models: Path, tmp_path: Path) -> None:
    with Tuner(colors(models), Planner(CPU, 2), "latency", tmp_path) as tuner:
        tried = [(c.plan.threads, c.plan.batch, c.plan.exclusive_threads) for c in tuner.candidates]
    assert tried == [(1, 4, 2), (1, 1, 2), (2, 1, 0)]


def test_every_way_is_measured_in_every_round(models: Path, tmp_path: Path) -> None:
    advanced: list[None] = []
    with Tuner(colors(models), Planner(CPU, 2), "latency", tmp_path) as tuner:
        best = tuner.measure(0.05, 3, lambda: advanced.append(None))
    assert best in tuner.candidates
    assert len(advanced) == 9
    for each in tuner.candidates:
        assert len(each.per_s) == len(each.p95_ms) == 3
        assert min(each.per_s) > 0 and min(each.p95_ms) > 0


def test_no_loop_is_closed_while_threads_may_wake_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[list[str]] = []
    others = set(threading.enumerate())

    class Loop(asyncio.SelectorEventLoop):
        def close(self) -> None:
            names = [thread.name for thread in set(threading.enumerate()) - others]
            alive.append([name for name in names if name.startswith("core-")])
            super().close()

    monkeypatch.setattr(asyncio.get_event_loop_policy(), "_loop_factory", Loop)
    with Tuner(colors(models), Planner(CPU, 2), "latency", tmp_path) as tuner:
        tuner.measure(0.05, 2, lambda: None)
    assert alive == [[]]


@pytest.mark.parametrize(
    ("goal", "per_s", "p95_ms", "beats"),
    [
        ("throughput", [12.0, 11.0, 12.0], [9.0, 9.0, 9.0], True),
        ("throughput", [12.0, 9.9, 12.0], [9.0, 9.0, 9.0], False),  # not in every round
        ("throughput", [10.2, 10.2, 10.2], [9.0, 9.0, 9.0], False),  # by too little
        ("latency", [1.0, 1.0, 1.0], [4.0, 4.5, 4.0], True),
        ("latency", [99.0, 99.0, 99.0], [6.0, 4.0, 4.0], False),
    ],
)
def test_only_a_clear_gain_counts(
    goal: str, per_s: list[float], p95_ms: list[float], beats: bool
) -> None:
    default = candidate(goal, [10.0, 10.0, 10.0], [5.0, 5.0, 5.0])
    assert candidate(goal, per_s, p95_ms).clearly_beats(default) is beats
    assert not default.clearly_beats(default)


def test_the_rest_of_a_settings_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "visavis.toml"
    path.write_text("# the office machine\ncores = 2 # of 4\n\n[tuning.old]\nbatch = 3\n")
    write(path, {"new.1": TunedPlan(batch=4)})
    text = path.read_text()
    assert text.startswith("# the office machine\ncores = 2 # of 4\n")
    settings = load_settings({}, path)
    assert settings.cores == 2
    assert {name: t.batch for name, t in settings.tuning.items()} == {"old": 3, "new.1": 4}


def test_the_command_measures_and_writes_what_the_server_reads(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "visavis.toml"
    quickly = ["--seconds", "0.1", "--rounds", "1", "--config", str(config)]
    assert main(["colors", "--models", str(models), "--device", "cpu", *quickly]) == 0
    output = capsys.readouterr().out
    assert "colors, for throughput" in output
    assert "without tuning" in output and "best" in output
    planner, _ = planner_of(load_settings({"device": "cpu"}, config))
    plan = planner.plan(graphs.classifier_document(name="colors"))
    assert plan.why == "tuned for throughput in the settings"


def test_a_dry_run_writes_nothing(models: Path, tmp_path: Path) -> None:
    config = tmp_path / "visavis.toml"
    quickly = ["--seconds", "0.1", "--rounds", "1", "--config", str(config), "--dry-run"]
    assert main(["colors", "--models", str(models), "--for", "latency", *quickly]) == 0
    assert not config.exists()


def test_an_unknown_model_is_named_with_those_that_exist(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(tmp_path / "visavis.toml")
    assert main(["nobody", "--models", str(models), "--config", config]) == 1
    assert "there is no model nobody" in capsys.readouterr().err


def test_a_full_disk_leaves_the_settings_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "visavis.toml"
    path.write_text("cores = 2\n")

    def half(self: Path, text: str, encoding: str) -> int:
        self.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(StartupError, match="can't be written: No space left on device; choose"):
        write(path, {"new": TunedPlan(batch=4)})
    assert path.read_bytes() == b"cores = 2\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_file_is_reported_before_measuring(
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("visavis_server.tools.tune.Tuner", lambda *_: pytest.fail("work was done"))
    config = tmp_path / "nowhere" / "visavis.toml"
    assert main(["--models", str(models), "--config", str(config)]) == 1
    told = capsys.readouterr().err
    assert f"{config} can't be written: No such file or directory; choose another with" in told


def test_a_repository_without_models_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--models", str(tmp_path)]) == 1
    assert f"{tmp_path} holds no models; export one with" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
