"""The Open Inference Protocol over HTTP, in JSON and with Triton's binary tensors."""
