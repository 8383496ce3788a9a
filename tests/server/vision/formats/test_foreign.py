"""Files of unsupported formats are refused by the name of the format."""

import io
import struct
import tarfile
import zipfile
from base64 import b64encode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis_server.vision.formats.foreign import describe

from ...pictures import encoded, noise, plain, refusal


def media(*brands: str) -> bytes:
    """Return the start of a file of ISO's base media format."""
    kinds = "".join((brands[0], "\0\0\0\0", *brands[1:])).encode()
    return struct.pack(">I", 8 + len(kinds)) + b"ftyp" + kinds + b"\0\0\0\x08mdat"


def archives() -> tuple[bytes, bytes]:
    """Return a ZIP and a tar archive."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.jpg", plain())
    with tarfile.open(fileobj=tarred, mode="w") as files:
        files.addfile(tarfile.TarInfo("a.jpg"))
    return zipped.getvalue(), tarred.getvalue()


def array() -> bytes:
    """Return a file of NumPy's."""
    file = io.BytesIO()
    np.save(file, noise(4, 4, 3))
    return file.getvalue()


FILES = [
    *((encoded(noise(9, 9, 3), form), name) for form, name in (
        ("GIF", "a GIF"), ("TIFF", "a TIFF"), ("BMP", "a BMP"), ("ICO", "an icon"),
        ("JPEG2000", "a JPEG 2000"), ("PDF", "a PDF"), ("EPS", "a PostScript file"),
        ("DDS", "a DDS"), ("ICNS", "an icon"), ("QOI", "a QOI"),
    )),
    (media("heic", "mif1", "heic"), "a HEIC"),
    (media("mif1", "heic"), "a HEIC"),
    (media("avif", "mif1", "miaf"), "an AVIF"),
    (media("mif1", "avif", "miaf"), "an AVIF"),
    (media("isom", "iso2", "avc1", "mp41"), "a video (MP4"),
    (media("qt  "), "a video (MP4"),
    (media("crx ", "isom"), "a camera's raw file"),
    (b"\xff\x0a" + bytes(20), "a JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"),
    (b"RIFF\x24\0\0\0AVI LIST", "a video (AVI)"),
    (b"\x1aE\xdf\xa3" + bytes(20), "a video (Matroska"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "a sound"),
    (b"<!DOCTYPE html><html><body>404", "an HTML page"),
    (b"\xef\xbb\xbf\r\n <HTML lang=en>", "an HTML page"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
    (b"<?xml version='1.0'?>\n<!-- a -->\n<svg/>", "an SVG"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    (b'{"error": "not found"}', "JSON"),
    (b"data:image/png;base64,iVBORw0KGgo=", "a data: URI"),
    (b"https://example.org/a.jpg", "a URL"),
    (b"s3://bucket/a.jpg", "a URL"),
    (b64encode(encoded(noise(9, 9, 3), "JPEG")), "base64"),
    (b64encode(plain()), "base64"),
    (b64encode(encoded(noise(9, 9, 3), "WEBP")), "base64"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n", "Git LFS"),
    (archives()[0], "a ZIP archive"),
    (archives()[1], "a tar archive"),
    (array(), "a NumPy file"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "name"), FILES, ids=[name for _, name in FILES])
@pytest.mark.usefixtures("undecoded")
def test_a_file_is_refused_by_its_format(data: bytes, name: str) -> None:
    why = refusal(data)
    assert why.startswith(f"the image is {name}") or name == "Git LFS"
    assert name in why
    assert "only JPEG, PNG and WebP are supported: " in why


def test_bytes_of_an_unknown_format_are_shown() -> None:
    assert describe(bytes(range(0x10, 0x20))) == (
        "the image starts with 10 11 12 13 14 15 16 17; only JPEG, PNG and WebP are supported"
    )


@given(st.binary(min_size=1, max_size=99))
def test_the_message_is_short_for_any_bytes(data: bytes) -> None:
    assert len(describe(data)) < 200


@pytest.mark.parametrize(
    ("magic", "name"),
    [
        (b"MM\0+", "a TIFF"),
        (b"FLV\x01", "a video (FLV)"),
        (b"OggS", "an Ogg file"),
        (b"v/1\x01", "an OpenEXR"),
        (b"Rar!\x1a\x07", "a RAR archive"),
        (b"8BPS\0\x01", "a Photoshop file"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    ],
)
def test_a_file_is_known_by_its_first_bytes_only(magic: bytes, name: str) -> None:
    assert describe(magic + bytes(40)).startswith(f"the image is {name};")
    assert name not in describe(b"\x01" + magic + bytes(40))
