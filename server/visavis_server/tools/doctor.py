"""Reports on this machine: packages and devices, the models' plans, and what a GPU needs."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from visavis_server.errors import StartupError
from visavis_server.models.loader import read_document
from visavis_server.models.memory_plan import expected_bytes, plan_here
from visavis_server.models.model_files import look_at
from visavis_server.models.planning import planner_of
from visavis_server.models.verified_file import VerifiedFile
from visavis_server.runtime import nvidia
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.providers import PROVIDERS, choose
from visavis_server.settings import load_settings
from visavis_server.vision.families import resize

# In one place: builds that overwrite each other.
_PACKAGES = (
    ("visavis-server",),
    ("onnxruntime", "onnxruntime-gpu"),
    ("opencv-python", "opencv-python-headless"),
    ("pillow",),
    ("numpy",),
    ("grpcio",),
    ("torch",),
    ("torchvision",),
    ("ultralytics",),
    ("onnx",),
)


Row = tuple[str, str, str]


def report() -> list[Row]:
    """Return rows of (name, "ok", "missing" or "info", text)."""
    rows = list(_packages())
    rows.append(("cores", "info", f"{usable_cores()} usable by this process"))
    slower = "in Pillow, slower: install a C compiler, then reinstall visavis-server"
    rows.append(("resize", "info", "in C" if resize.rows_first_in_c else slower))
    rows += _gpus()
    for provider in PROVIDERS:
        missing = provider.missing()
        rows.append(
            (f"--device {provider.device}", "missing", "; ".join(missing))
            if missing
            else (f"--device {provider.device}", "ok", f"{provider.name} is usable")
        )
    chosen, why = choose("auto")
    rows.append(("--device auto", "ok", f"uses {chosen.name}: {why}"))
    return [*rows, *_plans()]


def _packages() -> Iterator[Row]:
    """Yield a row for each package; of several builds, for those that are installed."""
    for builds in _PACKAGES:
        installed = {build: found for build in builds if (found := _version(build))}
        for build, found in (installed or {builds[0]: "not installed"}).items():
            yield build, "info", found
        if len(installed) > 1:
            text = "they overwrite each other: uninstall both, then install one of them"
            yield f"{builds[0]}, twice", "missing", text


def _gpus() -> Iterator[Row]:
    """Yield rows for NVIDIA's driver and the GPUs that this process may use."""
    if missing := nvidia.missing():
        yield "NVIDIA driver", "info", "; ".join(missing)
        return
    yield "NVIDIA driver", "info", nvidia.version()
    for gpu in nvidia.gpus():
        size = f"{gpu.memory_bytes >> 20} MiB"
        try:
            size = f"{nvidia.free_bytes(gpu.number) >> 20} of {size} free"
        except nvidia.DriverError as error:  # too full for a context
            size += f" ({error})"
        yield f"GPU {gpu.number}", "info", f"{gpu.name}, {size}, {gpu.uuid}"


def _plans() -> Iterator[Row]:
    """Yield rows for the models of the configured repository: their plans, and the reasons."""
    try:
        settings = load_settings({})
        look = look_at(settings.models)
        planner, _ = planner_of(settings, len(look.files))
    except StartupError as error:
        yield "models", "info", str(error)
        return
    for why in look.not_served():
        yield "passed over", "missing", why
    memory = plan_here(settings, expected_bytes(file.path for file in look.files))
    state = "missing" if memory.is_short else "ok"
    yield "memory for calls", state, f"{memory.budget_bytes >> 20} MiB: {memory.why}"
    for file in look.files:
        name = f"model {file.name}/{file.version}"
        try:
            opened = VerifiedFile(file.path)
            document = read_document(file.name, opened)
        except StartupError as error:
            yield name, "missing", str(error)
            continue
        plan = planner.plan(document)
        yield name, "ok", f"{plan}: {plan.why}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
