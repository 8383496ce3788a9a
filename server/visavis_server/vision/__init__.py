"""Pre- and post-processing, from pictures to labels and boxes. Knows no gRPC or ONNX Runtime."""
