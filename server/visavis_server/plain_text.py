"""Makes untrusted text safe to print on one line of a log or a terminal."""

_MAX_CHARACTERS = 4096


def escaped(text: str, most: int = _MAX_CHARACTERS) -> str:
    r"""Return text as one printable line: a line break becomes \n, an escape character \x1b.

    Bidirectional marks and lone surrogates are escaped too. Text is cut after `most` characters.
    """
    if len(text) > most:
        text = text[:most] + "…"
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
