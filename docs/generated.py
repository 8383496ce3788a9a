"""Writes the reference pages that are made from the code: nothing in them is written by hand."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import error_page
import library_pages
from google.protobuf import descriptor_pb2
from page_parts import code, table
from typer.main import get_command
from visavis.commands import app
from visavis.commands.failures import EXIT_CODES

from visavis_server.__main__ import FLAGS
from visavis_server.api.metrics.prometheus import Metrics
from visavis_server.card import ModelDocument
from visavis_server.runtime.budget import Budget
from visavis_server.runtime.scheduling.scheduler import Scheduler
from visavis_server.settings import Settings, default_text

_ROOT: Final = Path(__file__).parents[1]
_NOTE: Final = "<!-- Written by docs/generated.py; do not edit. -->\n\n"


def write(folder: Path) -> None:
    """Write all generated pages into the folder of the documentation."""
    pages = {
        "settings": _settings(),
        "commands": _commands(),
        "contract": _contract(),
        "errors": error_page.lines(),
        "exit-codes": _exit_codes(),
        "metrics": _metrics(),
        "model-document": _model_document(),
    }
    for name, lines in pages.items():
        _write(folder / "reference" / f"{name}.md", "\n".join(lines))
    for name, text in library_pages.pages():
        _write(folder / "libraries" / f"{name}.md", text)


def _write(page: Path, text: str) -> None:
    text = _NOTE + text.rstrip() + "\n"
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text("utf-8") != text:  # Sphinx rebuilds what changed
        page.write_text(text, "utf-8")


def _settings() -> Iterator[str]:
    yield "# Settings\n"
    yield (
        "A setting is a flag of `visavis serve` (`--device cpu`), an environment variable "
        '(`VISAVIS_DEVICE=cpu`) or a line in `visavis.toml` (`device = "cpu"`).\n'
        "A flag overrides the environment, which overrides the file.\n"
        "In the environment, commas separate the elements of a list, and an empty variable counts "
        "as unset.\n"
        "`--config FILE` names another settings file.\n"
    )
    for name, field in Settings.model_fields.items():
        flag = f"`--{name.replace('_', '-')}`" if name in FLAGS else "no flag"
        default = f"default `{text}`" if (text := default_text(name)) else "unset by default"
        yield f"## `{name}`\n\n{field.description}\n"
        yield f"{flag} · `VISAVIS_{name.upper()}` · {default}\n"


def _commands() -> Iterator[str]:
    yield "# Commands\n"
    yield "The output of `--help`, for every command.\n"
    group: Any = get_command(app)
    for name in ("", *group.commands):
        yield f"## `visavis {name}`\n" if name else "## `visavis`\n"
        yield f"```text\n{_help(name)}\n```\n"


def _help(command: str) -> str:
    """Return a command's help, 100 columns wide."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "visavis", *filter(None, [command]), "--help"],
        env={"COLUMNS": "100", "TERM": "dumb", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
        text=True,
    )
    lines = (line.rstrip() for line in done.stdout.strip("\n").splitlines())
    return "\n".join(lines).strip("\n")


def _contract() -> Iterator[str]:
    """Yield the reference of vision.proto, from its comments."""
    yield "# Contract\n"
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.binpb")
        subprocess.run(
            [Path(sys.executable).with_name("buf"), "build", _ROOT / "protos", "-o", image],
            check=True,
        )
        files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file
    (file,) = (each for each in files if each.name == "visavis/v1/vision.proto")
    comments = {
        tuple(place.path): place.leading_comments.strip()
        for place in file.source_code_info.location
    }
    yield _prose(comments.get((12,), "")) + "\n"
    for number, service in enumerate(file.service):
        yield f"## {service.name}\n\n{_prose(comments[6, number])}\n"
        yield from table(
            ("method", "takes", "returns", "meaning"),
            (
                (
                    f"`{method.name}`",
                    _linked(method.input_type),
                    ("stream of " if method.server_streaming else "") + _linked(method.output_type),
                    _prose(comments[6, number, 2, place]),
                )
                for place, method in enumerate(service.method)
            ),
        )
    for number, message in enumerate(file.message_type):
        yield f"## {message.name}\n\n{_prose(comments[4, number])}\n"
        if message.field:
            maps = {nested.name: nested for nested in message.nested_type}
            yield from table(
                ("field", "type", "meaning"),
                (
                    (f"`{field.name}`", _type(field, maps), _prose(comments[4, number, 2, place]))
                    for place, field in enumerate(message.field)
                ),
            )
    for number, enum in enumerate(file.enum_type):
        yield f"## {enum.name}\n\n{_prose(comments[5, number])}\n"
        yield from table(
            ("value", "meaning"),
            (
                (f"`{value.name}`", _prose(comments.get((5, number, 2, place), "")))
                for place, value in enumerate(enum.value)
            ),
        )


