"""The usable cores, their cache and their instruction sets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from visavis_server.runtime.cores import cache_bytes, instructions, usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    """A process in /pods/one, in the format of cgroups version 2."""
    file = tmp_path / "membership"
    file.write_text("0::/pods/one\n")
    return file


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("", 8),
        ("odd", 8),
    ],
)
@pytest.mark.parametrize("folder", ["pods/one", "pods", "."])
def test_the_quota_of_a_cgroup_or_a_parent_bounds_the_cores(
    tmp_path: Path, membership: Path, folder: str, cpu_max: str, cores: int
) -> None:
    put(tmp_path / folder / "cpu.max", cpu_max)
    assert usable_cores(tmp_path, membership) == cores


def test_the_smallest_quota_counts(tmp_path: Path, membership: Path) -> None:
    put(tmp_path / "pods" / "cpu.max", "300000 100000")
    put(tmp_path / "pods" / "one" / "cpu.max", "600000 100000")
    assert usable_cores(tmp_path, membership) == 3


def test_cgroups_version_1_counts_too(tmp_path: Path, membership: Path) -> None:
    membership.write_text("5:memory:/pods/one\n4:cpu,cpuacct:/pods/one\n")
    # In a container the path is the host's, and the mount is the process's own group.
    put(tmp_path / "cpu,cpuacct" / "cpu.cfs_quota_us", "400000\n")
    put(tmp_path / "cpu,cpuacct" / "cpu.cfs_period_us", "200000\n")
    assert usable_cores(tmp_path, membership) == 2
    put(tmp_path / "cpu,cpuacct" / "cpu.cfs_quota_us", "-1\n")
    assert usable_cores(tmp_path, membership) == 8


def test_affinity_counts_where_there_is_no_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert usable_cores(tmp_path, tmp_path / "none") == 1


def test_a_cores_own_cache_is_that_of_level_2(tmp_path: Path) -> None:
    for index, level, size in (("0", "1", "32K"), ("1", "2", "512K"), ("2", "3", "32768K")):
        put(tmp_path / f"index{index}" / "level", level + "\n")
        put(tmp_path / f"index{index}" / "size", size + "\n")
    assert cache_bytes(tmp_path) == 512 << 10
    assert cache_bytes(tmp_path / "none") is None


def test_instructions_are_those_that_the_system_names(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\nbugs\t\t: one\n")
    assert {"avx2", "avx512_vnni"} <= instructions(cpuinfo)
    assert not {"avx512", "one"} & instructions(cpuinfo)
    assert instructions(tmp_path / "none") == frozenset()


@pytest.mark.usefixtures("minimal_surroundings")
@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_numpy_has_no_threads_beside_the_schedulers() -> None:
    count = "import visavis_server, numpy, os; print(len(os.listdir('/proc/self/task')))"
    done = subprocess.run([sys.executable, "-c", count], capture_output=True, check=True, text=True)
    assert done.stdout == "1\n"
