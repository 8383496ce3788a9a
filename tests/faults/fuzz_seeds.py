"""Valid inputs from which the fuzzer starts."""

from visavis.v1 import vision_pb2 as pb

from tests.server import graphs
from tests.server.pictures import encoded, noise


def seeds_of_targets() -> dict[str, list[bytes]]:
    """Return valid inputs by target, in its encoding: see fuzz.py."""
    png, jpeg, webp = (encoded(noise(16, 24, 3), form) for form in ("PNG", "JPEG", "WEBP"))
    document = graphs.detector_document()
    model, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    classified = pb.ClassifyRequest(image=pb.Image(encoded=png), model="colors", top_k=3)
    compared = pb.CompareRequest(image=pb.Image(encoded=jpeg), models=["colors"])
    return {
        # The first byte selects how the picture begins; the last choice leaves it alone.
        "pictures": [b"\x03" + picture for picture in (png, jpeg, webp)],
        "files": [b"\x00" + jpeg[4:], b"\x01" + png[8:], b"\x02" + webp[12:]],
        # Likewise the type of the request.
        "requests": [
            b"\x00" + classified.SerializeToString(),
            b"\x02" + compared.SerializeToString(),
        ],
        "models": [model],
        "documents": [document.model_dump_json(exclude_none=True).encode()],
    }
