"""Where this machine finds packages, for builds in containers: Debian's, Python's."""

import re
import shutil
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

from .engine import output

_RELEASE = "bookworm"  # its Python is 3.11, the one that the tests run with
_SCRIPTS = Path("/usr/share/debootstrap/scripts")
# Its /lib is a link to /usr/lib.
_UNPACK = 'dpkg-deb --fsys-tarfile "$0" | tar -C "$1" --keep-directory-symlink -x'


def machine_of_this() -> str:
    """Return what Debian calls this machine: amd64, arm64."""
    return output("dpkg", "--print-architecture").strip()


def debian(folder: Path, name: str, machine: str, *packages: str, release: str = _RELEASE) -> Path:
    """Install a small Debian into a folder; machine: as Debian calls it."""
    tree = folder / name
    cache = folder / "packages"
    cache.mkdir(exist_ok=True)
    is_foreign = machine != machine_of_this()
    options = ["--variant=minbase", f"--arch={machine}", f"--cache-dir={cache}"]
    options += [f"--include={','.join(packages)}", *(["--foreign"] if is_foreign else [])]
    # In a namespace of its own: what is mounted in the folder goes with it.
    private = ("unshare", "--mount")
    script = _SCRIPTS / release
    output(
        *(*private, "debootstrap", *options, release, tree, _site()),
        script if script.exists() else _SCRIPTS / "sid",  # of a release that is newer than this one
    )
    if is_foreign:
        # Their scripts could run only on that machine; Python needs none of what they do.
        for package in (tree / "var/cache/apt/archives").glob("*.deb"):
            output("sh", "-c", _UNPACK, package, tree)
        shutil.rmtree(tree / "debootstrap")
        # In a container, debootstrap leaves a link, which none can be mounted on.
        if (tree / "proc").is_symlink():
            (tree / "proc").unlink()
            (tree / "proc").mkdir()
    for unneeded in ("var/lib/apt/lists", "var/cache/apt", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(tree / unneeded, ignore_errors=True)
    shutil.copy("/etc/resolv.conf", tree / "etc")
    return tree


def _site() -> str:
    """Return the address of this machine's Debian archive."""
    sites = output("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages")
    return next(site for site in sites.split() if site.rstrip("/").endswith("/debian"))


def pip_configuration(file: Path) -> Iterator[Path]:
    """Write this machine's settings of pip into a file, and yield the folders that they name."""
    settings = dict(
        re.findall(
            r"^[\w:]+\.([\w-]+)='(.*)'$",
            output(sys.executable, "-m", "pip", "config", "list"),
            re.MULTILINE,
        )
    )
    configuration = RawConfigParser()
    configuration["global"] = settings
    with file.open("w", encoding="utf-8") as out:
        configuration.write(out)
    paths = {
        Path(word.removeprefix("file://")) for value in settings.values() for word in value.split()
    }
    # An index links to files beside it: /opt/index for /opt/index/simple.
    yield from {Path(*path.parts[:3]) for path in paths if path.is_absolute() and path.exists()}
