"""Compiles what is written in C while the product is installed, or its wheel is built.

The server does the same without it, slower: where there is no compiler, nothing fails.
"""

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Products are rounded before they are summed, as Pillow's are.
_FLAGS = ("-O3", "-ffp-contract=off", "-fPIC", "-shared")


class Compile(BuildHookInterface):
    """Adds a library to the wheel for each C file in the server."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile beside the sources: installed for development, they run from there."""
        root = Path(self.root)
        for source in (root / "server" / "visavis_server").rglob("*.c"):
            library, fresh = source.with_suffix(".so"), source.with_suffix(".new")
            command = [*shlex.split(os.environ.get("CC", "cc")), *_FLAGS, source, "-o", fresh]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                why = getattr(error, "stderr", None) or error
                self.app.display_warning(f"{source.name} is not compiled: {why}")
                library.unlink(missing_ok=True)
                continue
            fresh.replace(library)
            build_data["artifacts"].append(str(library.relative_to(root)))
            # Of this kind of machine, and of any Python.
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
