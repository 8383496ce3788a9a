"""The gRPC server: hosts ONNX Runtime sessions and answers Classify, Detect and Compare."""

from visavis_server.environment import prepare

# First, whatever is imported of this package.
prepare()
