"""`python -m tests.benchmark`: every target for speed, measured on this machine.

Writes BENCHMARKS.md. Nothing here is collected by pytest: a test must not depend on time.
"""
