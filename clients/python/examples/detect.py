"""Print what a detector finds in a picture: python detect.py 127.0.0.1:8001 bus.jpg."""

import sys

from visavis import Client, Overloaded, VisavisError


def main(address: str, picture: str) -> None:
    """Detect objects, and say what to do if that fails."""
    with Client(address, timeout=5, headers={"x-request-id": "example"}) as client:
        try:
            result = client.detect(picture, model="yolov5n", score_threshold=0.4)
        except Overloaded as error:
            sys.exit(f"try again in {error.retry_after_s} s")
        except VisavisError as error:
            sys.exit(f"{error.code}: {error.message}")
    for found in result.detections:
        left, top, right, bottom = found.box.xyxy
        print(
            f"{found.label} {found.score:.2f} at {left:.0f}, {top:.0f}, {right:.0f}, {bottom:.0f}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
