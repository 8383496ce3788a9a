"""The gRPC server: hosts ONNX Runtime sessions and answers Classify, Detect and Compare."""

import os

# The scheduler gives out the cores: what NumPy multiplies stays on the one that it is on. It reads
# this when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
