"""What runs a model: sessions, providers, cores and memory."""
