"""Decides how much of the machine each model takes, and says why."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from visavis_server.card import ModelDocument, Task
from visavis_server.errors import ProviderUnavailable
from visavis_server.runtime import nvidia
from visavis_server.runtime.cores import cache_bytes
from visavis_server.runtime.plan import Plan
from visavis_server.runtime.providers import Provider, choose
from visavis_server.settings import Settings, TunedPlan

# Measured on CPUs with ResNet-50; the outputs are identical to the bit. With a large cache, batches
# of 4 gain up to 8 % (fp32) and 9 % (int8), and larger batches no more. With a small cache, fp32
# loses 6 %. YOLO at 640 gains nothing or loses everywhere: the activations of one image already
# fill the cache.
_LARGE_CACHE_BYTES = 1 << 20
_CLASSIFIER_BATCH = 4
_DEVICE_BATCH = 16
# Of a GPU's memory, for the sessions of several workers: the rest is for CUDA's contexts.
_USABLE_OF_GPU = 0.9


@dataclass(frozen=True, slots=True)
class Planner:
    """The resources of the machine, and the plans for models that follow from them.

    cores: usable by this process. cache_bytes: of each core's private cache. streams: of the
    device, if the provider has one. low_memory: prefer less memory to speed. bf16: compute in
    bfloat16. tuning: the plans measured on this machine, by model. gpu: its number. gpu_bytes: of
    its memory, the most that one model may take; 0: any. cuda_graphs: replay runs as CUDA graphs.
    """

    provider: Provider
    cores: int
    streams: int = 0
    low_memory: bool = False
    bf16: bool = False
    cache_bytes: int = _LARGE_CACHE_BYTES
    tuning: Mapping[str, TunedPlan] = field(default_factory=dict)
    gpu: int = 0
    gpu_bytes: int = 0
    cuda_graphs: bool = False

    def plan(self, document: ModelDocument) -> Plan:
        """Return the plan for a model on this machine."""
        plan = self._on_device() if self.provider.on_device else self._on_cores(document)
        if self.low_memory:
            why = "low_memory: one session, one image per run"
            plan = replace(plan, batch=1, exclusive_threads=0, why=why)
        tuning = self.tuning.get(document.name)
        if tuning is not None and tuning.device == self.provider.device:
            plan = _tuned(plan, tuning, self.cores)
        return plan

    def _on_device(self) -> Plan:
        return Plan(
            runs_on="device",
            batch=_DEVICE_BATCH,
            instances=self.streams,
            why="large batches keep the device busy, and one stream copies while another computes",
        )

    def _on_cores(self, document: ModelDocument) -> Plan:
        batch, gain = self._cpu_batch(document)
        return Plan(
            batch=batch,
            instances=self.cores,
            exclusive_threads=self.cores if self.cores > 1 else 0,
            why=f"a run for each of the {self.cores} usable cores; {gain}"
            if self.cores > 1
            else f"one usable core; {gain}",
        )

    def _cpu_batch(self, document: ModelDocument) -> tuple[int, str]:
        """Return the number of images per run on cores, and why."""
        if self.provider.own_threads:
            return 1, f"batches gain nothing with {self.provider.device}"
        if document.task is not Task.CLASSIFICATION:
            return 1, "on a CPU, detectors gain nothing from batches"
        if document.precision == "int8":
            return _CLASSIFIER_BATCH, "int8 classifiers gain from batches"
        if self.cache_bytes < _LARGE_CACHE_BYTES:
            kib = self.cache_bytes >> 10
            return 1, f"a batch does not fit in a core's cache of {kib} KiB"
        return _CLASSIFIER_BATCH, "classifiers gain from batches"


def planner_of(settings: Settings, models: int = 1, gpu_share: float = 1.0) -> tuple[Planner, str]:
    """Return the planner, and the reason for its provider. Raises ProviderUnavailable.

    models: how many share the GPU's memory. gpu_share: the part of the GPU that is for this server.
    """
    nvidia.restrict(settings.gpu)
    provider, why = choose(settings.device, settings.bf16)
    planner = Planner(
        provider,
        settings.core_count,
        settings.streams if provider.on_device else 0,
        settings.low_memory,
        settings.bf16,
        cache_bytes() or _LARGE_CACHE_BYTES,
        settings.tuning,
    )
    if provider.memory == "cuda":
        number = nvidia.numbered(settings.gpu)
        size = nvidia.gpus()[number].memory_bytes
        planner = replace(
            planner,
            gpu=number,
            gpu_bytes=_gpu_bytes(settings, models, size, gpu_share),
            cuda_graphs=settings.cuda_graphs,
        )
    return planner, why


def _gpu_bytes(settings: Settings, models: int, size: int, share: float) -> int:
    """Return how much of a GPU's memory one model of one worker may take; 0: any.

    size: of the GPU's memory. share: the part for all workers. Raises ProviderUnavailable if the
    setting exceeds it.
    """
    workers = 1 if settings.workers == "auto" else settings.workers
    if settings.gpu_memory_bytes > size:
        raise ProviderUnavailable(
            f"gpu_memory_bytes is {settings.gpu_memory_bytes}, but the GPU has {size}"
        )
    if settings.gpu_memory_bytes:
        return settings.gpu_memory_bytes // workers // max(models, 1)
    return int(size * _USABLE_OF_GPU * share) // workers if workers > 1 or share < 1 else 0


def one_at_a_time(plan: Plan) -> Plan:
    """Return the plan for a graph with a fixed batch of 1."""
    if plan.batch == 1:
        return plan
    return replace(plan, batch=1, why=f"{plan.why}; the graph takes one image at a time")


def _tuned(plan: Plan, tuning: TunedPlan, cores: int) -> Plan:
    why = f"tuned for {tuning.goal} in the settings"
    if plan.runs_on == "device":
        return replace(plan, batch=tuning.batch, why=why)
    threads = min(tuning.threads, cores)
    exclusive_threads = min(tuning.exclusive_threads, cores)
    return replace(
        plan,
        batch=tuning.batch,
        threads=threads,
        instances=max(1, min(tuning.instances, cores // threads)),
        exclusive_threads=exclusive_threads if exclusive_threads > threads else 0,
        why=why,
    )
