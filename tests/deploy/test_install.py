"""install.py installs packages for the image's machine, and programs for its Python."""

import platform
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.surroundings import Surroundings

_INSTALL = Path(__file__).parents[2] / "deploy" / "install.py"
_METADATA = "Metadata-Version: 2.1\nName: kind\nVersion: 1.0\n"
_WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-{}\n"


def _wheel(folder: Path, kind: str) -> None:
    """Write a wheel whose program says for which machines it is."""
    files = {
        "kind.py": f"def main():\n    print({kind!r})\n",
        "kind-1.0.dist-info/METADATA": _METADATA,
        "kind-1.0.dist-info/WHEEL": _WHEEL.format(kind),
        "kind-1.0.dist-info/entry_points.txt": "[console_scripts]\nkind = kind:main\n",
    }
    record = "kind-1.0.dist-info/RECORD"
    with zipfile.ZipFile(folder / f"kind-1.0-py3-none-{kind}.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr(record, "".join(f"{name},,\n" for name in (*files, record)))


def _installed(folder: Path, machine: str) -> "subprocess.CompletedProcess[str]":
    venv.create(folder / "environment")
    command = [sys.executable, _INSTALL, folder / "environment", machine]
    command += ["--no-index", "--find-links", folder, "--disable-pip-version-check", "kind"]
    found = Surroundings.under(folder)
    return subprocess.run(
        command,
        cwd=found.elsewhere,
        env=found.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="images have glibc")
@pytest.mark.parametrize(
    ("machine", "kind"),
    [("amd64", "manylinux_2_17_x86_64"), ("arm64", "manylinux2014_aarch64"), ("arm64", "any")],
)
def test_a_package_is_the_one_for_the_images_machine(
    tmp_path: Path, machine: str, kind: str
) -> None:
    others = {"manylinux_2_17_x86_64", "manylinux2014_aarch64"} - {kind}
    if kind == "any":
        others = {"manylinux_2_17_x86_64", "manylinux_2_99_aarch64"}
    for each in (kind, *others):
        _wheel(tmp_path, each)
    done = _installed(tmp_path, machine)
    assert done.returncode == 0, done.stderr
    program = tmp_path / "environment" / "bin" / "kind"
    ran = subprocess.run([program], env={}, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == kind
    assert program.read_text("utf-8").startswith(f"#!{tmp_path}/environment/bin/python")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="images have glibc")
def test_an_engine_that_names_no_machine_builds_for_its_own(tmp_path: Path) -> None:
    for machine in ("x86_64", "aarch64"):
        _wheel(tmp_path, f"manylinux_2_17_{machine}")
    assert f"manylinux_2_17_{platform.machine()}.whl" in _installed(tmp_path, "").stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="images have glibc")
def test_what_cannot_be_installed_fails_the_build(tmp_path: Path) -> None:
    _wheel(tmp_path, "manylinux_2_17_x86_64")
    assert _installed(tmp_path, "arm64").returncode == 1
    done = _installed(tmp_path, "riscv64")
    assert done.returncode == 1
    assert done.stderr == "no image for the machine 'riscv64': the machines are amd64, arm64\n"
