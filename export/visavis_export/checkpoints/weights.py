"""Finds pretrained weights: in a given file or folder, in the cache, or at their publisher."""

import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock
from rich.progress import Progress, TaskID

from visavis_export.checkpoints.archive import check_torch_file, require_usable
from visavis_export.checkpoints.safetensors_file import is_safetensors
from visavis_export.errors import WeightsError

SUFFIXES = (".pth", ".pt", ".safetensors")
TRIES = 4
FIRST_PAUSE_S = 1.0
TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 20

_ADVICE = (
    "Give a file or a folder with --weights or VISAVIS_WEIGHTS, "
    "or export random weights with --weights random, for tests only."
)
_YOLOV5 = "https://github.com/ultralytics/yolov5/releases/download/v7.0"
# The release that ultralytics 8.4 downloads from (utils/downloads.py).
_YOLOV5U = "https://github.com/ultralytics/assets/releases/download/v8.4.0"

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Retried in addition to 5xx: request timeout, range not satisfiable, too many requests.
_RETRIED = (408, 416, 429)


@dataclass(frozen=True)
class Release:
    """A published file. sha256_prefix: hexadecimal; None if the publisher gives no hash."""

    filename: str
    url: str
    sha256_prefix: str | None


@dataclass(frozen=True)
class Weights:
    """A file of weights. source: its URL or bare file name. sha256: 64 hexadecimal digits."""

    path: Path
    source: str
    sha256: str


def yolov5_release(name: str) -> Release:
    """Return Ultralytics' release of a model: `yolov5n`, `yolov5n6`, `yolov5nu`, `yolov5n-cls`.

    Raises WeightsError for any other name. Ultralytics publishes no hashes.
    """
    if not re.fullmatch(r"yolov5[nsmlx](6?u?|-cls)", name):
        raise WeightsError(f"Ultralytics does not publish {name!r}. {_ADVICE}")
    folder = _YOLOV5U if name.endswith("u") else _YOLOV5
    return Release(f"{name}.pt", f"{folder}/{name}.pt", None)


def cache_folder(environ: Mapping[str, str], platform: str = sys.platform) -> Path | None:
    """Return the folder that caches downloads; None if the user has no home folder.

    platform: spelt as in `sys.platform`.
    """
    # The XDG specification says to ignore relative paths.
    if Path(xdg := environ.get("XDG_CACHE_HOME", "")).is_absolute():
        base = Path(xdg)
    elif platform == "win32" and "LOCALAPPDATA" in environ:
        base = Path(environ["LOCALAPPDATA"])
    else:
        try:
            home = Path.home()
        except RuntimeError:  # HOME is not set and the system has no entry for the user
            return None
        base = home / "Library" / "Caches" if platform == "darwin" else home / ".cache"
    return base / "visavis" / "weights"


