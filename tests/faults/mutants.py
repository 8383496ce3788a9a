"""`python -m tests.faults.mutants COUNT SEED FILE...`: damages pictures, and has each decoded.

A process of its own, so that a crash is seen, and memory is what decoding takes. It prints one
line of JSON: how many were decoded and refused, what was neither, the longest CPU time and the
memory.
"""

import json
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.surroundings import Surroundings
from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.image import decode

_INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0xD8, 0xD9, 0xDA, 0xC0, 0xC2, 0xC4)


def mutant(picture: bytes, chance: random.Random) -> bytes:
    """Return a picture with a few bytes changed, cut, doubled or moved."""
    data = bytearray(picture)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        # Headers are where the decisions are.
        at = chance.randrange(min(len(data), 700) if chance.random() < 0.6 else len(data))
        length = chance.choice((1, 2, 4, 16, 256, 4096))
        match chance.randrange(8):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.choice(_INTERESTING)
            case 2:
                del data[at : at + length]
            case 3:
                del data[at:]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                data[at : at + length] = chance.randbytes(min(length, len(data) - at))
            case 6:
                data[at : at + 4] = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)).to_bytes(4)
            case _:
                data[at : at + 2] = chance.choice((0xFFFF, 0x8000, 1)).to_bytes(2)
    return bytes(data)


def main(count: int, seed: int, files: list[Path]) -> dict[str, object]:
    """Decode that many mutants of the files; return what came of it."""
    chance = random.Random(seed)
    pictures = [file.read_bytes() for file in files]
    for picture in pictures:
        decode(picture, ImageLimits())
    kinds: Counter[str] = Counter()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    longest_s, rss_before = 0.0, _rss_mib()
    for number in range(count):
        data = mutant(chance.choice(pictures), chance)
        began = time.process_time()
        try:
            decode(data, ImageLimits())
            kinds["decoded"] += 1
        except InvalidRequest as refused:
            kinds["refused" if refused.field == "image.encoded" else f"{refused.field} blamed"] += 1
        except Exception as error:  # noqa: BLE001  what must not happen, and is to be reported
            kinds[f"{type(error).__name__} in mutant {number}: {error}"] += 1
        longest_s = max(longest_s, time.process_time() - began)
    return {
        "kinds": kinds,
        "longest_ms": round(longest_s * 1e3, 1),
        "grown_mib": round(_rss_mib() - rss_before, 1),
        "peak_mib": round(_peak_mib() - rss_before),
    }


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def _rss_mib() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)


def pictures_in(form: str, sources: Sequence[Path], folder: Path) -> list[Path]:
    """Return six pictures in a format, small enough that many of them can be tried."""
    files = []
    for number, source in enumerate(sources[:6]):
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((320, 320))
        how = {"progressive": number % 2 == 0} if form == "JPEG" else {}
        file = folder / f"{number}.{form.lower()}"
        picture.save(file, form, **how)
        files.append(file)
    return files


def decoded_elsewhere(count: int, seed: int, files: list[Path]) -> dict[str, Any]:
    """Return what came of decoding mutants of pictures in a process of its own."""
    command = [sys.executable, "-m", "tests.faults.mutants", str(count), str(seed)]
    with Surroundings.temporary() as found:
        done = subprocess.run(
            [*command, *map(str, files)],
            capture_output=True,
            text=True,
            check=False,
            cwd=found.elsewhere,
            env=found.environment_of_tests(),
        )
    assert done.returncode == 0, done.stderr[-2000:]
    outcome: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return outcome


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), [Path(f) for f in sys.argv[3:]])))
