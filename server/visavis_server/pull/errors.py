"""The errors of a pull; each message says what was wrong and what to do.

PullError
├── InvalidSource          the source's URL is invalid                        exit code 2
├── LibraryMissing         the library for this kind of source is missing     exit code 2
├── SourceUnreachable      the source does not answer                         exit code 3
└── PullFailed             the source refuses, or holds what can't be used    exit code 1
    └── VersionRefused     one version can't be used; others can
"""

from typing import ClassVar


class PullError(Exception):
    """A pull failed."""

    exit_code: ClassVar[int] = 1


class InvalidSource(PullError):
    """The source's URL is invalid."""

    exit_code = 2


class LibraryMissing(PullError):
    """The library for this kind of source, or for signatures, is missing."""

    exit_code = 2


class SourceUnreachable(PullError):
    """The source does not answer; a later attempt may succeed."""

    exit_code = 3


class PullFailed(PullError):
    """The source denies access, lacks what was asked for, or can't be used as it is."""


class VersionRefused(PullFailed):
    """One version of a model can't be used."""
