"""What runs where, in which batch and when; knows neither gRPC nor ONNX Runtime."""
