"""One round of a pull: lists the source, fetches what changed, checks it, makes it visible."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from visavis_server.errors import listed
from visavis_server.pull.checking import Signatures, check_digest
from visavis_server.pull.errors import PullFailed, SourceUnreachable, VersionRefused
from visavis_server.pull.fetching import Advance, fetch, part_of
from visavis_server.pull.outcomes import Outcome, Round, State
from visavis_server.pull.placing import Place
from visavis_server.pull.record import (
    Local,
    Record,
    is_intact,
    recorded,
    sha256,
    write_record,
)
from visavis_server.pull.source import FILES, Entry, Listing, Source
from visavis_server.pull.wishes import Wishes

# Of documents and signatures.
_MAX_SMALL_BYTES: Final = 16 << 20
# After so many versions that could not be read, the source is taken to be out of reach.
_MOST_UNREACHABLE: Final = 3

Begin = Callable[[str, int], Advance]
"""Called with a version and the bytes to fetch, before they are fetched."""


def _quiet(version: str, size: int) -> Advance:
    return lambda count: None


class Puller:
    """Keeps a folder in step with a source, round by round.

    Remembers refused versions until they change, so that a watch does not fetch them every time.
    """

    def __init__(
        self,
        source: Source,
        place: Place,
        wishes: Wishes,
        signatures: Signatures | None = None,
        begin: Begin = _quiet,
    ) -> None:
        self._source, self._place, self._wishes = source, place, wishes
        self._signatures, self._begin = signatures, begin
        self._refused: dict[str, tuple[object, str]] = {}

    def round(self) -> Round:
        """Do one round. Raises PullError if nothing could be done."""
        with self._place.locked():
            listing = self._source.listing(self._wishes.wants, self._wishes.limits.versions)
            versions = _by_version(listing.entries)
            self._require_models(versions, listing)
            self._require_total(listing.entries)
            self._place.keep_parts({self._part(entry) for entry in listing.entries})
            outcomes = list(self._bring_all(versions))
            if self._wishes.delete:
                passed_over = {"/".join(p.split("/")[:2]) for p in listing.passed_over}
                outcomes += self._remove_all_but(versions.keys() | passed_over)
            return Round(outcomes, listing.passed_over)

    def _require_models(self, versions: Mapping[str, object], listing: Listing) -> None:
        """Raise PullFailed if the source lacks what was asked for: then nothing is removed."""
        found = {version.partition("/")[0] for version in versions}
        if missing := self._wishes.models - found:
            raise PullFailed(f"{self._source.name} holds no model {listed(missing)}")
        if not versions:
            first = next((f" ({p}: {why})" for p, why in listing.passed_over.items()), "")
            raise PullFailed(f"{self._source.name} holds no NAME/VERSION/model.onnx{first}")

    def _require_total(self, entries: Iterable[Entry]) -> None:
        total, limit = sum(entry.size for entry in entries), self._wishes.limits.total_bytes
        if total > limit:
            raise PullFailed(
                f"{self._source.name} holds {total} bytes of models; the limit is {limit}: raise "
                "--max-total-bytes, or choose models with --model"
            )

    def _bring_all(self, versions: Mapping[str, list[Entry]]) -> Iterator[Outcome]:
        """Bring every version up to date; yields what became of each."""
        unreachable = 0
        for version, entries in versions.items():
            local = self._place.local(version)
            if self._is_current(local, entries):
                yield Outcome(version, "unchanged")
                continue
            tried = tuple(entries), _stamp(local)
            before, why = self._refused.get(version, (None, ""))
            if before == tried:
                yield Outcome(version, "refused", why)
                continue
            try:
                yield self._bring(version, entries, local)
                self._refused.pop(version, None)
            except SourceUnreachable as error:
                unreachable += 1
                if unreachable == _MOST_UNREACHABLE:
                    raise
                yield Outcome(version, "failed", str(error))
            except PullFailed as error:
                why = str(error) + ("; the version that is here stays" if local.exists else "")
                self._refused[version] = tried, why
                yield Outcome(version, "refused", why)

    def _is_current(self, local: Local, entries: Iterable[Entry]) -> bool:
        """Return True if a version here is what the source has, checked with the same key."""
        record = local.record
        return (
            record is not None
            and record.source == self._source.name
            and (self._signatures is None or record.key == self._signatures.fingerprint)
            and {e.file: e.tag for e in entries} == {n: f.tag for n, f in record.files.items()}
            and all(is_intact(local.folder / name, f) for name, f in record.files.items())
        )

    def _bring(self, version: str, entries: list[Entry], local: Local) -> Outcome:
        """Fetch a version, check it, and make it visible."""
        self._place.require_real(version)
        self._require_sizes(version, entries)
        with self._place.staging_folder() as staged:
            note, count = self._fetch_and_check(version, entries, local, staged)
            ours = local.record is not None and local.record.source == self._source.name
            same = local.exists and _same_files(staged, local.folder)
            if local.exists and not ours and not same:
                self._drop_parts(entries)
                raise VersionRefused(
                    f"{version}: {local.folder} holds another model, which does not come from "
                    f"{self._source.name}; remove it, or choose another folder with --out"
                )
            files = {entry.file: recorded(staged / entry.file, entry.tag) for entry in entries}
            key = self._signatures.fingerprint if self._signatures else ""
            write_record(staged, Record(source=self._source.name, files=files, key=key))
            self._place.place(staged, version)
            self._drop_parts(entries)
        state: State = "fetched" if not local.exists else "adopted" if same else "replaced"
        return Outcome(version, state, note, count)

    def _fetch_and_check(
        self, version: str, entries: list[Entry], local: Local, staged: Path
    ) -> tuple[str, int]:
        """Fill a staged folder; returns what the check proves, and how much was not here."""
        resumed = any(self._part(entry).exists() for entry in entries)
        while True:
            count = self._gather(version, entries, local, staged)
            try:
                return self._check(staged, version), count
            except VersionRefused:
                self._drop_parts(entries)
                if not resumed:
                    raise
                resumed = False  # the part of an earlier run may have been damaged
                for file in staged.iterdir():
                    file.unlink()

    def _check(self, staged: Path, version: str) -> str:
        note = check_digest(staged, version, required=self._wishes.require_digest)
        if self._signatures is None:
            return note
        self._signatures.check(staged, version)
        return f"{note}, signature valid"

    def _require_sizes(self, version: str, entries: Iterable[Entry]) -> None:
        """Raise PullError if a file is too large, or the disk is too small."""
        needed = 0
        for entry in entries:
            is_model = entry.file == FILES[0]
            limit = self._wishes.limits.file_bytes if is_model else _MAX_SMALL_BYTES
            if entry.size > limit:
                hint = "; raise --max-file-bytes" if is_model else ""
                raise VersionRefused(
                    f"{version}: {entry.file} has {entry.size} bytes; the limit is {limit}{hint}"
                )
            needed += entry.size
        if needed > (free := shutil.disk_usage(self._place.parts).free):
            raise SourceUnreachable(f"{version}: it needs {needed} bytes; the disk has {free} free")

    def _gather(self, version: str, entries: list[Entry], local: Local, staged: Path) -> int:
        """Put the files of a version into a staged folder; returns the bytes that were not here."""
        new = [entry for entry in entries if not self._taken_from_here(entry, local, staged)]
        size = sum(entry.size for entry in new)
        advance = self._begin(version, size)
        for entry in new:
            # The part stays until the version is placed: a kill in between costs nothing.
            _link(fetch(self._source, entry, self._place.parts, advance), staged / entry.file)
        return size

    def _taken_from_here(self, entry: Entry, local: Local, staged: Path) -> bool:
        """Link an unchanged file of an earlier fetch; returns False if it must be fetched."""
        record, path = local.record, local.folder / entry.file
        if record is None or record.source != self._source.name:
            return False
        known = record.files.get(entry.file)
        if known is None or known.tag != entry.tag or not is_intact(path, known):
            return False
        _link(path, staged / entry.file)
        return True

    def _part(self, entry: Entry) -> Path:
        return part_of(self._source, entry, self._place.parts)

    def _drop_parts(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._part(entry).unlink(missing_ok=True)

    def _remove_all_but(self, at_source: Iterable[str]) -> Iterator[Outcome]:
        """Remove the versions that the source once had, and yield them."""
        kept = set(at_source)
        for version, record in list(self._place.versions()):
            is_wanted = self._wishes.wants(version.partition("/")[0])
            if record.source == self._source.name and version not in kept and is_wanted:
                self._place.remove(version)
                yield Outcome(version, "removed")


def _by_version(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    versions: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.path):
        versions.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    return versions


def _same_files(one: Path, other: Path) -> bool:
    """Return True if two folders hold the same files of a version."""

    def facts(path: Path) -> str:
        return sha256(path) if path.is_file() else ""

    return all(facts(one / name) == facts(other / name) for name in FILES)


def _stamp(local: Local) -> object:
    """Return a value that changes when a version here does."""
    with suppress(OSError):
        status = (local.folder / FILES[0]).stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return local.exists


def _link(path: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system can't."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)
