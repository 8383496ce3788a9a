"""How many workers, on which cores, with which memory."""

import os
from pathlib import Path
from typing import Any

import pytest

from visavis_server.errors import StartupError
from visavis_server.settings import Settings, load_settings
from visavis_server.supervision import division
from visavis_server.supervision.division import core_ids, settings_of, worker_count

GIB = 1 << 30


def settings(**changes: Any) -> Settings:
    return Settings(**{"device": "cpu", "models": Path("none"), **changes})


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (7, 1), (8, 2), (16, 4), (64, 16)])
def test_auto_chooses_from_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int
) -> None:
    monkeypatch.setattr(division, "usable_bytes", lambda: 1024 * GIB)
    count, why = worker_count(settings(workers="auto", cores=cores))
    assert count == workers
    assert str(cores) in why


def test_auto_takes_no_more_than_fit_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(division, "usable_bytes", lambda: 2 * GIB)
    count, why = worker_count(settings(workers="auto", cores=64))
    # 128 MiB each, and six messages of 32 MiB.
    assert count == 2048 // (128 + 6 * 32)
    assert "320 MiB" in why


def test_auto_is_one_on_a_unix_socket() -> None:
    count, why = worker_count(settings(workers="auto", cores=64, grpc="unix:/tmp/socket"))
    assert (count, "Unix socket" in why) == (1, True)


def test_a_number_is_taken_as_it_is() -> None:
    assert worker_count(settings(workers=3, cores=1)) == (3, "as set in workers")


def test_without_a_kernel_that_spreads_connections_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(division.sys, "platform", "darwin")
    assert worker_count(settings(workers="auto", cores=64))[0] == 1
    assert worker_count(settings(workers=1))[0] == 1
    with pytest.raises(StartupError, match=r"2 workers need Linux.*set workers to 1"):
        worker_count(settings(workers=2))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"workers": "0"}, "workers: it must be auto or a number from 1 to 256, got '0'"),
        ({"workers": "many"}, "got 'many'"),
        ({"workers": "300"}, "got '300'"),
        ({"workers": "2", "grpc": "unix:/tmp/s"}, "2 workers can't share a Unix socket"),
    ],
)
def test_a_wrong_number_is_refused_in_words(given: dict[str, str], says: str) -> None:
    with pytest.raises(StartupError) as refused:
        load_settings(given)
    assert says in str(refused.value)


@pytest.mark.parametrize("text", ["auto", "AUTO", " Auto "])
def test_auto_has_no_case(text: str) -> None:
    assert load_settings({"workers": text}).workers == "auto"


def test_cores_are_disjoint_and_all_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(division, "usable_ids", lambda: [0, 4, 1, 5, 2, 6, 3])
    shares = [core_ids(number, 3) for number in (1, 2, 3)]
    assert shares == [{0, 4}, {1, 5}, {2, 6, 3}]


def test_more_workers_than_cores_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(division, "usable_ids", lambda: [0, 1])
    assert [core_ids(number, 3) for number in (1, 2, 3)] == [{0}, {1}, {0}]


def test_the_cores_of_this_process_are_divided() -> None:
    shares = [core_ids(number, 2) or set() for number in (1, 2)]
    assert set().union(*shares) == os.sched_getaffinity(0)


def test_each_worker_has_its_share_of_cores_and_memory() -> None:
    of_all = settings(cores=7, memory_budget_bytes=1000)
    shares = [settings_of(of_all, number, 3) for number in (1, 2, 3)]
    assert [share.cores for share in shares] == [2, 2, 3]
    assert [share.memory_budget_bytes for share in shares] == [333] * 3
    assert {share.workers for share in shares} == {3}
    # 0 says: what is left.
    assert settings_of(settings(cores=1), 3, 3).memory_budget_bytes == 0
    assert settings_of(settings(cores=1), 3, 3).cores == 1
