"""The memory budget counts bytes until their release, and refuses more than fit."""

import gc
import threading
import time
from pathlib import Path

import pytest

from visavis_server.errors import Overloaded
from visavis_server.runtime.budget import Budget, Held, usable_bytes

MIB = 1 << 20


def test_bytes_that_do_not_fit_are_refused_and_change_nothing() -> None:
    budget = Budget(100)
    first, second = Held(budget, "arriving"), Held(budget, "arriving")
    first.become(60)
    with pytest.raises(
        Overloaded, match="other requests hold too much; try again later"
    ) as refused:
        second.become(41)
    assert refused.value.retry_after_s > 0
    assert (second.size_bytes, budget.held("arriving"), budget.refusals) == (0, 60, 1)
    second.become(40)


def test_bytes_that_could_never_fit_name_the_setting() -> None:
    with pytest.raises(Overloaded, match="memory_budget_bytes"):
        Held(Budget(100), "decoded").become(101)


def test_bytes_move_from_one_kind_to_another_and_back_to_nothing() -> None:
    budget = Budget(100)
    with Held(budget, "arriving") as held:
        held.become(80)
        held.become(30, "waiting")
        assert (budget.held("arriving"), budget.held("waiting")) == (0, 30)
    assert budget.held("waiting") == 0


def test_messages_leave_room_for_pixels() -> None:
    budget = Budget(100, working_bytes=40)
    messages = Held(budget, "waiting")
    assert not messages.fits(61)
    assert messages.fits(60)
    assert Held(budget, "decoded").fits(40)


def test_pixels_may_take_all_that_messages_leave() -> None:
    budget = Budget(100, working_bytes=40)
    pixels = Held(budget, "decoded")
    assert pixels.fits(100)
    assert not Held(budget, "arriving").fits(1)


def test_collected_bytes_are_released() -> None:
    budget = Budget(100)
    Held(budget, "decoded").become(100)
    gc.collect()
    assert budget.held("decoded") == 0


def test_a_core_waits_for_the_pixels_of_others_to_be_released() -> None:
    budget = Budget(100)
    other, own = Held(budget, "decoded"), Held(budget, "decoded")
    other.become(80)
    waiting = threading.Thread(target=own.wait_for, args=(50,))
    waiting.start()
    other.release()
    waiting.join(10)
    assert own.size_bytes == 50


def test_a_core_does_not_wait_if_no_pixels_are_held() -> None:
    budget = Budget(100)
    messages, pixels = Held(budget, "waiting"), Held(budget, "decoded")
    messages.become(80)
    began = time.monotonic()
    with pytest.raises(Overloaded):
        pixels.wait_for(50)
    assert time.monotonic() - began < 0.5


def test_threads_that_hold_and_release_leave_nothing_held() -> None:
    budget = Budget(1000)

    def work() -> None:
        for size in range(2000):
            with Held(budget, "decoded") as held:
                held.fits(size % 300)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.held("decoded") == 0


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 8 GiB free and 1 GiB used by this process. Tests write its cgroups."""
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {8 << 20} kB\n")
    (tmp_path / "status").write_text(f"VmHWM:\t1 kB\nVmRSS:\t{1 << 20} kB\n")
    return tmp_path


def usable(machine: Path) -> int | None:
    files = (machine / name for name in ("cgroups", "cgroup", "meminfo", "status"))
    return usable_bytes(*files)


def test_without_a_limit_the_machine_s_free_memory_is_usable(machine: Path) -> None:
    assert usable(machine) == int(0.9 * (9 << 30))


@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_limit_of_the_cgroup_and_its_parents_holds(
    machine: Path, version: int
) -> None:
    line, mount, name, endless = {
        1: ("4:memory:/pods/one", "cgroups/memory", "memory.limit_in_bytes", str(2**63 - 4096)),
        2: ("0::/pods/one", "cgroups", "memory.max", "max"),
    }[version]
    (machine / "cgroup").write_text(f"{line}\n")
    folder = machine / mount / "pods" / "one"
    folder.mkdir(parents=True)
    (folder / name).write_text(endless)
    (folder.parent / name).write_text(f"{700 * MIB}\n")
    assert usable(machine) == int(0.9 * 700 * MIB)


def test_unknown_memory_is_not_guessed(tmp_path: Path) -> None:
    assert usable(tmp_path) is None
