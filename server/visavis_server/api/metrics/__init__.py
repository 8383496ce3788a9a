"""What Prometheus reads: our own metrics, and Triton's names for them."""
