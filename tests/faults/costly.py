"""`python -m tests.faults.costly SECONDS SEED [FORMAT...]`: searches for the worst picture.

Builds pictures that stay below the limits, by a description that it changes step by step, and
keeps the change that made decoding take longer. It prints one line of JSON: of each format, the
longest CPU time that one took, what it was, and the memory beyond what its header announced.
"""

import io
import json
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.surroundings import Surroundings
from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.image import decode_file, read_file

from .mutants import _peak_mib, _rss_mib

Genes = dict[str, Any]
LIMITS = ImageLimits()
_SIDES = (1, 500, 2500, 3500, 4990, 6048, 7000, 7000, 8064, 65_535)


def noise(count: int, kind: int, seed: int) -> bytes:
    """Return bytes of one of six kinds: zeros, random, few bits, ones, a period, runs."""
    block = _block(kind, seed % 4)
    return (block * (count // len(block) + 1))[:count]


@lru_cache(maxsize=24)
def _block(kind: int, seed: int) -> bytes:
    count = 1 << 21
    chance = np.random.default_rng(seed)
    match kind:
        case 0:
            return bytes(count)
        case 1:
            return chance.bytes(count)
        case 2:
            return (
                (chance.integers(0, 2, count, np.uint8) << 7 - 2 * seed).astype(np.uint8).tobytes()
            )
        case 3:
            return b"\xfe" * count
        case 4:
            return chance.bytes(20_011)
        case _:
            return np.repeat(chance.integers(0, 256, count // 9, np.uint8), 9).tobytes()


# JPEG


def segment(kind: int, content: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return bytes((0xFF, kind)) + struct.pack(">H", len(content) + 2) + content


def huffman_table(table: int, symbols: bytes, skewed: bool) -> bytes:
    """Return a DHT: all symbols equally long, or the first ones ever shorter."""
    counts = [0] * 16
    short = min(len(symbols) - 1, 7) if skewed else 0
    for length in range(short):
        counts[length] = 1
    rest = len(symbols) - short
    length = min(15, short + max(0, rest.bit_length() - (1 if skewed else 0)))
    counts[length] += min(255, rest)
    counts[min(15, length + 1)] += max(0, rest - 255)
    return segment(0xC4, bytes((table, *counts)) + symbols)


def jpeg(genes: Genes) -> bytes:
    """Return a JPEG by a description."""
    count = genes["components"]
    kind = genes["kind"]
    factors = genes["factors"][:count]
    parts = [b"\xff\xd8", segment(0xDB, b"\0" + bytes((genes["quantum"],)) * 64)]
    if count == 4:
        parts.append(segment(0xEE, b"Adobe\0\x64\0\0\0\0\x02"))
    described = b"".join(bytes((i + 1, factors[i], 0)) for i in range(count))
    parts.append(
        segment(kind, struct.pack(">BHHB", 8, genes["height"], genes["width"], count) + described)
    )
    if kind < 0xC8:
        parts.append(huffman_table(0, bytes(genes["dc"]), genes["skewed"]))
        parts.append(huffman_table(16, bytes(genes["ac"]), genes["skewed"]))
    if genes["restarts"]:
        parts.append(segment(0xDD, struct.pack(">H", genes["restarts"])))
    # All that fits into the limit, and no more.
    wanted = sum(scan["bytes"] * (4 if scan["marked"] else 1) for scan in genes["scans"])
    share = min(genes["share"], 15_500_000 / max(1, wanted))
    for scan in genes["scans"]:
        if kind in (0xC2, 0xCA):
            ids = range(count) if scan["last"] == 0 else [scan["component"] % count]
            band = bytes((min(1, scan["last"]), scan["last"], scan["high"] << 4 | scan["low"]))
        else:
            ids = range(count) if scan["all"] else [scan["component"] % count]
            band = bytes((1, 0, 0)) if kind == 0xC3 else bytes((0, 63, 0))
        listed = b"".join(bytes((i + 1, 0)) for i in ids)
        parts.append(segment(0xDA, bytes((len(ids),)) + listed + band))
        content = noise(int(share * scan["bytes"]), scan["noise"], scan["seed"]).replace(
            b"\xff", b"\xff\0"
        )
        if scan["marked"]:
            every = scan["marked"]
            pieces = [content[at : at + every] for at in range(0, len(content), every)]
            content = b"".join(
                piece + bytes((0xFF, 0xD0 + number % 8)) for number, piece in enumerate(pieces)
            )
        # Fill bytes that no marker follows are data.
        parts.append(content + b"\xff" * scan["filled"] + b"\0" * bool(scan["filled"]))
    return b"".join((*parts, b"\xff\xd9"))


def _any_scan(chance: random.Random) -> Genes:
    return {
        "component": chance.randrange(3),
        "all": chance.random() < 0.7,
        "last": chance.choice((0, 0, 5, 63, 63)),
        "high": chance.choice((0, 1, 1, 2)),
        "low": chance.choice((0, 0, 1)),
        "bytes": chance.choice((0, 0, 100, 3000, 60_000, 300_000, 1_000_000)),
        "noise": chance.randrange(6),
        "seed": chance.randrange(16),
        "marked": chance.choice((0, 0, 0, 1, 3)),
        "filled": chance.choice((0, 0, 0, 5_000, 1_000_000)),
    }


def any_jpeg(chance: random.Random) -> Genes:
    """Return a description."""
    side = chance.choice(_SIDES)
    return {
        "width": side,
        "height": min(65_535, chance.choice((side, 25_000_000 // side, 8))),
        "components": chance.choice((1, 3, 3, 3, 4)),
        "kind": chance.choice((0xC0, 0xC0, 0xC1, 0xC2, 0xC2, 0xC2, 0xC3, 0xC9, 0xCA)),
        "factors": [chance.choice((0x11, 0x11, 0x21, 0x22, 0x14, 0x41, 0x13, 0x44, 0x32))]
        + [chance.choice((0x11, 0x11, 0x11, 0x12, 0x31)) for _ in range(3)],
        "quantum": chance.choice((1, 16, 255)),
        "dc": [0, *chance.sample(range(1, 12), chance.randrange(4))],
        "ac": chance.choice(
            ([0], [1], [1, 0x11], [1, 0xF0], [0xE0, 1], [1, 2, 0x11, 0], list(range(256)))
        ),
        "skewed": chance.random() < 0.5,
        "restarts": chance.choice((0, 0, 0, 1, 4, 100)),
        "share": chance.choice((0.1, 0.5, 1.0, 4.0, 16.0)),
        "scans": [_any_scan(chance) for _ in range(chance.choice((1, 1, 2, 5, 10, 20, 60)))],
    }


def changed_jpeg(genes: Genes, chance: random.Random) -> Genes:
    """Return a description with some of it changed."""
    new = {**genes, "scans": [dict(scan) for scan in genes["scans"]]}
    for _ in range(chance.choice((1, 1, 2, 4))):
        match chance.randrange(5):
            case 0:
                other = any_jpeg(chance)
                key = chance.choice([key for key in other if key not in ("scans", "height")])
                new[key] = other[key]
                new["height"] = min(65_535, max(1, new["height"]))
            case 1:
                new["scans"].insert(
                    chance.randrange(len(new["scans"]) + 1),
                    dict(chance.choice(new["scans"])) if new["scans"] else _any_scan(chance),
                )
            case 2 if len(new["scans"]) > 1:
                new["scans"].pop(chance.randrange(len(new["scans"])))
            case 3:
                scan = chance.choice(new["scans"])
                key = chance.choice(list(scan))
                scan[key] = _any_scan(chance)[key]
            case _:
                factor = chance.choice((0.5, 0.8, 0.9, 1.1, 1.25, 2))
                key = chance.choice(("width", "height"))
                new[key] = min(65_535, max(1, int(new[key] * factor)))
    return new


# PNG

_BITS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(genes: Genes) -> bytes:
    """Return a PNG by a description."""
    width, height, depth, color = (genes[key] for key in ("width", "height", "depth", "color"))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, genes["interlaced"])
    runs = [(width, height)]
    if genes["interlaced"]:
        runs = [
            (-(-(width - left) // across), -(-(height - top) // down))
            for left, top, across, down in (*_PASSES, (0, 1, 1, 2))
        ]
    level, memory, strategy = genes["level"], genes["memory"], genes["strategy"]
    deflater = zlib.compressobj(level, zlib.DEFLATED, 15, memory, strategy)
    parts = []
    for columns, rows in runs:
        if columns <= 0 or rows <= 0:
            continue
        row_bytes = (columns * depth * _BITS[color] + 7) // 8
        raw = np.frombuffer(noise(rows * row_bytes, genes["noise"], genes["seed"]), np.uint8)
        table = np.empty((rows, row_bytes + 1), np.uint8)
        table[:, 1:] = raw.reshape(rows, row_bytes)
        table[:, 0] = np.resize(np.array(genes["filters"], np.uint8), rows)
        content = table.tobytes()
        every = genes["flush"] or len(content)
        for at in range(0, len(content), every):
            parts.append(deflater.compress(content[at : at + every]))
            if genes["flush"]:
                parts.append(deflater.flush(zlib.Z_FULL_FLUSH))
    parts.append(deflater.compress(bytes(genes["surplus"])))
    parts.append(deflater.flush())
    encoded = b"".join(parts)
    every = genes["chunk"]
    # As many chunks as are allowed, not more.
    every = max(every, len(encoded) // 19_000 + 1)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", bytes(range(3))) if color == 3 else b"",
            *(chunk(b"IDAT", encoded[at : at + every]) for at in range(0, len(encoded), every)),
            chunk(b"IEND", b""),
        )
    )


def any_png(chance: random.Random) -> Genes:
    """Return a description."""
    color = chance.choice((0, 2, 2, 2, 3, 4, 6, 6))
    depths = {0: (1, 2, 8, 16), 3: (1, 4, 8)}.get(color, (8, 8, 16))
    side = chance.choice(_SIDES)
    return {
        "width": side,
        "height": max(1, min(65_535, chance.choice((side, 25_000_000 // side, 9_000_000 // side)))),
        "color": color,
        "depth": chance.choice(depths),
        "interlaced": chance.choice((0, 0, 1)),
        "noise": chance.randrange(6),
        "seed": chance.randrange(16),
        "filters": chance.choice(([0], [1], [2], [3], [4], [4], [4, 1, 2], [0, 1, 2, 3, 4])),
        "level": chance.choice((1, 1, 4, 6)),
        "memory": chance.choice((1, 1, 8, 9)),
        "strategy": chance.choice((0, 0, 1, 2, 3, 4)),
        "flush": chance.choice((0, 0, 0, 40, 200, 3000)),
        "surplus": chance.choice((0, 0, 10_000_000, 200_000_000)),
        "chunk": chance.choice((1, 100, 8192, 1 << 24)),
    }


def changed_png(genes: Genes, chance: random.Random) -> Genes:
    """Return a description with some of it changed."""
    new = dict(genes)
    for _ in range(chance.choice((1, 1, 2))):
        if chance.random() < 0.4:
            key = chance.choice(("width", "height"))
            factor = chance.choice((0.5, 0.8, 0.9, 1.1, 1.25, 2))
            new[key] = min(65_535, max(1, int(new[key] * factor)))
        else:
            other = any_png(chance)
            key = chance.choice([key for key in other if key not in ("width", "height")])
            if key in ("color", "depth"):
                new["color"], new["depth"] = other["color"], other["depth"]
            else:
                new[key] = other[key]
    return new


# WebP


def riff(kind: bytes, content: bytes) -> bytes:
    """Return a simple WebP."""
    content_padded = content + b"\0" * (len(content) & 1)
    body = b"WEBP" + kind + struct.pack("<I", len(content)) + content_padded
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bits(value: int, count: int) -> list[int]:
    return [value >> bit & 1 for bit in range(count)]


# A code of 256 symbols, 8 bits each, in an alphabet of 256: its lengths' code has two symbols.
_EVEN_CODE = [0, *_bits(8, 4), *(bit for at in range(12) for bit in _bits(at in (1, 11), 3)), 0]


def _even_code(alphabet: int) -> list[int]:
    rest = [1, *_bits(alphabet - 256 - 11, 7)] if alphabet > 256 else []
    return [*_EVEN_CODE, *[0] * 256, *rest]


def _only(symbol: int) -> list[int]:
    return [1, 0, 0, symbol]


def many_groups(width: int, height: int, groups: int, full: bool, seed: int) -> bytes:
    """Return a lossless WebP with so many groups of prefix codes, each of an own block."""
    rows, columns = -(-height // 4), -(-width // 4)
    head = [*_bits(0x2F, 8), *_bits(width - 1, 14), *_bits(height - 1, 14), *_bits(0, 4)]
    # No transform, no cache; groups, in blocks of 4x4; no cache, and their five codes.
    head += [0, 0, 1, *_bits(0, 3), 0, *_even_code(280), *_even_code(256)]
    head += [*_only(0), *_only(0), *_only(0)]
    numbers = np.minimum(np.arange(rows * columns), groups - 1)
    pairs = np.stack((numbers & 255, numbers >> 8), axis=1).astype(np.uint8)
    code = [*_even_code(280), *_even_code(256) * 3, *_only(0)] if full else [*_only(0) * 5]
    parts = (
        np.array(head, np.uint8),
        np.unpackbits(pairs.reshape(-1)),
        np.tile(np.array(code, np.uint8), groups),
    )
    bits = np.packbits(np.concatenate(parts), bitorder="little").tobytes()
    return riff(
        b"VP8L", bits + np.random.default_rng(seed).bytes(4 * width * height if full else 8)
    )


def webp(genes: Genes) -> bytes:
    """Return a WebP by a description."""
    width, height = genes["width"], genes["height"]
    if genes["groups"]:
        return many_groups(width, height, genes["groups"], genes["full"], genes["seed"])
    size = width * height * 3
    pixels = np.frombuffer(noise(size, genes["noise"], genes["seed"]), np.uint8)
    picture = Image.fromarray((pixels // genes["calm"]).reshape(height, width, 3))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=genes["quality"], lossless=genes["lossless"], method=0)
    data = file.getvalue()
    if genes["replaced"]:
        # The tokens of the picture are the noise's then, with the probabilities of another.
        keep = max(40, int(len(data) * genes["replaced"]))
        data = data[:keep] + noise(len(data) - keep, genes["tokens"], genes["seed"])
    return data


def any_webp(chance: random.Random) -> Genes:
    """Return a description."""
    side = chance.choice((256, 1000, 2000, 3000, 4300, 4300, 4300))
    return {
        "width": side,
        "height": max(1, min(16_383, chance.choice((side, side // 3, 2_000_000 // side)))),
        "groups": chance.choice((0, 0, 0, 1, 500, 4096)),
        "full": chance.random() < 0.5,
        "noise": chance.randrange(6),
        "seed": chance.randrange(16),
        "calm": chance.choice((1, 2, 8, 64)),
        "quality": chance.choice((1, 50, 90, 100)),
        "lossless": chance.random() < 0.5,
        "replaced": chance.choice((0, 0, 0.001, 0.01, 0.1, 0.5)),
        "tokens": chance.randrange(6),
    }


def changed_webp(genes: Genes, chance: random.Random) -> Genes:
    """Return a description with some of it changed."""
    new = dict(genes)
    for _ in range(chance.choice((1, 1, 2))):
        if chance.random() < 0.4:
            key = chance.choice(("width", "height"))
            factor = chance.choice((0.5, 0.8, 0.9, 1.1, 1.25, 2))
            new[key] = min(16_383, max(1, int(new[key] * factor)))
        else:
            key = chance.choice([key for key in new if key not in ("width", "height")])
            new[key] = any_webp(chance)[key]
    return new


FORMATS: dict[
    str,
    tuple[
        Callable[[Genes], bytes],
        Callable[[random.Random], Genes],
        Callable[[Genes, random.Random], Genes],
    ],
] = {
    "JPEG": (jpeg, any_jpeg, changed_jpeg),
    "PNG": (png, any_png, changed_png),
    "WebP": (webp, any_webp, changed_webp),
}


def cost(data: bytes) -> tuple[float, float, str]:
    """Return the CPU that a picture took in ms, memory not announced in MiB, and the outcome."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    rss_mib, announced_bytes, began = _rss_mib(), 0, time.thread_time()
    try:
        file = read_file(data, LIMITS)
        announced_bytes = file.working_bytes
        decode_file(file)
        outcome = "decoded"
    except InvalidRequest as refused:
        outcome = str(refused)
    took_ms = 1e3 * (time.thread_time() - began)
    return took_ms, _peak_mib() - rss_mib - announced_bytes / (1 << 20), outcome


def search(form: str, seconds: float, seed: int) -> dict[str, object]:
    """Return the worst that was found in one format."""
    build, invent, change = FORMATS[form]
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    best, best_ms, tried, decoded = invent(chance), 0.0, 0, 0
    current, current_ms, stale = best, 0.0, 0
    worst_mib, outcome_of_best = 0.0, ""
    while time.monotonic() < end:
        genes = change(current, chance) if current_ms and stale <= 30 else invent(chance)
        if stale > 30:
            current_ms, stale = 0.0, 0
        # Building is what takes time: no description that is refused by its size.
        if genes["width"] * genes["height"] > 50_000_000:
            continue
        try:
            data = build(genes)
        except (ValueError, struct.error, MemoryError, OSError):
            continue
        if len(data) > LIMITS.encoded_bytes:
            stale += 1
            continue
        took_ms, beyond_mib, outcome = cost(data)
        tried, decoded = tried + 1, decoded + (outcome == "decoded")
        worst_mib = max(worst_mib, beyond_mib)
        if took_ms > current_ms:
            # Others compute here too: the better of two counts.
            took_ms = min(took_ms, cost(data)[0])
        stale += 1
        if took_ms > current_ms and outcome == "decoded":  # what is refused leads nowhere
            current, current_ms, stale = genes, took_ms, 0
        if took_ms > best_ms:
            best, best_ms, outcome_of_best = genes, took_ms, outcome
            print(form, round(best_ms), outcome, len(data), genes, file=sys.stderr, flush=True)
    return {
        "tried": tried,
        "decoded": decoded,
        "worst_ms": round(best_ms, 1),
        "outcome": outcome_of_best,
        "beyond_mib": round(worst_mib, 1),
        "worst": str(best)[:1000],
    }


def main(seconds: float, seed: int, forms: list[str]) -> dict[str, dict[str, object]]:
    """Search in each format for its share of the time."""
    return {form: search(form, seconds / len(forms), seed) for form in forms}


def searched_elsewhere(seconds: float, seed: int, form: str) -> dict[str, Any]:
    """Return what a search in one format found, in a process of its own."""
    command = [sys.executable, "-m", "tests.faults.costly", str(seconds), str(seed), form]
    with Surroundings.temporary() as found:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd=found.elsewhere,
            env=found.environment_of_tests(),
        )
    assert done.returncode == 0, done.stderr[-2000:]
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])[form]
    return outcome


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or list(FORMATS))))
