"""Installs packages into a virtual environment of an image: `install.py FOLDER MACHINE PIP...`.

MACHINE is the image's, as container engines call it: amd64 or arm64; some do not say it (''), which
means this machine. PIP are arguments of `pip install`. Wheels are unpacked and nothing of them
runs, so a machine of another kind can build the image without emulating one.
"""

import platform
import subprocess
import sys
from pathlib import Path

# As wheels are named.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def main(folder: str, machine: str, *arguments: str) -> None:
    """Install the packages, with their programs."""
    if machine and machine not in MACHINES:
        sys.exit(f"no image for the machine {machine!r}: the machines are {', '.join(MACHINES)}")
    environment = Path(folder)
    (packages,) = environment.glob("lib/python3.*/site-packages")
    name = MACHINES.get(machine, platform.machine())
    # The builder and the base have the same glibc. The tags of manylinux begin at glibc 2.5.
    newest = int(platform.libc_ver()[1].split(".")[1])
    platforms = [f"manylinux_2_{minor}_{name}" for minor in range(newest, 4, -1)]
    command = [
        *(sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install"),
        *("--no-cache-dir", "--only-binary=:all:", f"--target={packages}"),
        *(f"--platform={each}" for each in (*platforms, f"manylinux2014_{name}")),
        *arguments,
    ]
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)
    programs = packages / "bin"
    if programs.exists():
        for program in programs.iterdir():
            program.replace(environment / "bin" / program.name)
        programs.rmdir()


if __name__ == "__main__":
    main(*sys.argv[1:])
