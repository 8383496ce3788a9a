"""Error messages for unsupported files: the format, by its first bytes, and what to do."""

import re
from typing import Final

_CONVERT: Final = "convert it"
_ARCHIVE: Final = "send its pictures one at a time"
_VIDEO: Final = "send one of its frames"
_TEXT: Final = "the download may have failed"
_SUPPORTED: Final = "only JPEG, PNG and WebP are supported"

# The offset of the magic bytes, the bytes, the name, and what to do.
_KINDS: Final[tuple[tuple[int, bytes, str, str], ...]] = (
    (0, b"GIF8", "a GIF", _CONVERT),
    (0, b"II*\0", "a TIFF or a camera's raw file", _CONVERT),
    (0, b"MM\0*", "a TIFF or a camera's raw file", _CONVERT),
    (0, b"II+\0", "a TIFF", _CONVERT),
    (0, b"MM\0+", "a TIFF", _CONVERT),
    (0, b"IIU\0", "a camera's raw file", _CONVERT),
    (0, b"IIRO", "a camera's raw file", _CONVERT),
    (0, b"FUJIFILM", "a camera's raw file", _CONVERT),
    (0, b"II\xbc", "a JPEG XR", _CONVERT),
    (0, b"BM", "a BMP", _CONVERT),
    (0, b"\xff\x0a", "a JPEG XL", _CONVERT),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL", _CONVERT),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000", _CONVERT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000", _CONVERT),
    (0, b"8BPS", "a Photoshop file", _CONVERT),
    (0, b"\0\0\1\0", "an icon (ICO)", _CONVERT),
    (0, b"icns", "an icon (ICNS)", _CONVERT),
    (0, b"v/1\1", "an OpenEXR", _CONVERT),
    (0, b"#?RADIANCE", "an HDR picture", _CONVERT),
    (0, b"qoif", "a QOI", _CONVERT),
    (0, b"DDS ", "a DDS texture", _CONVERT),
    (128, b"DICM", "a DICOM file", _CONVERT),
    (0, b"%!PS", "a PostScript file", _CONVERT),
    (0, b"\x93NUMPY", "a NumPy file", "send its pixels as a raw image"),
    (8, b"AVI ", "a video (AVI)", _VIDEO),
    (8, b"WAVE", "a sound (WAV)", "send a picture"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", _VIDEO),
    (0, b"\0\0\1\xba", "a video (MPEG)", _VIDEO),
    (0, b"\0\0\1\xb3", "a video (MPEG)", _VIDEO),
    (0, b"FLV\1", "a video (FLV)", _VIDEO),
    (0, b"OggS", "an Ogg file", _VIDEO),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a video (WMV)", _VIDEO),
    (0, b"PK\3\4", "a ZIP archive or an Office document", _ARCHIVE),
    (0, b"\x1f\x8b", "a gzip archive", _ARCHIVE),
    (0, b"7z\xbc\xaf", "a 7z archive", _ARCHIVE),
    (0, b"Rar!", "a RAR archive", _ARCHIVE),
    (257, b"ustar", "a tar archive", _ARCHIVE),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "fetch the file that it points to"),
)
# Files of the ISO base media format, by their brands.
_BRANDS: Final[tuple[tuple[str, str, str], ...]] = (
    ("avif|avis", "an AVIF", _CONVERT),
    ("hei[cmsx]|hev[cmsx]|mif1|msf1", "a HEIC", _CONVERT),
    ("crx ", "a camera's raw file", _CONVERT),
    ("....", "a video (MP4 or QuickTime)", _VIDEO),
)
# Text, after white space and a byte order mark.
_TEXTS: Final[tuple[tuple[str, str, str], ...]] = (
    ("%PDF-", "a PDF", _CONVERT),
    ("data:", "a data: URI", "send the decoded bytes of its base64"),
    ("[a-z][a-z0-9+.-]*://", "a URL", "fetch the picture and send its bytes"),
    ("/9j/|iVBORw|UklGR", "base64", "send the decoded bytes"),
    (r"(<\?xml|<!--|<!doctype svg).*<svg|<svg", "an SVG", _CONVERT),
    ("<!doctype html|<html|<head|<body|<script", "an HTML page", _TEXT),
    (r"<\?xml|<[a-z]", "XML", _TEXT),
    (r"[{\[]\s*([{\[\"\]}]|-?\d)", "JSON", "send the bytes of a picture"),
)
_LOOKED_AT_BYTES: Final = 1024


def describe(data: bytes) -> str:
    """Return the error message for a file of an unsupported format; data: not empty."""
    start = data[:_LOOKED_AT_BYTES]
    if start[4:8] == b"ftyp":
        size = int.from_bytes(start[:4])
        brands = [start[8:12], *(start[at : at + 4] for at in range(16, min(size, 64), 4))]
        text = b"".join(brands).decode("latin-1")
        for pattern, name, advice in _BRANDS:
            if re.match(f"(....)*({pattern})", text, re.DOTALL):
                return _sentence(name, advice)
    for at, magic, name, advice in _KINDS:
        if start.startswith(magic, at):
            return _sentence(name, advice)
    text = start.removeprefix(b"\xef\xbb\xbf").decode("latin-1").lstrip()
    for pattern, name, advice in _TEXTS:
        flags = re.DOTALL if name == "base64" else re.DOTALL | re.IGNORECASE
        if re.match(pattern, text, flags):
            return _sentence(name, advice)
    return f"the image starts with {data[:8].hex(' ')}; {_SUPPORTED}"


def _sentence(name: str, advice: str) -> str:
    return f"the image is {name}; {_SUPPORTED}: {advice}"
