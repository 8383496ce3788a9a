"""What the doctor says of a machine."""

import pytest

from visavis_server.runtime.providers import PROVIDERS
from visavis_server.tools import doctor
from visavis_server.vision.families import resize


def rows() -> dict[str, tuple[str, str]]:
    return {what: (state, text) for what, state, text in doctor.report()}


def test_every_device_is_reported_and_the_cpu_can_run() -> None:
    report = rows()
    assert report["--device cpu"] == ("ok", "CPUExecutionProvider is usable")
    assert {f"--device {provider.device}" for provider in PROVIDERS} < set(report)
    assert report["--device auto"][0] == "ok"


def test_two_builds_of_a_package_are_reported_as_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: "1.0")
    for package in ("onnxruntime", "opencv-python"):
        assert "overwrite each other" in rows()[f"{package}, twice"][1]


def test_missing_packages_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    assert rows()["torch"] == rows()["opencv-python"] == ("info", "not installed")
    assert "onnxruntime, twice" not in rows()


def test_the_small_builds_are_reported_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"onnxruntime": "1.0", "opencv-python-headless": "5.0"}
    monkeypatch.setattr(doctor, "_version", small.get)
    report = rows()
    assert report["opencv-python-headless"] == ("info", "5.0")
    assert not report.keys() & {"opencv-python", "onnxruntime-gpu", "onnxruntime, twice"}


@pytest.mark.usefixtures("driver")
def test_the_gpus_and_their_driver_are_reported() -> None:
    report = rows()
    assert report["NVIDIA driver"][1].endswith("supports CUDA 13.0")
    assert report["GPU 0"] == (
        "info",
        "Fake H200, 4096 of 16384 MiB free, GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf",
    )
    assert "MIG 1g.10gb, 4096 of 32768 MiB" in report["GPU 1"][1]


@pytest.mark.usefixtures("driver")
def test_a_full_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> int:
        raise doctor.nvidia.DriverError("cuDevicePrimaryCtxRetain reports error 2")

    monkeypatch.setattr(doctor.nvidia, "free_bytes", full)
    assert "16384 MiB (cuDevicePrimaryCtxRetain reports error 2)" in rows()["GPU 0"][1]


def test_a_missing_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.nvidia, "missing", lambda: ["the NVIDIA driver is not installed"])
    report = rows()
    assert report["NVIDIA driver"] == ("info", "the NVIDIA driver is not installed")
    assert "GPU 0" not in report


def test_a_missing_c_extension_is_reported_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "rows_first_in_c", lambda image, x, y: image)
    assert rows()["resize"] == ("info", "in C")
    monkeypatch.setattr(resize, "rows_first_in_c", None)
    assert "install a C compiler" in rows()["resize"][1]
