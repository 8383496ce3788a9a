"""The model families: each builds a PyTorch original and the module that becomes its graph."""
