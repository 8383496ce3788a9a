"""Draw boxes with supervision: python supervision_boxes.py 127.0.0.1:8001 bus.jpg drawn.png."""

import sys

import numpy as np
import supervision
from PIL import Image
from visavis import Client


def main(address: str, picture: str, output: str) -> None:
    """Detect objects in a Pillow image, and draw them with supervision's annotators."""
    with Image.open(picture) as file, Client(address) as client:
        image = file.convert("RGB")
        found = client.detect(image, model="yolov5n").to_supervision()
    # supervision draws on arrays in OpenCV's order.
    scene = np.asarray(image)[:, :, ::-1].copy()
    scene = supervision.BoxAnnotator().annotate(scene, found)
    scene = supervision.LabelAnnotator().annotate(scene, found)
    Image.fromarray(scene[:, :, ::-1]).save(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
