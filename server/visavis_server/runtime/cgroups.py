"""The control groups of this process, on Linux; other systems have none."""

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def files(
    controller: str,
    version_1: str,
    version_2: str,
    cgroups: Path = CGROUPS,
    membership: Path = MEMBERSHIP,
) -> Iterator[Path]:
    """Yield a controller's file in the process's cgroup and in each of its parents.

    version_1, version_2: the file's name in either version of cgroups. The file may not exist.
    """
    try:
        groups = [line.split(":", 2) for line in membership.read_text("utf-8").splitlines()]
    except OSError:  # not Linux
        return
    for _, controllers, path in groups:
        if not controllers:
            mount, file = cgroups, version_2
        elif controller in controllers.split(","):
            mount, file = cgroups / controllers, version_1
        else:
            continue
        group = mount / path.strip("/")
        # A container may see the host's path, which does not exist in it: the mount is its group.
        for folder in (group, *group.parents):
            yield folder / file
            if folder == mount:
                break
