"""The Open Inference Protocol: its service, messages, tensors and views of a model."""
