"""visavis on Ray Serve: a deployment for each model, behind Ray's gRPC proxy.

`serve deploy deploy/ray/serve.yaml` calls `build`, and its proxies register the services in `gate`.
No other package imports Ray.
"""

import os
from typing import TYPE_CHECKING

from visavis_server import environment
from visavis_server.ray.arguments import Arguments

if TYPE_CHECKING:
    from ray.serve import Application

# Before a replica, which imports this package first, imports ONNX Runtime and OpenCV.
environment.prepare()
# Before anything here imports Ray.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def build(arguments: Arguments) -> "Application":
    """Return the application of a model repository; Ray Serve calls this with its `args`."""
    # Late: a proxy imports this package too, and needs neither NumPy nor ONNX Runtime.
    from visavis_server.ray.application import application

    return application(arguments)
