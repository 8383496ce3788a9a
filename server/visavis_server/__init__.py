"""The gRPC server: hosts ONNX Runtime sessions and answers Classify, Detect and Compare."""

from visavis_server.environment import prepare

# Before any other module of the package is imported.
prepare()
