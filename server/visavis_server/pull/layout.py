"""Which paths at a source are versions of models: the server's own rules, before any fetch."""

import re
from typing import Final

from visavis_server.models.model_files import MODEL_SUFFIXES, version_of, why_no_version
from visavis_server.names import NAME_PATTERN, NAME_RULE
from visavis_server.plain_text import escaped
from visavis_server.pull.errors import PullFailed
from visavis_server.pull.source import FILES, Entry, Listing, Wanted

# Reasons are for people: more than these are not read.
_MOST_PASSED_OVER: Final = 100
_LONGEST_PATH: Final = 200
_IMPOSSIBLE_BYTES: Final = 1 << 63


class Collector:
    """Sorts what a source holds. Every segment of a path is checked before it is used.

    source: its name, for errors.
    """

    def __init__(self, source: str, wanted: Wanted, max_versions: int) -> None:
        self._source, self._wanted, self._max_versions = source, wanted, max_versions
        self._entries: dict[str, Entry] = {}
        self._models: set[str] = set()
        self._versions: set[str] = set()
        self._passed_over: dict[str, str] = {}

    def enters_model(self, name: str, *, is_folder: bool) -> bool:
        """Return True if something in the source's folder is a model that is wanted.

        Raises PullFailed if there are too many.
        """
        if name.startswith("."):
            return False
        if not is_folder:
            if name.lower().endswith(MODEL_SUFFIXES):
                self.pass_over(name, "model files are fetched from NAME/VERSION/model.onnx only")
            return False
        if not re.fullmatch(NAME_PATTERN, name):
            self.pass_over(name, f"{NAME_RULE}; rename it")
            return False
        if not self._wanted(name):
            return False
        self._models.add(name)
        self._require_few(len(self._models), "models")
        return True

    def enters_version(self, name: str, version: str, *, is_folder: bool) -> bool:
        """Return True if something in a model's folder is a version.

        Raises PullFailed if there are too many.
        """
        if version.startswith("."):
            return False
        if not is_folder:
            if version.lower().endswith(MODEL_SUFFIXES):
                why = f"it belongs into a folder of its version: {name}/1/model.onnx"
                self.pass_over(f"{name}/{version}", why)
            return False
        if version_of(version) is None:
            self.pass_over(f"{name}/{version}", why_no_version(version))
            return False
        self._versions.add(f"{name}/{version}")
        self._require_few(len(self._versions), "versions")
        return True

    def _require_few(self, count: int, things: str) -> None:
        """Raise PullFailed for more than max_versions: even folders without a version take time."""
        if count > self._max_versions:
            raise PullFailed(
                f"{self._source} holds more than {self._max_versions} {things}; nothing was "
                "fetched: raise --max-versions, or choose models with --model"
            )

    def takes(self, file: str) -> bool:
        """Return True if a file of a version's folder is fetched."""
        return file in FILES

    def add(self, entry: Entry) -> None:
        """Take a file; of two with the same path, the first."""
        if not 0 <= entry.size < _IMPOSSIBLE_BYTES:
            self.pass_over(entry.path, "the source states an impossible size")
        elif self._entries.setdefault(entry.path, entry) is not entry:
            self.pass_over(entry.path, "it is there twice; the first is fetched")

    def pass_over(self, path: str, why: str) -> None:
        """Note why a path is not fetched."""
        if len(self._passed_over) < _MOST_PASSED_OVER:
            self._passed_over[escaped(path, _LONGEST_PATH)] = why

    def listing(self) -> Listing:
        """Return what was collected."""
        models = {path.rpartition("/")[0] for path in self._entries if path.endswith(FILES[0])}
        for version in sorted(self._versions - models):
            if not any(path.startswith(f"{version}/") for path in self._passed_over):
                self.pass_over(version, f"it holds no {FILES[0]}")
        entries = [e for e in self._entries.values() if e.path.rpartition("/")[0] in models]
        return Listing(entries, self._passed_over)
