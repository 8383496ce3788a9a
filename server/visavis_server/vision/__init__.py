"""Pictures in, labels and boxes out; knows neither gRPC nor ONNX Runtime."""
