"""Exports PyTorch weights as self-describing ONNX files, proven against the original."""

from visavis_server.environment import prepare

# Must run before any module of this package imports its libraries.
prepare()
