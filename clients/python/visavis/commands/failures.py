"""What went wrong, for a person, for a script and as an exit code."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from visavis import errors
from visavis.commands.console import complain

EXIT_CODES = {
    0: "all is well",
    1: "the request was refused (a bad picture, an unknown model, no access)",
    2: "the command was not understood",
    3: "no server answers, or it starts or stops",
    4: "the timeout ran out",
    5: "the server failed, or has too much to do",
    70: "a fault of visavis itself, please report it",
    130: "interrupted",
}

_REFUSED = (
    errors.InvalidRequest,
    errors.InvalidData,
    errors.ModelNotFound,
    errors.AccessDenied,
    errors.Unsupported,
)


def exit_code(error: errors.VisavisError) -> int:
    """Return the exit code that stands for an error; EXIT_CODES says what each one means."""
    if isinstance(error, errors.InvalidSettings):
        return 2
    if isinstance(error, _REFUSED):
        return 1
    if isinstance(error, errors.Unavailable):
        return 3
    if isinstance(error, errors.DeadlineExceeded):
        return 4
    return 5


def sentence(error: errors.VisavisError) -> str:
    """Return what went wrong, and what to do where the text doesn't say."""
    text = error.message
    if len(error.violations) > 1:
        text += "".join(f"\n  {item.field}: {item.description}" for item in error.violations)
    if isinstance(error, errors.Unavailable) and error.request_id is None:
        text += "\nStart a server with `visavis serve`, or name another with --server."
    if error.retry_after_s is not None:
        text += f"\nTry again in {error.retry_after_s:g} s."
    return text


def json_line(error: errors.VisavisError) -> str:
    """Return an error as one line of JSON, in the place of an answer."""
    fields = {
        "code": error.code,
        "message": error.message,
        "field": error.field,
        "requestId": error.request_id,
    }
    return json.dumps({"error": {name: text for name, text in fields.items() if text}})


@contextmanager
def exit_codes() -> Iterator[None]:
    """End the command with the right exit code, and a sentence, where a call fails."""
    try:
        yield
    except errors.VisavisError as error:
        complain(sentence(error))
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
