"""Chooses the kind of a source by its URL."""

from pathlib import Path

from visavis_server.pull.errors import InvalidSource
from visavis_server.pull.file_system_source import LIBRARIES, FileSystemSource
from visavis_server.pull.oci_source import OciSource
from visavis_server.pull.redaction import redacted
from visavis_server.pull.source import Source

_EXAMPLES = "s3://BUCKET/FOLDER, gs://, az://, hf://, oci://REGISTRY/REPOSITORY:TAG, https:// or a "


def open_source(url: str, out: Path) -> Source:
    """Return the source of a URL, or of a folder's path. Nothing is asked of it yet.

    out: the folder to pull into. Raises InvalidSource or LibraryMissing.
    """
    scheme, is_url, _ = url.partition("://")
    if not is_url:
        scheme, url = "file", f"file://{Path(url).absolute()}"
    if scheme == "oci":
        return OciSource(url)
    if scheme not in LIBRARIES:
        raise InvalidSource(f"{redacted(url)} is not a source of models; give {_EXAMPLES}folder")
    if scheme == "file":
        folder, into = Path(url.removeprefix("file://")).resolve(), out.resolve()
        if folder == into or folder in into.parents or into in folder.parents:
            raise InvalidSource(
                f"the source {folder} and --out {into} contain one another; choose another --out"
            )
    return FileSystemSource(url)
