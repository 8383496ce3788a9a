"""Sets environment variables that libraries read when they are imported."""

import os

# These override the user's environment.
_ALWAYS = {
    # ONNX Runtime's Linux wheels would resolve a host and write files below ~/.cache.
    "ORT_DISABLE_TELEMETRY": "1",
    # OpenCV's limit, behind our check of the header: the most that max_decoded_bytes may allow.
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(1 << 28),
    # ultralytics would install packages, download weights and report usage.
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    # ultralytics would print messages about its settings, which are in a temporary folder.
    "YOLO_VERBOSE": "false",
}
_DEFAULTS = {
    # gRPC's log would repeat our errors in its own words.
    "GRPC_VERBOSITY": "NONE",
    # The server resolves no names; gRPC's other resolver would initialize for it.
    "GRPC_DNS_RESOLVER": "native",
    # The scheduler assigns the cores: a NumPy product must stay on its own.
    "OPENBLAS_NUM_THREADS": "1",
    # TensorRT would compute fp32 in TF32, which has ten bits; ONNX Runtime has no option for it.
    "NVIDIA_TF32_OVERRIDE": "0",
}


def prepare() -> None:
    """Set the variables for this process and its children."""
    os.environ.update(_ALWAYS)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
