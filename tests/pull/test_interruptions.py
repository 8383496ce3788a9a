"""Connections that are cut, and processes that are killed, cost no byte twice."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.process import until
from tests.pull.command import Puller
from tests.pull.models import LARGE_BYTES, damaged, model, put, visible
from tests.pull.servers import Registry, WebFolder
from visavis_server.pull import fetching
from visavis_server.pull.errors import SourceUnreachable
from visavis_server.pull.fetching import fetch, part_of
from visavis_server.pull.placing import Place
from visavis_server.pull.puller import Puller as Rounds
from visavis_server.pull.source import BLOCK_BYTES, Entry, Listing, Source, Wanted
from visavis_server.pull.sources import open_source
from visavis_server.pull.wishes import Wishes

_LARGE = model(extra_bytes=LARGE_BYTES)
_FILES = {"colors/1/model.onnx": _LARGE}
_MIB = 1 << 20


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_FIRST_WAIT_S", 0.0)


def test_a_download_goes_on_where_its_connection_was_cut(
    registry: Registry, command: Puller, out: Path
) -> None:
    registry.push("1", _FILES)
    registry.cuts = [3 * _MIB + 7, 2 * _MIB]
    command.ok(f"oci://{registry.address}/zoo:1", "--out", out)
    assert visible(out) == _FILES
    starts = [asked.range and asked.range[0] for asked in registry.downloads()]
    assert starts == [None, 3 * _MIB + 7, 5 * _MIB + 7]
    assert registry.sent == len(_LARGE)


def test_a_killed_pull_is_taken_up_by_the_next(
    registry: Registry, command: Puller, out: Path
) -> None:
    registry.push("1", _FILES)
    registry.stalls = 3 * _MIB
    parts = out / ".visavis-pull" / "parts"
    with command.start(f"oci://{registry.address}/zoo:1", "--out", out) as process:
        until(lambda: _bytes_in(parts) >= 3 * _MIB, "the part does not grow")
        process.send_signal(signal.SIGKILL)
    assert visible(out) == {}
    kept = _bytes_in(parts)
    registry.stalls = None
    registry.go_on.set()
    command.ok(f"oci://{registry.address}/zoo:1", "--out", out)
    assert visible(out) == _FILES
    assert [asked.range for asked in registry.downloads()] == [None, (kept, None)]
    assert registry.sent == len(_LARGE)


def test_blocks_of_a_killed_pull_are_not_fetched_again(
    web: WebFolder, command: Puller, out: Path
) -> None:
    web.files = {f"zoo/{path}": contents for path, contents in _FILES.items()}
    web.cuts = [BLOCK_BYTES, 5]  # the first block passes, the second is cut
    web.stalls = 3 * _MIB
    parts = out / ".visavis-pull" / "parts"
    with command.start(f"http://{web.address}/zoo", "--out", out) as process:
        until(lambda: len(web.downloads()) == 3, "the second block is not asked for again")
        process.send_signal(signal.SIGKILL)
    assert _bytes_in(parts) == BLOCK_BYTES
    web.stalls = None
    web.go_on.set()
    web.forget()
    command.ok(f"http://{web.address}/zoo", "--out", out)
    assert visible(out) == _FILES
    ranges = [asked.range for asked in web.downloads()]
    size = len(_LARGE)
    assert ranges == [(BLOCK_BYTES, 2 * BLOCK_BYTES - 1), (2 * BLOCK_BYTES, size - 1)]
    assert web.sent == size - BLOCK_BYTES


def test_a_server_without_ranges_is_read_from_the_beginning(
    registry: Registry, web: WebFolder, command: Puller, tmp_path: Path
) -> None:
    registry.push("1", _FILES)
    web.files = {f"zoo/{path}": contents for path, contents in _FILES.items()}
    registry.resumes = web.resumes = False
    registry.cuts = [2 * _MIB]
    for url in (f"oci://{registry.address}/zoo:1", f"http://{web.address}/zoo"):
        out = tmp_path / url.partition(":")[0]
        command.ok(url, "--out", out)
        assert visible(out) == _FILES


def test_a_server_that_always_cuts_is_given_up(registry: Registry, tmp_path: Path) -> None:
    registry.push("1", _FILES)
    registry.resumes = False
    registry.cuts = [_MIB] * 100
    source = open_source(f"oci://{registry.address}/zoo:1", tmp_path / "models")
    (entry,) = source.listing(lambda name: True, 10).entries
    with pytest.raises(SourceUnreachable, match="can't resume"):
        fetch(source, entry, tmp_path, lambda count: None)
    assert len(registry.downloads()) < 20


def test_a_silent_server_is_asked_five_times(registry: Registry, tmp_path: Path) -> None:
    registry.push("1", _FILES)
    source = open_source(f"oci://{registry.address}/zoo:1", tmp_path / "models")
    (entry,) = source.listing(lambda name: True, 10).entries
    registry.cuts = [0] * 100
    with pytest.raises(SourceUnreachable):
        fetch(source, entry, tmp_path, lambda count: None)
    assert len(registry.downloads()) == 5


def test_a_part_that_was_damaged_meanwhile_is_fetched_anew(
    web: WebFolder, registry: Registry, tmp_path: Path
) -> None:
    registry.push("1", _FILES)
    web.files = {f"zoo/{path}": contents for path, contents in _FILES.items()}
    for url in (f"oci://{registry.address}/zoo:1", f"http://{web.address}/zoo"):
        place = Place(tmp_path / url.partition(":")[0])
        source = open_source(url, place.out)
        (entry,) = source.listing(lambda name: True, 10).entries
        place.parts.mkdir(parents=True)
        # The digest covers these bytes: their structure is intact.
        part_of(source, entry, place.parts).write_bytes(damaged(_LARGE)[: 5 * _MIB])
        (outcome,) = Rounds(source, place, Wishes()).round().outcomes
        assert outcome.state == "fetched"
        assert visible(place.out) == _FILES


class _Changing:
    """A folder whose file changes while it is read."""

    def __init__(self, source: Source, path: Path, then: bytes) -> None:
        self.name, self._source, self._path, self._then = source.name, source, path, then

    def listing(self, wanted: Wanted, max_versions: int) -> Listing:
        return self._source.listing(wanted, max_versions)

    def read(self, entry: Entry, offset: int) -> Iterator[bytes]:
        try:
            yield from self._source.read(entry, offset)
        finally:
            self._path.write_bytes(self._then)

    def tag(self, entry: Entry) -> str:
        return self._source.tag(entry)


def test_a_file_that_changes_while_it_is_fetched_waits_for_the_next_round(
    tmp_path: Path, out: Path
) -> None:
    path = put(tmp_path / "source", "colors/1/model.onnx", model())
    newer = model(gain=2.0)
    source = _Changing(open_source(str(tmp_path / "source"), out), path, newer)
    rounds = Rounds(source, Place(out), Wishes())
    (outcome,) = rounds.round().outcomes
    assert outcome.state == "failed"
    assert "changed while it was fetched" in outcome.note
    assert visible(out) == {}
    path.write_bytes(newer)
    rounds.round()
    assert visible(out) == {}  # it was written once more
    (outcome,) = (
        Rounds(open_source(str(path.parents[2]), out), Place(out), Wishes()).round().outcomes
    )
    assert visible(out) == {"colors/1/model.onnx": newer}


def _bytes_in(parts: Path) -> int:
    return sum(part.stat().st_size for part in parts.glob("*.part"))


def test_a_token_that_expires_while_watching_is_asked_for_again(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins = tmp_path / "home" / ".docker" / "config.json"
    with Registry("cm9ib3Q6U0VDUkVU") as registry:
        registry.tokens = set()
        registry.push("1", {"colors/1/model.onnx": model()})
        auths = {registry.address: {"auth": registry.password}}
        put(logins.parent, logins.name, json.dumps({"auths": auths}).encode())
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        rounds = Rounds(open_source(f"oci://{registry.address}/zoo:1", out), Place(out), Wishes())
        assert [outcome.state for outcome in rounds.round().outcomes] == ["fetched"]
        registry.tokens.clear()
        assert [outcome.state for outcome in rounds.round().outcomes] == ["unchanged"]
