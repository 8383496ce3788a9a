"""Compares a foreign ONNX file with its PyTorch original, and finds where the difference begins."""
