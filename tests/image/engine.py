"""buildah and podman as root, with images of their own, where no daemon runs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Engine:
    """Both programs, whose images and containers lie in a folder."""

    folder: Path

    def buildah(self, *arguments: str | Path) -> str:
        """Run buildah, and return what it prints."""
        return output("buildah", *self._storage(), *arguments)

    def podman(self, *arguments: str | Path) -> str:
        """Run podman, and return what it prints."""
        return output(*self.podman_command(), *arguments)

    def started(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run a container until it ends, and return its output, which may be an error's."""
        command = [*self.podman_command(), "run", "--rm", *self.confined(), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    @staticmethod
    def confined() -> tuple[str, ...]:
        """Return the options of a container that can do as little as Kubernetes allows."""
        return (
            # podman would make /tmp writable.
            *("--read-only", "--read-only-tmpfs=false"),
            *("--cap-drop=all", "--security-opt=no-new-privileges"),
            *("--network=host", "--ulimit=host"),
        )

    def import_tree(self, tree: Path, machine: str) -> str:
        """Make an image of a folder, and return its id."""
        archive = tree.with_suffix(".tar")
        output("tar", "-C", tree, "-cf", archive, ".")
        container = self.buildah("from", "--arch", machine, "scratch").strip()
        self.buildah("add", "--quiet", container, archive, "/")
        self.buildah("config", "--arch", machine, container)
        archive.unlink()
        return self.buildah("commit", "--quiet", "--rm", container).strip()

    def compressed_bytes(self, name: str) -> int:
        """Return the size of an image as a registry stores it."""
        target = self.folder / "oci"
        self.buildah("push", "--quiet", name, f"oci:{target}:image")
        (entry,) = _json(target / "index.json")["manifests"]
        manifest = _json(target / "blobs" / Path(*entry["digest"].split(":")))
        return sum(layer["size"] for layer in manifest["layers"])

    def _storage(self) -> Iterator[str]:
        yield from ("--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run"))
        yield from ("--storage-driver", "overlay")

    def podman_command(self) -> list[str]:
        """Return what a command of podman begins with."""
        # Limits of its own would need a right that sandboxes lack.
        configuration = self.folder / "containers.conf"
        configuration.write_text("[containers]\ndefault_ulimits = []\n", "utf-8")
        # crun refuses machines that have both versions of cgroups.
        podman = ("env", f"CONTAINERS_CONF={configuration}", "podman")
        return [*podman, *self._storage(), "--cgroup-manager=cgroupfs", "--runtime=runc"]


def _json(path: Path) -> dict[str, list[dict[str, str]]]:
    return json.loads(path.read_text("utf-8"))


def output(*command: str | Path) -> str:
    """Run a command, and return what it prints; ends the program if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout
