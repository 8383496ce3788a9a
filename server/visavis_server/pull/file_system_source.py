"""Sources that fsspec reads: S3, Google Cloud Storage, Azure, Hugging Face, HTTP and folders."""

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from visavis_server.pull.errors import InvalidSource, PullError, PullFailed, SourceUnreachable
from visavis_server.pull.layout import Collector
from visavis_server.pull.redaction import redacted
from visavis_server.pull.source import BLOCK_BYTES, Entry, Listing, Restart, Wanted
from visavis_server.pull.translation import (
    first_line,
    is_denied,
    is_transient,
    missing,
    status_of,
)

# The module that each scheme needs beside fsspec.
LIBRARIES: Final = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
    "file": "fsspec",
}
# What changes when the contents do, in the words of each library: the first that is there counts.
_TAGS: Final = (
    *("ETag", "md5Hash", "blob_id", "etag", "generation", "content_md5"),
    *("LastModified", "last_modified", "Last-Modified", "mtime"),
)
# Of a page, or of a block of a file.
_MAX_RESPONSE_BYTES: Final = 4 * BLOCK_BYTES
# In a page: those of its attributes, and URLs in its text.
_LINK: Final = re.compile(rb"""(?i)\bhref=["']([^"'<>\s]{1,1024})|(https?://[^"'<>\s]{1,1024})""")
_MAX_LINKS: Final = 100_000
_CREDENTIALS: Final = {
    "s3fs": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role",
    "gcsfs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
    "adlfs": "AZURE_STORAGE_ACCOUNT_NAME and what azure-identity finds, or "
    "AZURE_STORAGE_CONNECTION_STRING",
    "huggingface_hub": "HF_TOKEN, or `hf auth login`",
}


