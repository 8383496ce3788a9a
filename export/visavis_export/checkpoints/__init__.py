"""Checkpoints and published weights: found, verified and read as data; no code in them runs."""