def _prose(comment: str) -> str:
    return " ".join(comment.split())


def _linked(name: str) -> str:
    short = name.rpartition(".")[2]
    return f"[{short}](#{short.lower()})"


def _type(field: descriptor_pb2.FieldDescriptorProto, maps: Any) -> str:
    kinds = descriptor_pb2.FieldDescriptorProto
    repeated = field.label == kinds.LABEL_REPEATED
    short = field.type_name.rpartition(".")[2]
    if short in maps:
        key, value = (_type(each, {}) for each in maps[short].field)
        return f"map of {key} to {value}"
    name = _linked(short) if short else f"`{kinds.Type.Name(field.type)[5:].lower()}`"
    optional = "optional " if field.proto3_optional else ""
    return f"{'repeated ' if repeated else optional}{name}"


def _exit_codes() -> Iterator[str]:
    yield "# Exit codes\n"
    yield from table(
        ("code", "meaning"), ((f"`{code}`", text) for code, text in EXIT_CODES.items())
    )
    yield (
        "`serve`, `export`, `tune` and `token` exit with 0 on success, 1 on failure and 2 for "
        "invalid arguments or settings.\n"
        "`pull` exits with 0 if everything is here, 1 if a model was refused or the source denies "
        "access, 2 for invalid arguments or a missing library, 3 if the source does not answer, "
        "and 4 after `--timeout`.\n"
        "`visavis compare FOLDER` exits with 0 if every limit is kept or cannot be told, 1 if one "
        "is broken, and 2 if the comparison could not be made.\n"
    )


def _metrics() -> Iterator[str]:
    yield "# Metrics\n"
    yield (
        "`--metrics HOST:PORT` and the HTTP listener's `/metrics` serve these to Prometheus.\n"
        "`--triton-metrics` adds Triton's `nv_inference_*`.\n"
    )
    suffixes = {"counter": "_total", "info": "_info"}
    scheduler = Scheduler(cores=1, queue_size=1)
    try:
        families = list(Metrics(scheduler, Budget(1 << 30)).collect())
    finally:
        scheduler.close()
    yield from table(
        ("metric", "type", "labels", "meaning"),
        (
            (
                code(f"{family.name}{suffixes.get(family.type, '')}"),
                family.type,
                ", ".join(map(code, getattr(family, "_labelnames", ()))),
                family.documentation,
            )
            for family in families
        ),
    )


def _model_document() -> Iterator[str]:
    yield "# Model document\n"
    yield (
        "Every exported file carries this JSON document, under the key `visavis` of its ONNX "
        "metadata.\n"
        "For a file that another program exported, the same document may stand beside it, as "
        "`model.json`.\n"
    )
    schema = ModelDocument.model_json_schema()
    parts = {"ModelDocument": schema, **schema.get("$defs", {})}
    for name, part in parts.items():
        if "properties" not in part:  # an enumeration: its fields list the values
            continue
        yield f"## {name}\n\n{_prose(part.get('description', ''))}\n"
        required = set(part.get("required", ()))
        yield from table(
            ("field", "type", "required"),
            (
                (f"`{field}`", _kind(about, parts), "yes" if field in required else "no")
                for field, about in part["properties"].items()
            ),
        )


def _kind(about: Any, parts: Any) -> str:
    """Return a JSON schema's type in words."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return (
            f"[{name}](#{name.lower()})"
            if "properties" in parts[name]
            else _kind(parts[name], parts)
        )
    for key in ("anyOf", "oneOf"):
        if key in about:
            return " or ".join(_kind(each, parts) for each in about[key])
    if "const" in about or "enum" in about:
        values = about.get("enum", [about.get("const")])
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    if about.get("type") == "array" and "items" in about:
        return f"list of {_kind(about['items'], parts)}"
    kind = about.get("type", "any")
    bounds = [
        f"{word} {about[key]:g}"
        for key, word in (("minimum", "at least"), ("maximum", "at most"))
        if key in about
    ]
    return re.sub(" +", " ", " ".join([f"{kind}", *bounds]))