class FileSystemSource:
    """A folder of a file system that fsspec knows.

    Raises InvalidSource, or LibraryMissing with the extra to install.
    """

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        if not rest.strip("/") and scheme != "file":
            raise InvalidSource(
                f"{redacted(url)}: the place after {scheme}:// is missing; give "
                f"{scheme}://PLACE/FOLDER"
            )
        if scheme == "file":
            url = f"file://{Path(rest).absolute()}"
        self.name = redacted(url).rstrip("/")
        self._scheme, self._library = scheme, LIBRARIES[scheme]
        self._streams = False
        for module in ("fsspec", self._library):
            try:
                importlib.import_module(module)
            except ImportError:
                raise missing(scheme, module) from None
        with self._translated(self.name):
            self._fs, root = _file_system(url)
        self._root: str = root.rstrip("/")
        if scheme == "file" and not Path(self._root).is_dir():
            raise PullFailed(
                f"{self.name} is not a folder; give one that holds NAME/VERSION/model.onnx, or the "
                "URL of a source, such as s3://BUCKET/FOLDER"
            )

    def listing(self, wanted: Wanted, max_versions: int) -> Listing:
        """Return its files."""
        found = Collector(self.name, wanted, max_versions)
        with self._translated(self.name):
            self._fs.invalidate_cache()
            for name, info in self._children(""):
                if not found.enters_model(name, is_folder=_is_folder(info)):
                    continue
                for version, info in self._children(name):
                    if found.enters_version(name, version, is_folder=_is_folder(info)):
                        self._add_files(f"{name}/{version}", found)
        return found.listing()

    def read(self, entry: Entry, offset: int) -> Iterator[bytes]:
        """Yield the contents of a file from an offset on."""
        with self._translated(entry.path):
            if self._streams and offset:
                raise Restart
            # Without a cache: every read is one request for just these bytes.
            size = {"block_size": 0 if self._streams else BLOCK_BYTES}
            with self._fs.open(entry.key, "rb", cache_type="none", **size) as file:
                if offset:
                    file.seek(offset)
                while block := file.read(BLOCK_BYTES):
                    yield block

    def tag(self, entry: Entry) -> str:
        """Return the tag that a file has now."""
        with self._translated(entry.path):
            self._fs.invalidate_cache()
            return _tag(self._fs.info(entry.key))

    def _children(self, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield name and facts of what is in a folder below the root; links are passed over."""
        path = f"{self._root}/{folder}".rstrip("/")
        seen = set()
        for info in self._fs.ls(f"{path}/" if self._library == "aiohttp" else path, detail=True):
            above, _, name = str(info["name"]).rstrip("/").rpartition("/")
            # The folder itself, where a store has an object for it, and links to elsewhere.
            if name and above.strip("/") == path.strip("/") and name not in seen:
                seen.add(name)
                yield name, info

    def _add_files(self, version: str, found: Collector) -> None:
        for name, info in self._children(version):
            path = f"{version}/{name}"
            if not found.takes(name):
                continue
            if info.get("islink") or info.get("type") not in ("file", None):
                found.pass_over(path, "it is not a regular file; links are not followed")
                continue
            key = f"{self._root}/{path}"
            facts = info if info.get("size") is not None else self._fs.info(key)
            if facts.get("size") is None:
                found.pass_over(path, "the server does not say how large it is")
                continue
            found.add(Entry(path, int(facts["size"]), _tag(facts), key, _sha256(facts)))

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn the errors of libraries into ours; what: what was being read."""
        try:
            yield
        except (PullError, Restart):
            raise
        except ValueError as error:
            # fsspec notices at the second block that a server ignores `Range`.
            if self._library != "aiohttp" or self._streams or "range" not in str(error):
                raise self._error(what, error) from None
            self._streams = True
            raise Restart from None
        except Exception as error:  # noqa: BLE001  those of six libraries have no base in common
            raise self._error(what, error) from None

    def _error(self, what: str, error: Exception) -> PullError:
        text = redacted(f"{what}: {first_line(error)}")
        status = status_of(error)
        if isinstance(error, ImportError):
            return missing(self._scheme, error.name or self._library)
        if isinstance(error, FileNotFoundError) or status == 404:
            return PullFailed(f"{text}; check that it exists, and that it may be listed")
        if is_denied(error):
            hint = _CREDENTIALS.get(self._library)
            return PullFailed(f"access denied: {text}" + (f"; give {hint}" if hint else ""))
        if is_transient(error):
            return SourceUnreachable(f"no usable answer: {text}")
        return PullFailed(f"{text} ({type(error).__name__})")


def _file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it."""
    from fsspec.core import url_to_fs

    own = {"get_client": _web_client} if url.startswith(("http://", "https://")) else {}
    # Listings are read anew in every round.
    fs, path = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **own)
    return fs, str(path)


async def _web_client(**options: Any) -> Any:
    """Return aiohttp's client, with limits on the bytes of a response and the time of a page.

    fsspec reads whole pages, and whole answers to a range, whatever the server sends.
    """
    import aiohttp

    class Limited(aiohttp.ClientResponse):  # type: ignore[misc, unused-ignore]  # as fsspec's
        async def read(self) -> bytes:
            if self._body is None:
                pieces, size = [], 0
                async for piece in self.content.iter_any():
                    size += len(piece)
                    if size > _MAX_RESPONSE_BYTES:
                        self.close()
                        raise PullFailed(
                            f"{redacted(str(self.url))}: the server sends more than "
                            f"{_MAX_RESPONSE_BYTES} bytes as a page, or as a part of a file"
                        )
                    pieces.append(piece)
                self._body = b"".join(pieces)
            return self._body

        async def text(self, *args: Any, **options: Any) -> str:
            """Return a page with nothing but its links.

            fsspec's pattern, and some character sets, take a time that grows with the square of
            a page's length, in which Python does nothing else.
            """
            links: list[bytes] = []
            for link in _LINK.finditer(await self.read()):
                if len(links) == _MAX_LINKS:
                    raise PullFailed(
                        f"{redacted(str(self.url))}: the page has more than {_MAX_LINKS} links"
                    )
                links.append(link[1] or link[2])
            return b"\n".join(b'<a href="%b">' % link for link in links).decode("utf-8", "ignore")

    return aiohttp.ClientSession(response_class=Limited, **options)


def _is_folder(info: Mapping[str, Any]) -> bool:
    return info.get("type") == "directory" and not info.get("islink")


def _tag(info: Mapping[str, Any]) -> str:
    """Return what changes when a file's contents do."""
    found = next((f"{key}={info[key]}" for key in _TAGS if info.get(key)), "")
    inode = f" ino={info['ino']}" if "ino" in info else ""
    return f"{found}{inode} size={info.get('size')}".strip()


def _sha256(info: Mapping[str, Any]) -> str:
    """Return the SHA-256 that Hugging Face states of large files; empty for others."""
    lfs = info.get("lfs")
    text = str(lfs.get("sha256") or lfs.get("oid") or "") if isinstance(lfs, Mapping) else ""
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else ""
