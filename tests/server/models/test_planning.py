"""How much of the machine a model takes: by what it is, where it runs, and what was measured."""

from pathlib import Path
from typing import Any

import pytest

from visavis_server.errors import ProviderUnavailable
from visavis_server.models.planning import Planner, one_at_a_time, planner_of
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.providers import CPU, CUDA
from visavis_server.settings import Settings, TunedPlan, load_settings

from .. import graphs
from ..nvidia_driver import FakeDriver

GIB = 1 << 30
INT8 = graphs.classifier_document(precision="int8")
FP32 = graphs.classifier_document()
DETECTOR = graphs.detector_document(precision="int8")


@pytest.mark.parametrize(("document", "batch"), [(FP32, 4), (INT8, 4), (DETECTOR, 1)])
def test_only_classifiers_gain_from_batches_on_a_cpu(document: object, batch: int) -> None:
    assert Planner(CPU, 4).plan(document).batch == batch  # type: ignore[arg-type]


def test_a_small_cache_has_room_for_one_fp32_image() -> None:
    planner = Planner(CPU, 4, cache_bytes=512 << 10)
    assert (planner.plan(FP32).batch, planner.plan(INT8).batch) == (1, 4)
    assert planner.plan(FP32).why.endswith("a batch does not fit in a core's cache of 512 KiB")


def test_cores_take_one_run_each_and_a_lone_run_takes_all() -> None:
    plan = Planner(CPU, 4).plan(FP32)
    assert (plan.runs_on, plan.instances, plan.threads, plan.exclusive_threads) == (
        "cores",
        4,
        1,
        4,
    )
    assert str(plan) == "4 at once on 1 thread, each with up to 4 images; on 4 threads when alone"
    assert plan.why == "a run for each of the 4 usable cores; classifiers gain from batches"


def test_one_core_needs_one_session() -> None:
    plan = Planner(CPU, 1).plan(INT8)
    assert (plan.instances, plan.threads, plan.exclusive_threads) == (1, 1, 0)
    assert str(plan) == "1 at once on 1 thread, each with up to 4 images"
    assert plan.why == "one usable core; int8 classifiers gain from batches"


def test_low_memory_means_one_session_and_one_image() -> None:
    plan = Planner(CPU, 4, low_memory=True).plan(INT8)
    assert (plan.instances, plan.batch, plan.exclusive_threads) == (4, 1, 0)
    assert "low_memory" in plan.why


def test_a_device_takes_large_batches_on_its_streams() -> None:
    plan = Planner(CUDA, 8, streams=3).plan(FP32)
    assert (plan.runs_on, plan.batch, plan.instances) == ("device", 16, 3)
    assert str(plan) == "3 at once, each with up to 16 images"


def test_tuning_overrides_the_defaults() -> None:
    tuning = {
        "test": TunedPlan(goal="latency", threads=4, instances=2, batch=2, exclusive_threads=8)
    }
    document = FP32.model_copy(update={"name": "test"})
    plan = Planner(CPU, 8, tuning=tuning).plan(document)
    assert plan == Plan("cores", 2, 2, 4, 8, "tuned for latency in the settings")
    assert Planner(CPU, 8, tuning=tuning).plan(FP32.model_copy(update={"name": "x"})).threads == 1


def test_tuning_for_another_device_is_ignored() -> None:
    tuning = {"test": TunedPlan(device="cuda", batch=32)}
    document = FP32.model_copy(update={"name": "test"})
    assert Planner(CPU, 2, tuning=tuning).plan(document) == Planner(CPU, 2).plan(document)


def test_tuning_from_a_larger_machine_is_limited_to_this_one() -> None:
    tuning = {"test": TunedPlan(threads=4, instances=4, exclusive_threads=16)}
    document = FP32.model_copy(update={"name": "test"})
    plan = Planner(CPU, 2, tuning=tuning).plan(document)
    assert (plan.threads, plan.instances, plan.exclusive_threads) == (2, 1, 0)


def test_a_graph_for_one_image_is_given_one() -> None:
    plan = one_at_a_time(Planner(CPU, 2).plan(INT8))
    assert plan.batch == 1
    assert plan.why.endswith("the graph takes one image at a time")
    assert one_at_a_time(plan) is plan


def test_a_plan_comes_from_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "visavis.toml"
    file.write_text(
        'device = "cpu"\ncores = 3\nlow_memory = true\n[tuning.colors]\nthreads = 2\nbatch = 5\n'
    )
    planner, why = planner_of(load_settings({}, file))
    assert (planner.provider, planner.cores, planner.streams) == (CPU, 3, 0)
    assert why == "--device cpu"
    colors = planner.plan(FP32.model_copy(update={"name": "colors"}))
    assert (colors.threads, colors.batch) == (2, 5)
    assert "low_memory" in planner.plan(FP32.model_copy(update={"name": "other"})).why


@pytest.fixture
def cuda(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which CUDA is usable: a GPU of 16 GiB, and one of 32."""
    monkeypatch.setattr(
        "visavis_server.models.planning.choose", lambda device, bf16: (CUDA, "said the test")
    )


@pytest.mark.usefixtures("cuda")
def test_a_device_has_the_settings_streams() -> None:
    assert planner_of(Settings(streams=4))[0].streams == 4


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(
    ("settings", "models", "limit"),
    [
        ({}, 3, 0),
        ({"workers": 4}, 3, int(16 * 0.9 * GIB) // 4),
        ({"gpu_memory_bytes": 12 * GIB}, 3, 4 * GIB),
        ({"gpu_memory_bytes": 12 * GIB}, 0, 12 * GIB),
        ({"gpu_memory_bytes": 12 * GIB, "workers": 2}, 3, 2 * GIB),
        ({"gpu_memory_bytes": 24 * GIB, "gpu": 1}, 2, 12 * GIB),
    ],
)
def test_models_and_workers_share_the_memory_of_the_gpu(
    settings: dict[str, Any], models: int, limit: int
) -> None:
    planner, _ = planner_of(Settings(**settings), models)
    assert planner.gpu_bytes == limit


@pytest.mark.usefixtures("cuda")
def test_a_server_with_a_part_of_the_gpu_takes_that_part_of_its_memory() -> None:
    planner, _ = planner_of(Settings(), gpu_share=0.25)
    assert planner.gpu_bytes == int(16 * 0.9 * 0.25 * GIB)


@pytest.mark.usefixtures("cuda")
def test_more_memory_than_the_gpu_has_is_refused() -> None:
    with pytest.raises(ProviderUnavailable, match=f"{17 * GIB}, but the GPU has {16 * GIB}"):
        planner_of(Settings(gpu_memory_bytes=17 * GIB))


@pytest.mark.usefixtures("cuda")
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ProviderUnavailable, match=r"GPU 2 is not visible .*: 0 \(Fake H200, 16384"):
        planner_of(Settings(gpu="2"))
    assert planner_of(Settings(gpu="1"))[0].gpu == 1


def test_a_cpu_server_needs_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visavis_server.runtime.nvidia.gpus", None)
    assert planner_of(Settings(device="cpu", gpu="7"))[0].gpu_bytes == 0
