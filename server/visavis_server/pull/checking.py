"""Checks a fetched version before it becomes visible: its digest, and its signature."""

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis_server.card import METADATA_KEY, parse_document
from visavis_server.errors import ModelFileError
from visavis_server.models.onnx_file import read_onnx_file
from visavis_server.plain_text import escaped
from visavis_server.pull.errors import InvalidSource, LibraryMissing, VersionRefused

_MAX_KEY_BYTES = 64 << 10
_MAX_DOCUMENT_BYTES = 16 << 20


def check_digest(folder: Path, version: str, *, required: bool) -> str:
    """Return what the digest of a version's model proves, in words.

    required: refuse files without one, as other exporters write them. Raises VersionRefused.
    """
    path = folder / "model.onnx"
    try:
        contents = read_onnx_file(path)
        text: str | bytes | None = contents.metadata.get(METADATA_KEY)
        sidecar = folder / "model.json"
        if text is None and sidecar.exists():
            if sidecar.stat().st_size > _MAX_DOCUMENT_BYTES:
                raise ModelFileError(f"{sidecar}: larger than {_MAX_DOCUMENT_BYTES} bytes")
            text = sidecar.read_bytes()
        document = parse_document(text, str(path)) if text is not None else None
    except ModelFileError as error:
        # The folder is a temporary one.
        why = str(error).replace(f"{folder}/", "")
        raise VersionRefused(f"{version}: {why}") from None
    if document is None or document.digest is None:
        if required:
            raise VersionRefused(
                f"{version}: its file states no digest, and --require-digest is set"
            )
        return "no digest in the file"
    if document.digest != contents.digest:
        raise VersionRefused(
            f"{version}: the digest of its graph and weights is {contents.digest[:12]}…, but its "
            f"card says {document.digest[:12]}…; the file was changed or damaged: put it there anew"
        )
    return "digest matches"


def name_in(folder: Path) -> str | None:
    """Return the name that a checked model gives itself; None if it has no document."""
    text = read_onnx_file(folder / "model.onnx").metadata.get(METADATA_KEY)
    return parse_document(text, "model.onnx").name if text else None


@dataclass(frozen=True, slots=True)
class Signatures:
    """Verifies signatures of the library model-signing with an elliptic curve's public key.

    fingerprint: of the key.
    """

    key: Path
    fingerprint: str
    _verifying: Any

    @classmethod
    def of(cls, key: Path) -> "Signatures":
        """Return the check with a public key. Raises InvalidSource or LibraryMissing."""
        try:
            contents = key.read_bytes()[:_MAX_KEY_BYTES]
        except OSError as error:
            raise InvalidSource(f"--verify-key {key} can't be read: {error.strerror}") from None
        try:
            verifying = importlib.import_module("model_signing.verifying")
        except ImportError as error:
            raise LibraryMissing(
                f"--verify-key needs the module {error.name}, which is not installed; install it: "
                "pip install 'visavis-server[pull-signed]'"
            ) from None
        signatures = cls(key, hashlib.sha256(contents).hexdigest(), verifying)
        try:
            signatures._config()
        except Exception as error:  # noqa: BLE001  of cryptography
            raise InvalidSource(
                f"--verify-key {key} is not the public key of an elliptic curve in PEM: "
                f"{escaped(str(error), 200)}"
            ) from None
        return signatures

    def check(self, folder: Path, version: str) -> None:
        """Check all files of a version. Raises VersionRefused."""
        signature = folder / "model.sig"
        if not signature.exists():
            raise VersionRefused(f"{version}: it has no model.sig, and --verify-key is set")
        # Outside of what it covers: not every signer has told the library to ignore it.
        aside = signature.rename(folder.with_suffix(".sig"))
        try:
            self._config().verify(folder, aside)
        except Exception as error:  # noqa: BLE001  of a stranger's file, in several libraries
            raise VersionRefused(
                f"{version}: its signature is not valid for {self.key.name}: "
                f"{escaped(str(error) or type(error).__name__, 200)}"
            ) from None
        finally:
            aside.rename(signature)
        # The signature covers the files, not the folder that they lie in.
        name, wanted = name_in(folder), version.partition("/")[0]
        if name is not None and name != wanted:
            raise VersionRefused(
                f"{version}: it is the signed model {escaped(name, 128)}; it belongs into that "
                "model's folder"
            )

    def _config(self) -> Any:
        return self._verifying.Config().use_elliptic_key_verifier(public_key=self.key)
