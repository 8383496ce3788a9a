"""Builds the image on a small Debian, runs it as Kubernetes would, and asks it about a picture.

Needs root, and Debian's debootstrap, buildah, podman and runc; for another machine's image also
qemu-user-static. The wheels must be in dist/: make wheels.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Annotated
from urllib.request import urlopen

import typer

from tests.faults.process import free_port
from tests.server import graphs
from tests.server.pictures import RED, plain

from .engine import Engine, output
from .sources import debian, machine_of_this, pip_configuration

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/visavis"
TOOLS = ("debootstrap", "buildah", "podman", "runc")
# Of each file of pinned packages: the most bytes of its image, compressed, and its ONNX Runtime.
VARIANTS = {
    "requirements-cpu.txt": (250_000_000, "onnxruntime"),
    "requirements-cuda.txt": (3_000_000_000, "onnxruntime-gpu"),
}
# Of a core of a Raspberry Pi 4. qemu shows a program this machine's /proc/cpuinfo instead, and if
# that is of another kind, ONNX Runtime's library for it crashes.
_CORE = """processor : {}
Features : fp asimd evtstrm crc32 cpuid
CPU implementer : 0x41
CPU architecture : 8
CPU variant : 0x0
CPU part : 0xd08
CPU revision : 3

"""
# Prints the user, and whether the root and /tmp are read-only.
_CONFINED = """
import os
print(os.getuid(), *(os.statvfs(path).f_flag & os.ST_RDONLY for path in ("/", "/tmp")))
"""


def main(
    machine: Annotated[str, typer.Option(help="amd64 or arm64.")] = "",
    requirements: Annotated[str, typer.Option(help=" or ".join(VARIANTS))] = next(iter(VARIANTS)),
    models: Annotated[Path | None, typer.Option(help="The models to serve.")] = None,
    picture: Annotated[Path | None, typer.Option(help="The picture to ask about.")] = None,
    image: Annotated[str, typer.Option(help="An image to run, instead of building one.")] = "",
    folder: Annotated[Path | None, typer.Option(help="Keep the images here.")] = None,
) -> None:
    """Build the image, run it and ask it."""
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        sys.exit(f"missing: apt-get install {' '.join(missing)}")
    if requirements not in VARIANTS:
        sys.exit(f"--requirements {requirements}: give {' or '.join(VARIANTS)}")
    machine = machine or machine_of_this()
    most_bytes, runtime = VARIANTS[requirements]
    with tempfile.TemporaryDirectory() as temporary:
        work = folder or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        engine = Engine(work)
        if not image:
            image = f"{IMAGE}:{machine}"
            build(engine, work, image, machine, requirements)
        size = engine.compressed_bytes(image)
        print(f"image        {size / 1e6:.0f} MB compressed")
        assert size < most_bytes, "it has outgrown its limit"
        if models is None or picture is None:
            models, picture = tiny(work)
        emulated = [] if machine == machine_of_this() else emulation(work)
        ask(engine, image, runtime, models, picture, emulated)


def build(engine: Engine, work: Path, image: str, machine: str, requirements: str) -> None:
    """Build the image on two small Debians: the builder's has pip."""
    # By their ids: buildah 1.28 finds no image of another machine by its name.
    images = []
    for name, of, *packages in (
        ("BASE", machine, "python3"),
        ("BUILDER", machine_of_this(), "python3", "python3-pip"),
    ):
        tree = debian(work, f"{name}-{of}", of, *packages)
        images.append(f"--build-arg={name}={engine.import_tree(tree, of)}")
        shutil.rmtree(tree)
    secret = work / "pip.conf"
    volumes = [f"--volume={path}:{path}:ro" for path in pip_configuration(secret)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    revision = output("git", "-C", str(ROOT), "rev-parse", "HEAD").strip()
    begin = time.monotonic()
    engine.buildah(
        *("build", "--quiet", "--isolation=chroot", f"--platform=linux/{machine}", *volumes),
        *(*images, f"--secret=id=pip,src={secret}", f"--build-arg=REQUIREMENTS={requirements}"),
        *(f"--build-arg=VERSION={project['version']}", f"--build-arg=REVISION={revision}"),
        *(f"--file={ROOT / 'deploy/Containerfile'}", f"--tag={image}", str(ROOT)),
    )
    print(f"built        in {time.monotonic() - begin:.0f} s")


def emulation(work: Path) -> list[str]:
    """Return the options of a container that is of another machine, an ARM's."""
    cores = work / "cpuinfo"
    cores.write_text("".join(map(_CORE.format, range(os.cpu_count() or 1))), "utf-8")
    return [f"--volume={cores}:/proc/cpuinfo:ro", "--env=QEMU_CPU=cortex-a72"]


def tiny(work: Path) -> tuple[Path, Path]:
    """Return a folder with two small models, and a picture."""
    models, picture = work / "models", work / "red.png"
    for name in ("colors", "others"):
        contents, _ = graphs.export(graphs.classifier(), graphs.classifier_document(name=name))
        if not (models / name).exists():
            graphs.put(models, name, 1, contents)
    picture.write_bytes(plain(RED, 64, 64))
    return models, picture


def ask(
    engine: Engine, image: str, runtime: str, models: Path, picture: Path, options: list[str]
) -> None:
    """Run the image, compare a picture in it, and stop it."""
    public = engine.started(image)
    assert public.returncode == 2, public
    assert "requires TLS" in public.stderr, public
    print(f"alone        {public.stderr.splitlines()[-1]}")
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("GRPC", "HTTP")}
    variables = [f"--env=VISAVIS_{name}={address}" for name, address in ports.items()]
    begin = time.monotonic()
    container = engine.podman(
        *("run", "--detach", *engine.confined(), *variables, *options, "--memory=1g"),
        *(f"--volume={models.absolute()}:/models:ro", f"--volume={picture.absolute()}:/picture:ro"),
        image,
    ).strip()
    try:
        while not is_ready(ports["HTTP"]):
            runs = engine.podman("inspect", "--format={{.State.Running}}", container)
            is_late = time.monotonic() - begin > 600
            assert runs.strip() == "true" and not is_late, engine.podman("logs", container)
            time.sleep(0.1)
        print(f"ready        {time.monotonic() - begin:.1f} s after podman run")
        python = ("exec", container, "/opt/visavis/bin/python", "-c")
        confined = engine.podman(*python, _CONFINED).split()
        print(f"confined     user {confined[0]}")
        assert confined == ["65532", "1", "1"], "it may write, or is another user"
        inside = ("exec", container, "visavis")
        server = ("--server", ports["GRPC"], "--timeout", "300")
        compared = engine.podman(*inside, "compare", "/picture", *server)
        print("\n".join(compared.splitlines()[:12]))
        stats = json.loads(engine.podman("stats", "--no-stream", "--format=json", container))
        print(f"memory       {stats[0]['mem_usage']}")
        sbom = engine.podman("exec", container, "cat", "/opt/visavis/sbom.cdx.json")
        components = json.loads(sbom)["components"]
        names = {component["name"] for component in components}
        assert all(each.get("version") for each in components)
        unlicensed = {each["name"] for each in components if not each.get("licenses")}
        # cyclonedx-py does not take "3-Clause BSD License", as protobuf's metadata have it.
        assert unlicensed <= {"protobuf"}, unlicensed
        assert {"visavis-server", runtime, "opencv-python-headless"} <= names
        assert not names & {"torch", "ultralytics", "opencv-python", "pip"}
        print(f"contents     {len(names)} packages of Python, in /opt/visavis/sbom.cdx.json")
        engine.podman("stop", "--time=40", container)
        code = engine.podman("inspect", "--format={{.State.ExitCode}}", container).strip()
        print(f"stopped      exit code {code}")
        assert code == "0"
    finally:
        engine.podman("rm", "--force", container)


def is_ready(address: str) -> bool:
    """Return True if the server is ready to receive requests."""
    try:
        with urlopen(f"http://{address}/readyz", timeout=1) as answer:
            return answer.status == 200
    except OSError:  # it does not listen yet, or answers 503
        return False


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
