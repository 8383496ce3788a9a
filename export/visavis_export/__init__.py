"""The export stage: PyTorch weights to self-describing, proven ONNX files."""

from visavis_server.environment import prepare

# First, whatever is imported of this package.
prepare()
