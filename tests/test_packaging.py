"""What a wheel holds."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from server.families.resize import rows_first_in_c

ROOT = Path(__file__).parents[1]

HAS_COMPILER = shutil.which("cc") is not None


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy: what is compiled here stays as it is."""
    copy = tmp_path / "sources"
    for folder in ("clients/web", "deploy", "export", "server"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("*.so"))
    for file in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / file, copy)
    return copy


def built(sources: Path, **environment: str) -> zipfile.ZipFile:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    ran = subprocess.run(
        [*command, sources / "dist", sources],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode and not os.environ.get("CI"):
        pytest.skip(f"no wheel can be built here: {ran.stderr[-500:]}")
    assert ran.returncode == 0, ran.stderr
    (wheel,) = (sources / "dist").glob("*.whl")
    return zipfile.ZipFile(wheel)


def test_a_wheel_brings_the_playground_and_what_was_compiled(sources: Path) -> None:
    wheel = built(sources)
    packed = {name for name in wheel.namelist() if name.startswith("server/web/")}
    page = {f"server/web/{path.name}" for path in (ROOT / "clients" / "web").iterdir()}
    assert "server/web/index.html" in packed and packed == page
    compiled = "server/families/rows_first.so" in wheel.namelist()
    assert compiled == HAS_COMPILER
    assert compiled != Path(wheel.filename or "").name.endswith("-any.whl")


def test_without_a_compiler_a_wheel_is_for_every_machine(sources: Path) -> None:
    wheel = built(sources, CC="no-such-compiler")
    assert not [name for name in wheel.namelist() if name.endswith(".so")]
    assert Path(wheel.filename or "").name.endswith("py3-none-any.whl")


@pytest.mark.skipif(not HAS_COMPILER, reason="there is no C compiler")
def test_what_is_installed_here_is_compiled() -> None:
    assert rows_first_in_c, "install again: rm .venv/.installed, then make install"
