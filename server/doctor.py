"""What this machine has for the server, and what a GPU would need."""

from importlib.metadata import PackageNotFoundError, version

from server.cores import usable_cores
from server.providers import PROVIDERS, choose

_PACKAGES = (
    "visavis-server",
    "onnxruntime-gpu",
    "onnxruntime",
    "opencv-python",
    "pillow",
    "numpy",
    "grpcio",
    "torch",
    "torchvision",
    "ultralytics",
    "onnx",
)


def report() -> list[tuple[str, str, str]]:
    """Return rows of (what, "ok", "missing" or "info", text)."""
    installed = {package: _version(package) for package in _PACKAGES}
    rows = [(package, "info", text or "not installed") for package, text in installed.items()]
    if installed["onnxruntime"] and installed["onnxruntime-gpu"]:
        text = "they overwrite each other: uninstall both, then install one"
        rows.append(("onnxruntime, twice", "missing", text))
    rows.append(("cores", "info", f"{usable_cores()} usable by this process"))
    for provider in PROVIDERS:
        missing = provider.missing()
        rows.append(
            (f"--device {provider.device}", "missing", "; ".join(missing))
            if missing
            else (f"--device {provider.device}", "ok", f"{provider.name} can run")
        )
    chosen, why = choose("auto")
    rows.append(("--device auto", "ok", f"takes {chosen.name}: {why}"))
    return rows


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
