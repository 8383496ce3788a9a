"""What libraries read from the environment when they are imported: set before any of them is."""

import os

# Whatever the user's own environment says.
_ALWAYS = {
    # ONNX Runtime's Linux wheels would look up a host and write files below ~/.cache.
    "ORT_DISABLE_TELEMETRY": "1",
    # OpenCV's own cap behind our check of the header: as much as max_decoded_bytes may allow.
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(1 << 28),
    # ultralytics would install packages, fetch weights and report usage.
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    # It would tell of its settings, which are in a temporary folder.
    "YOLO_VERBOSE": "false",
}
_DEFAULTS = {
    # gRPC's own log says in its words what our errors say in ours.
    "GRPC_VERBOSITY": "NONE",
    # The server looks nothing up; gRPC's other resolver would prepare to.
    "GRPC_DNS_RESOLVER": "native",
    # The scheduler gives out the cores: a product of NumPy's stays on the one that asked for it.
    "OPENBLAS_NUM_THREADS": "1",
}


def prepare() -> None:
    """Set the variables, for this process and those that it starts."""
    os.environ.update(_ALWAYS)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
