"""A Go module proxy in a folder, from our module and Debian's sources of what it requires.

Go's own tool then installs the module as it would from the network: it unpacks zip files and
resolves versions. Debian's packages are sources in a GOPATH, without the versions that modules
have: each is served as the version that our `go.mod` requires.
"""

import json
import os
import re
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path

DEBIAN = Path("/usr/share/gocode/src")
MODULE, VERSION = "visavis.internal/visavis", "v0.1.0"


def make_proxy(folder: Path, client: Path) -> None:
    """Fill a folder; client: that of our module, which has been built."""
    requires = re.findall(r"^\t(\S+) (v\S+)", (client / "go.mod").read_text(), re.MULTILINE)
    sources = [
        path
        for path in sorted(client.rglob("*"))
        if path.is_file() and path.suffix in {".go", ".mod", ".md"} and "build" not in path.parts
    ]
    _publish(folder, MODULE, VERSION, (client / "go.mod").read_text(), client, sources)
    packages = _packages(client)
    for module, version in requires:
        root = DEBIAN / module
        mine = [name for name in packages if name == module or name.startswith(f"{module}/")]
        files = [
            file
            for name in mine
            for file in sorted((DEBIAN / name).glob("*.*"))
            if file.suffix in {".go", ".s"} and not file.name.endswith("_test.go")
        ]
        _publish(folder, module, version, f"module {module}\n\ngo 1.19\n", root, files)


def _packages(client: Path) -> list[str]:
    """Return the packages of others that our module imports, directly or not."""
    gopath = f"{client / 'build' / 'gopath'}:{DEBIAN.parent}"
    listed = subprocess.run(
        ["go", "list", "-deps", MODULE, f"{MODULE}/examples/scenario"],
        env={**os.environ, "GO111MODULE": "off", "GOPATH": gopath},
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split() if "." in name.partition("/")[0]]


def _publish(
    folder: Path, module: str, version: str, manifest: str, root: Path, files: Iterable[Path]
) -> None:
    place = folder / module / "@v"
    place.mkdir(parents=True)
    (place / "list").write_text(f"{version}\n")
    (place / f"{version}.info").write_text(json.dumps({"Version": version}))
    (place / f"{version}.mod").write_text(manifest)
    with zipfile.ZipFile(place / f"{version}.zip", "w") as archive:
        for file in files:
            archive.writestr(f"{module}@{version}/{file.relative_to(root)}", file.read_bytes())
