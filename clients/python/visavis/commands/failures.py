"""Errors as messages, as JSON and as exit codes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from visavis import errors
from visavis.commands.console import complain

EXIT_CODES = {
    0: "success",
    1: "the request was rejected (bad picture, unknown model, no access)",
    2: "invalid arguments or settings",
    3: "no server answers, or it is starting or stopping",
    4: "the timeout ran out",
    5: "the server failed or is overloaded",
    70: "internal error; please report it",
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
    """Return the exit code for an error; EXIT_CODES explains each code."""
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
    """Return an error's message, with advice if the message has none."""
    text = error.message
    if len(error.violations) > 1:
        text += "".join(f"\n  {item.field}: {item.description}" for item in error.violations)
    if isinstance(error, errors.Unavailable) and error.request_id is None:
        text += "\nStart a server with `visavis serve`, or give another address with --server."
    if error.retry_after_s is not None:
        text += f"\nTry again in {error.retry_after_s:g} s."
    return text


def json_line(error: errors.VisavisError) -> str:
    """Return an error as one line of JSON, printed instead of an answer."""
    fields = {
        "code": error.code,
        "message": error.message,
        "field": error.field,
        "requestId": error.request_id,
    }
    return json.dumps({"error": {name: text for name, text in fields.items() if text}})


@contextmanager
def exit_codes() -> Iterator[None]:
    """Print the error of a failed call and exit with its exit code."""
    try:
        yield
    except errors.VisavisError as error:
        complain(sentence(error))
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
