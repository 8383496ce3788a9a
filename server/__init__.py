"""The gRPC server: hosts ONNX Runtime sessions and answers Classify, Detect and Compare."""

import os

# The scheduler gives out the cores: a product of NumPy's stays on the one that asked for it. NumPy
# reads this when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
