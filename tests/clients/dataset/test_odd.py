"""Folders as many tools write them are read right, or refused by file and line."""

from .odd import tried


def test_odd_folders_are_read_correctly_or_rejected_by_file_and_line() -> None:
    counts, wrong = tried(seed=0, folders=400)
    assert not wrong
    assert min(counts["read"], counts["refused"]) > 100
