"""Metrics for Prometheus: our own, and the same under Triton's names."""
