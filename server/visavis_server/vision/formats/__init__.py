"""Readers of encoded pictures: they check a file's structure before it is decoded."""
