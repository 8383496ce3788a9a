"""The export stage: PyTorch weights to self-describing, proven ONNX files."""
