"""`make lock`: pins everything that a deployed server needs, by version and hash.

Writes requirements.txt, with ONNX Runtime's GPU build, requirements-cuda.txt, with that build and
the libraries of CUDA, and requirements-cpu.txt, with the small build: for Linux and the Python that
runs this. All have OpenCV without windows, which needs no graphics libraries. The versions are
those that the tests last passed with, where those say.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PROJECTS = (ROOT / "pyproject.toml", ROOT / "clients" / "python" / "pyproject.toml")
# What settings can ask a server for.
EXTRAS = ("http", "trace")
OURS = re.compile(r"visavis\b")
HEADER = "# Written by `make lock`. Install with: pip install --require-hashes -r {name}\n"


def main() -> None:
    """Write the files."""
    projects = [tomllib.loads(path.read_text("utf-8"))["project"] for path in PROJECTS]
    extras = projects[0]["optional-dependencies"]
    groups = [*(each["dependencies"] for each in projects), *(extras[name] for name in EXTRAS)]
    needed = {each for group in groups for each in group if not OURS.match(each)}
    (window,) = (each for each in needed if each.startswith("opencv-python>"))
    needed = needed - {window} | {window.replace("opencv-python", "opencv-python-headless")}
    runtimes = {dependency for dependency in needed if dependency.startswith("onnxruntime")}
    # Which of the two is for which machine, its marker says: the small one does for any.
    (small,) = (each for each in runtimes if not each.startswith("onnxruntime-gpu"))
    (large,) = runtimes - {small}
    cuda = large.partition(";")[0].replace("onnxruntime-gpu", "onnxruntime-gpu[cuda,cudnn]")
    lock(HERE / "requirements.txt", needed)
    lock(HERE / "requirements-cpu.txt", needed - runtimes | {small.partition(";")[0]})
    lock(HERE / "requirements-cuda.txt", needed - runtimes | {cuda})


def lock(target: Path, needed: set[str]) -> None:
    """Write one file."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, pinned = Path(folder, "wanted.in"), Path(folder, "pinned.txt")
        wanted.write_text("\n".join(sorted(needed)) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes"]
        subprocess.run(
            [
                *command,
                *("--no-header", "--no-annotate", "--strip-extras", "--allow-unsafe"),
                *("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"),
                f"--constraint={ROOT / '.ci' / 'constraints.txt'}",
                f"--output-file={pinned}",
                str(wanted),
            ],
            check=True,
        )
        pins = [line for line in pinned.read_text("utf-8").splitlines() if line[:2] != "--"]
    target.write_text(HEADER.format(name=target.name) + "\n".join(pins) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