def find(
    name: str,
    release: Release | None,
    given: Path | None,
    cache: Path | None,
    progress: Progress,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Weights:
    """Return the weights of model `name`: given, cached or downloaded, in this order.

    given: a file to use, or a folder to search for the name with one of SUFFIXES. cache: see
    `cache_folder`. sleep: waits for so many seconds between attempts to download. Raises
    WeightsError if no weights are found.
    """
    looked = ""
    if given is not None:
        if path := _look_up(name, given):
            if not is_safetensors(path):
                check_torch_file(path)  # before all of it is read for its digest
            return Weights(path, path.name, _sha256_as_named(path))
        looked = f" The folder {given} holds no {' or '.join(name + one for one in SUFFIXES)}."
    if release is None:
        raise WeightsError(f"no published weights are known for {name!r}.{looked} {_ADVICE}")
    if cache is None:
        raise WeightsError(
            f"{release.url} can't be cached: this user has no home folder.{looked} Set "
            f"XDG_CACHE_HOME to a writable folder. {_ADVICE}"
        )
    path = cache / release.filename
    try:
        if not (sha256 := _cached(path, release)):
            sha256 = _fetch(release, path, progress, sleep)
    except WeightsError as error:
        raise WeightsError(f"can't download {release.url}: {error}.{looked} {_ADVICE}") from error
    except OSError as error:
        raise WeightsError(
            f"can't write {release.filename} to the cache folder {cache}: {error.strerror}. "
            "Set XDG_CACHE_HOME to a writable folder."
        ) from error
    return Weights(path, release.url, sha256)


def _look_up(name: str, given: Path) -> Path | None:
    try:
        if not given.is_dir():
            require_usable(given)
            given.open("rb").close()
            return given
        # List the names: `is_file` ignores case on some file systems.
        present = {entry.name for entry in given.iterdir() if entry.is_file()}
        found = next((given / f"{name}{s}" for s in SUFFIXES if f"{name}{s}" in present), None)
        if found is not None:
            require_usable(found)
    except OSError as error:
        raise WeightsError(f"can't read the given weights {given}: {error.strerror}") from error
    return found


def _cached(path: Path, release: Release) -> str | None:
    try:
        return _verify(path, release) if path.is_file() else None
    except WeightsError:
        return None


def _verify(path: Path, release: Release) -> str:
    check_torch_file(path)
    sha256, prefix = _sha256(path), release.sha256_prefix or ""
    if not sha256.startswith(prefix):
        raise WeightsError(f"the SHA-256 is {sha256}; it should begin with {prefix}")
    return sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_as_named(path: Path) -> str:
    """Return a file's SHA-256; raises WeightsError if it contradicts the file's name.

    torchvision's names end in its first eight digits: resnet50-0676ba61.pth.
    """
    # Browsers number a second download: "resnet50-0676ba61 (1).pth".
    sha256, named = _sha256(path), re.search(r"-([0-9a-f]{8})(?: ?\(\d+\))?\.pth$", path.name)
    if named and not sha256.startswith(named[1]):
        raise WeightsError(
            f"{path.name} is damaged: its SHA-256 begins with {sha256[:8]}, but its name says "
            f"{named[1]}; download it again, or rename it if you changed it"
        )
    return sha256


class _Interrupted(WeightsError):
    """A download that may succeed if it is retried."""


def _fetch(release: Release, path: Path, progress: Progress, sleep: Callable[[float], None]) -> str:
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if sha256 := _cached(path, release):
            return sha256  # Another process has downloaded it meanwhile.
        _require_https(release.url)
        task = progress.add_task(release.filename, total=None)
        for attempt in range(TRIES):
            try:
                _advance(release.url, part, progress, task)
                break
            except _Interrupted:
                if attempt == TRIES - 1:
                    raise
                sleep(FIRST_PAUSE_S * 2**attempt)
        try:
            sha256 = _verify(part, release)
        except WeightsError:
            part.unlink()
            raise
        part.replace(path)
        return sha256


def _advance(url: str, part: Path, progress: Progress, task: TaskID) -> None:
    """Send one request: for the rest of the file if `part` can be resumed, else for all of it."""
    # Without a validator, a resumed file could be half of one version and half of another.
    validator = part.with_name(f"{part.name}.validator")
    unchanged = validator.read_text() if validator.exists() else ""
    have = part.stat().st_size if unchanged and part.exists() else 0
    headers = {"User-Agent": "visavis"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": unchanged}
    opener = build_opener(_HttpsRedirects)
    try:
        response: HTTPResponse = opener.open(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            part.unlink(missing_ok=True)
        kind = _Interrupted if error.code in _RETRIED or error.code >= 500 else WeightsError
        raise kind(f"the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise _Interrupted(f"no connection ({reason})") from error
    with response:
        if response.status != 206:
            have = 0
            part.unlink(missing_ok=True)
            validator.write_text(_validator(response.headers))
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise _Interrupted("the server answered with a different range than requested")
        size = None if response.length is None else have + response.length
        progress.update(task, total=size, completed=have)
        with part.open("ab") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                progress.advance(task, len(chunk))
    if size is not None and part.stat().st_size != size:
        raise _Interrupted(f"received only {part.stat().st_size} of {size} bytes")
    validator.unlink(missing_ok=True)


def _validator(headers: HTTPMessage) -> str:
    """Return a value for `If-Range` (RFC 9110, 13.1.5): a strong ETag, else a date, else ""."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK_BYTES):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _Interrupted(f"the connection broke ({error})") from error


def _require_https(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise WeightsError(
        f"weights are downloaded over https only, not from {parts.scheme}://{parts.hostname}"
    )


class _HttpsRedirects(HTTPRedirectHandler):
    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> Request | None:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
