"""`python -m tests.soak`, and `make soak`: the long forms of what `tests/faults` tests in short.

Writes SOAK.md. Nothing here is collected by pytest: it takes half an hour, and depends on time.
"""
