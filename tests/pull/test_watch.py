"""A watch brings what is new to a server that is being called, and survives its source."""

import json
import signal
import threading
from pathlib import Path

import pytest
from visavis import Client

from tests.faults.process import PATIENCE_S, ServerProcess, until
from tests.pull.command import Puller
from tests.pull.models import damaged, model, visible
from tests.pull.servers import Registry
from tests.server.pictures import RED, plain
from visavis_server.pull.errors import PullFailed, SourceUnreachable
from visavis_server.pull.outcomes import Outcome, Round
from visavis_server.pull.watching import Deadline, Watch


class _Rounds:
    """Rounds that end as told, and the waits between them."""

    def __init__(self, *ends: Round | Exception) -> None:
        self._ends = list(ends)
        self.waits: list[float] = []

    def round(self) -> Round:
        end = self._ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        if not self._ends:
            raise KeyboardInterrupt


_GOOD = Round([Outcome("colors/1", "unchanged")], {})
_REFUSED = Round([Outcome("colors/1", "refused", "bad")], {})
_CUT = Round([Outcome("colors/1", "failed", "cut")], {})
_DOWN = SourceUnreachable("down")


def _watch(rounds: _Rounds, most_failures: int = 0) -> int:
    return Watch(
        rounds,  # type: ignore[arg-type]
        10.0,
        most_failures,
        sleep=rounds.sleep,
        uncertain=lambda low, high: (low + high) / 2,
    ).run(Deadline(60, lambda: None))


def test_failures_are_tried_again_after_longer_and_longer_waits() -> None:
    rounds = _Rounds(_GOOD, _DOWN, _CUT, PullFailed("gone"), _GOOD, *[_DOWN] * 9)
    with pytest.raises(KeyboardInterrupt):
        _watch(rounds)
    assert rounds.waits == [10, 20, 40, 80, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600]


def test_a_refused_version_is_no_failure_of_the_round() -> None:
    rounds = _Rounds(_REFUSED, _REFUSED)
    with pytest.raises(KeyboardInterrupt):
        _watch(rounds, most_failures=1)
    assert rounds.waits == [10, 10]


def test_enough_failures_in_a_row_end_the_watch_with_their_exit_code() -> None:
    rounds = _Rounds(_DOWN, _GOOD, _DOWN, _DOWN, _GOOD)
    assert _watch(rounds, most_failures=2) == 3
    assert rounds.waits == [20, 10, 20]


def test_a_round_that_hangs_is_noticed() -> None:
    late = threading.Event()
    with Deadline(0.01, late.set):
        assert late.wait(10)
    late.clear()
    with Deadline(0.05, late.set):
        pass
    assert not late.wait(0.1)


def test_a_new_version_is_served_without_a_lost_call(
    registry: Registry, command: Puller, out: Path, tmp_path: Path
) -> None:
    registry.push("live", {"colors/1/model.onnx": model()})
    url = f"oci://{registry.address}/zoo:live"
    command.ok(url, "--out", out)  # as an init container does
    picture = plain(RED, 64, 64)
    versions: list[int] = []
    failures: list[Exception] = []
    ended = threading.Event()

    def call(client: Client) -> None:
        while not ended.is_set():
            try:
                versions.append(client.classify(picture, model="colors").served_by.version)
            except Exception as error:  # noqa: BLE001  every failure counts
                failures.append(error)

    watch = command.start(url, "--out", out, "--watch", "1", "--log-format", "json")
    with watch, ServerProcess(out, tmp_path, "--watch-interval-s", "0.2") as server:
        try:
            with Client(server.address) as client:
                caller = threading.Thread(target=call, args=(client,))
                caller.start()
                files = {"colors/1/model.onnx": model(), "colors/2/model.onnx": model(gain=5.0)}
                bad = damaged(model(gain=6.0), gain=6.0)
                registry.push("live", {**files, "colors/3/model.onnx": bad})
                until(lambda: 2 in versions or failures, "version 2 is not served")
                assert failures == []
                registry.down = 503
                asked = len(registry.requests)
                until(lambda: len(registry.requests) > asked, "the watch has ended")
                registry.down = 0
                registry.push("live", {"colors/2/model.onnx": model(gain=7.0)})
                until(
                    lambda: (out / "colors/2/model.onnx").read_bytes() == model(gain=7.0),
                    "version 2 is not replaced",
                )
                # The round that has replaced it says so before the next one begins.
                asked = len(registry.requests)
                until(lambda: len(registry.requests) > asked, "the watch has ended")
                ended.set()
                caller.join()
        finally:
            ended.set()
            watch.send_signal(signal.SIGTERM)
            _, log = watch.communicate(timeout=PATIENCE_S)
    assert watch.returncode == 0, log
    assert failures == []
    assert set(versions) == {1, 2}
    assert versions == sorted(versions)
    entries = [json.loads(line) for line in log.splitlines()]
    said = [(entry["event"], entry.get("model")) for entry in entries]
    assert said[0] == ("watching", None) and said[-1] == ("stopped", None)
    for event in (("fetched", "colors/2"), ("replaced", "colors/2"), ("refused", "colors/3")):
        assert said.count(event) == 1
    assert any("503" in entry["why"] for entry in entries if entry["event"] == "not pulled")
    # What the source no longer has stays.
    assert set(visible(out)) == {"colors/1/model.onnx", "colors/2/model.onnx"}
