"""The control groups that this process is in, as Linux shows them: none elsewhere."""

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
    """Yield a controller's file in the process's cgroup and in all those around it.

    version_1, version_2: the file's name in either version of cgroups. It need not exist.
    """
    try:
        groups = [line.split(":", 2) for line in membership.read_text("utf-8").splitlines()]
    except OSError:  # no Linux
        return
    for _, controllers, path in groups:
        if not controllers:
            mount, file = cgroups, version_2
        elif controller in controllers.split(","):
            mount, file = cgroups / controllers, version_1
        else:
            continue
        group = mount / path.strip("/")
        # A container may see the path of the host, where it has no folder; then the mount is it.
        for folder in (group, *group.parents):
            yield folder / file
            if folder == mount:
                break
