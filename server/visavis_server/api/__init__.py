"""The services: our own RPCs, the Open Inference Protocol, and metrics."""
