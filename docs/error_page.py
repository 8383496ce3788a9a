"""The reference of errors: each kind with its remedy, and the messages that the code raises."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from page_parts import code, first_sentence, table
from reasons import VALUE, Found, Reason, reasons
from visavis import errors as client_errors

from visavis_export import errors as export_errors
from visavis_server import errors

_ROOT: Final = Path(__file__).parents[1]
_SERVER: Final = _ROOT / "server" / "visavis_server"
_EXPORT: Final = _ROOT / "export" / "visavis_export"
_SDK: Final = _ROOT / "clients" / "python" / "visavis"
# Statuses that say what a caller should do next.
_REMEDIES: Final = {
    "INVALID_ARGUMENT": "Correct the request: `BadRequest` names the field.",
    "PERMISSION_DENIED": "Ask the operator to change the setting that the message names.",
    "UNIMPLEMENTED": "Use the alternative that the message names.",
    "UNAUTHENTICATED": "Send a valid token as `authorization: Bearer TOKEN`.",
    "NOT_FOUND": "Choose a model or version that `ListModels` returns.",
    "FAILED_PRECONDITION": "Correct the model file; the message and the log say what is wrong.",
    "RESOURCE_EXHAUSTED": "Try again after the time in `RetryInfo`, or add capacity.",
    "DEADLINE_EXCEEDED": "Allow more time, or add capacity.",
    "UNAVAILABLE": "Retry: every RPC is safe to repeat.",
    "INTERNAL": "Report it, with the request id; the server's log has the details.",
}
_START_REMEDIES: Final = {
    errors.StartupError: "Do what the message says: most name the setting to change.",
    errors.InvalidSettings: "Correct the file; `visavis serve --help` lists the options.",
    errors.ModelFileError: "Export the model again, or replace the file.",
    errors.CannotLoadNow: "Free memory or disk, or raise `load_timeout_s`. A watched repository "
    "tries the file again.",
    errors.ProviderUnavailable: "Install what is missing, or choose another `device`; `visavis "
    "doctor` shows what each one lacks.",
}
_EXPORT_REMEDIES: Final = {
    export_errors.ExportError: "Do what the message says.",
    export_errors.InvalidOption: "Correct the command; `visavis export --help` lists the options.",
    export_errors.WeightsError: "Give the file with `--weights`, or a folder with "
    "`VISAVIS_WEIGHTS`; see [Work without a network](../guides/offline.md).",
    export_errors.CheckpointError: "Export under the name that the message gives, or another file; "
    "[Models](../models.md) lists what is supported.",
    export_errors.UnsafeCheckpoint: "Save the weights alone: `torch.save(model.state_dict(), "
    "FILE)`.",
    export_errors.ReceiptFailed: "Report it with the figures: the file would give other answers "
    "than PyTorch.",
    export_errors.AccuracyFailed: "Use better calibration pictures, or accept the loss with "
    "`--max-top1-drop` or `--max-map-drop`.",
}


def lines() -> Iterator[str]:
    """Yield the page."""
    yield "# Errors\n"
    yield (
        "Every error is a gRPC status with `google.rpc` details: `BadRequest` names the invalid "
        "field, `RequestInfo` the id under which the server logged the call, and `RetryInfo` the "
        "time to wait before a retry.\n"
        "Connect and JSON carry the same code, message and details.\n"
        "Anything unexpected becomes `INTERNAL` with a request id, and never shows internals.\n\n"
        "Search this page for the words of a message: it has every one that the code raises.\n"
        f"`{VALUE}` stands for a value, such as a name or a limit.\n"
        "Most messages say what to do; the line above each table says it for all of them.\n"
    )
    server, settings, export, client = (found for found, _ in all_reasons())
    yield from _of_calls(server)
    yield from _at_the_start(server, settings)
    yield from _of_the_export(export)
    yield from _of_the_client(client)


def all_reasons() -> tuple[Found, Found, Found, Found]:
    """Return the reasons of the server, of its settings, of the export and of the SDK."""
    kinds = list(below(errors.VisavisError))
    with_field = {kind.__name__ for kind in kinds if issubclass(kind, errors.InvalidRequest)}
    settings = [*sorted((_SERVER / "settings").glob("*.py")), _SERVER / "addresses.py"]
    return (
        reasons(_SERVER.rglob("*.py"), {kind.__name__ for kind in kinds}, with_field),
        reasons(settings, [ValueError.__name__]),
        reasons(_EXPORT.rglob("*.py"), {kind.__name__ for kind in _EXPORT_REMEDIES}),
        reasons(
            (*_SDK.glob("*.py"), *(_SDK / "dataset").glob("*.py")),
            {kind.__name__ for kind in below(client_errors.VisavisError)},
        ),
    )


def _of_calls(found: list[Reason]) -> Iterator[str]:
    kinds = [kind for kind in below(errors.VisavisError) if kind not in _START_REMEDIES]
    for status, group in groupby(sorted(kinds, key=_status), _status):
        same = list(group)
        yield f"## `{status}`\n"
        yield from (f"- {first_sentence(kind)}" for kind in same)
        yield f"\n{_REMEDIES[status]}\n"
        yield from _messages(found, same)


def _status(kind: type[errors.VisavisError]) -> str:
    return kind.code


def _at_the_start(found: list[Reason], settings: list[Reason]) -> Iterator[str]:
    yield "## Errors at the start\n"
    yield (
        "The server does not start, and exits with code 1, or 2 if a setting is invalid.\n"
        "An unusable model file ends the start only with `require_all_models`, or if no other "
        "model can be served; otherwise it is logged as `refused`, with the message.\n"
    )
    for kind, remedy in _START_REMEDIES.items():
        yield f"### `{kind.__name__}`\n\n{first_sentence(kind)}\n{remedy}\n"
        yield from _messages(found, [kind])
    yield (
        "### Settings\n\nA setting is invalid: `settings: NAME: MESSAGE, got 'VALUE'`.\n"
        "Correct the value; [Settings](settings.md) describes each.\n"
    )
    yield from _messages(settings, [ValueError])


def _of_the_export(found: list[Reason]) -> Iterator[str]:
    yield "## Errors of the export\n"
    yield (
        "`visavis export` and `visavis verify` print the message, and write no model.\n"
        "They exit with code 1, or 2 if the command is wrong; `verify` always with 2.\n"
    )
    for kind, remedy in _EXPORT_REMEDIES.items():
        yield f"### `{kind.__name__}`\n\n{first_sentence(kind)}\n{remedy}\n"
        yield from _messages(found, [kind])


def _of_the_client(found: list[Reason]) -> Iterator[str]:
    yield "## Errors of the Python client\n"
    yield "The server's statuses become these exceptions:\n"
    yield from table(
        ("exception", "status", "cause"),
        (
            (code(kind.__name__), code(kind.default_code), first_sentence(kind))
            for kind in below(client_errors.VisavisError)
        ),
    )
    yield "Some are raised by the client itself, most of them before a call:\n"
    yield from _messages(found, below(client_errors.VisavisError))


def _messages(found: Iterable[Reason], kinds: Iterable[type[Exception]]) -> Iterator[str]:
    """Yield the table of the messages of some kinds of errors; nothing if there are none."""
    names = {kind.__name__ for kind in kinds}
    some = sorted((each.message, each.field) for each in found if each.kind in names)
    if any(field for _, field in some):
        yield from table(("message", "field"), ((code(text), code(at)) for text, at in some))
    elif some:
        yield from table(("message",), ((code(text),) for text, _ in some))


def below(kind: type[Any]) -> Iterator[type[Any]]:
    """Yield the classes below an error that the same module has."""
    for child in kind.__subclasses__():
        if child.__module__ == kind.__module__:
            yield child
            yield from below(child)
