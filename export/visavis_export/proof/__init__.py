"""Compares exported files with their PyTorch originals."""
