"""Removes what may be secret from URLs and from the messages of libraries."""

import re
from typing import Final

from visavis_server.plain_text import escaped

# A container's name stands before the @ of an Azure URL, which is not secret.
_USER_INFO: Final = re.compile(r"(?<![\w+.-])((?!az:|abfs:|abfss:)[A-Za-z][\w+.-]*://)[^/\s@]*@")
# Signed URLs carry their signature in the query.
_QUERY: Final = re.compile(r"([A-Za-z][\w+.-]*://[^\s?#'\"]*)[?#][^\s'\"]*")
# As in a connection string, or in a header that a library repeats.
_PAIRS: Final = re.compile(
    r"(?i)\b((?:account|access|secret|session|shared)?_?(?:key|token|signature|password|sig)"
    r"\s*[=:]\s*)(?!\s)[^\s;,&'\"]+"
)
_AUTHORIZATION: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_MAX_CHARACTERS: Final = 600


def redacted(text: str) -> str:
    """Return a text on one line, without user names, passwords, queries and tokens."""
    text = _USER_INFO.sub(r"\1…@", text)
    text = _QUERY.sub(r"\1", text)
    text = _AUTHORIZATION.sub(r"\1 …", text)
    return escaped(_PAIRS.sub(r"\1…", text), _MAX_CHARACTERS)
