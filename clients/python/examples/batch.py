"""Write COCO results for a folder: python batch.py 127.0.0.1:8001 pictures/ results.json."""

import json
import sys
from pathlib import Path
from typing import Any

from visavis import Client


def main(address: str, folder: str, output: str) -> None:
    """Detect objects in all pictures, eight at a time; report those that failed."""
    paths = sorted(Path(folder).glob("*.jpg"))
    entries: list[dict[str, Any]] = []
    with Client(address) as client:
        for item in client.detect_many(paths, model="yolov5n", concurrency=8, progress=True):
            if item.error is not None:
                print(f"{paths[item.index]}: {item.error}", file=sys.stderr)
            elif item.result is not None:
                entries += item.result.to_coco(image_id=item.index)
    Path(output).write_text(json.dumps(entries))


if __name__ == "__main__":
    main(*sys.argv[1:])
