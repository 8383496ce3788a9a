"""The gRPC server: hosts ONNX Runtime sessions and answers Classify, Detect and Compare."""
