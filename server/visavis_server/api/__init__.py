"""What the server answers: our own RPCs, the Open Inference Protocol, and metrics."""
