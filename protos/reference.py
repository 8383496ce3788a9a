"""Prints the contract's reference: a page of HTML, made of vision.proto and its comments.

`make generate` writes it to clients/web/reference.html, beside its style.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2 as pb

PROTOS: Final = Path(__file__).parent
SERVER: Final = "http://127.0.0.1:8000"

_IMAGE: Final = {"encoded": "$(base64 -w0 bus.jpg)"}
# What the page's commands ask for.
_REQUESTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Classify": {"image": _IMAGE, "model": "resnet50", "topK": 3},
    "Detect": {"image": _IMAGE, "model": "yolov5n", "scoreThreshold": 0.4},
    "Compare": {"image": _IMAGE, "tasks": ["TASK_CLASSIFICATION"]},
    "CompareStream": {"image": _IMAGE},
    "ListModels": {},
    "GetModel": {"model": "resnet50"},
}


class Reference:
    """Writes about one file, which must come with its comments; it nests no types but maps."""

    def __init__(self, file: pb.FileDescriptorProto) -> None:
        self._package, self._services = file.package, file.service
        places = _places(file)
        self._comments = comments_of(file)
        types: list[pb.DescriptorProto | pb.EnumDescriptorProto] = [
            *file.message_type,
            *file.enum_type,
        ]
        self._types = sorted(types, key=lambda part: places[part.name].span[0])
        # Of types' names, those that no sentence has by chance.
        known = (part.name for part in types if re.search("[a-z][A-Z]", part.name))
        self._known = re.compile(rf"\b({'|'.join(known)})\b")

    def page(self) -> str:
        """Return the whole page."""
        methods = [f"{service.name}.{m.name}" for service in self._services for m in service.method]
        parts = [*map(self._service, self._services), *map(self._type, self._types)]
        return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{self._package}</title>
<link rel="stylesheet" href="reference.css">
</head>
<body>
<nav>
<p><a href="index.html">visavis</a></p>
{_contents("Methods", methods)}
{_contents("Types", (part.name for part in self._types))}
</nav>
<main>
<h1>{self._package}</h1>
<p>{self._comment("")}</p>
<p>A server that runs with <code>--http</code> takes every method as JSON too: names in camelCase,
bytes in base64, enums by name, 64-bit integers as strings. Answers include zero values. An error
has <code>code</code>, <code>message</code> and <code>details</code>. Methods that take a picture
also take a form: <code>curl -F image=@bus.jpg -F model=yolov5n</code>.
<a href="openapi.json">openapi.json</a> describes both.</p>
{"".join(parts)}\
</main>
</body>
</html>
"""

    def _service(self, service: pb.ServiceDescriptorProto) -> str:
        methods = [self._method(service.name, method) for method in service.method]
        return self._section(service.name, "service", "".join(methods))

    def _method(self, service: str, method: pb.MethodDescriptorProto) -> str:
        name = f"{service}.{method.name}"
        path = f"/{self._package}.{service}/{method.name}"
        stream = "stream of " if method.server_streaming else ""
        return f"""\
<article id="{name}">
<h3><a href="#{name}">{method.name}</a></h3>
<p>{self._comment(name)}</p>
<dl>
<dt>Takes</dt><dd>{_link(method.input_type)}</dd>
<dt>Returns</dt><dd>{stream}{_link(method.output_type)}</dd>
<dt>HTTP</dt><dd><code>POST {path}</code></dd>
</dl>
<pre><code>{escape(_command(method, SERVER + path), quote=False)}</code></pre>
</article>
"""

    def _type(self, part: pb.DescriptorProto | pb.EnumDescriptorProto) -> str:
        if isinstance(part, pb.EnumDescriptorProto):
            rows = [self._row(part.name, value) for value in part.value]
            return self._section(part.name, "enum", _table(("Value", "Meaning"), rows))
        fields = [*self._fields(part)]
        table = _table(("Field", "JSON", "Type", "Meaning"), fields) if fields else ""
        return self._section(part.name, "message", table)

    def _fields(self, message: pb.DescriptorProto) -> Iterator[str]:
        """Yield a row for each field, and before those of a oneof its own."""

        def oneof_of(field: pb.FieldDescriptorProto) -> str:
            chosen = field.HasField("oneof_index") and not field.proto3_optional
            return message.oneof_decl[field.oneof_index].name if chosen else ""

        maps = {nested.name: nested for nested in message.nested_type}
        for oneof, fields in groupby(message.field, oneof_of):
            if oneof:
                name = f"{message.name}.{oneof}"
                yield f"""\
<tr id="{name}"><td colspan="4"><code>oneof {oneof}</code> {self._comment(name)}</td></tr>
"""
            for field in fields:
                yield self._row(message.name, field, field.json_name, _kind(field, maps))

    def _row(
        self, parent: str, part: pb.FieldDescriptorProto | pb.EnumValueDescriptorProto, *cells: str
    ) -> str:
        name = f"{parent}.{part.name}"
        first = f'<a href="#{name}"><code>{part.name}</code></a> <small>{part.number}</small>'
        row = (first, *(f"<code>{cell}</code>" for cell in cells), self._comment(name))
        return f'<tr id="{name}">{"".join(f"<td>{cell}</td>" for cell in row)}</tr>\n'

    def _section(self, name: str, kind: str, body: str) -> str:
        return f"""\
<section id="{name}">
<h2><a href="#{name}">{name}</a> <small>{kind}</small></h2>
<p>{self._comment(name)}</p>
{body}</section>
"""

    def _comment(self, name: str) -> str:
        """Return what a part's comment says, the file's for no name; types in it are linked."""
        text = escape(" ".join(self._comments[name].split()), quote=False)
        return self._known.sub(r'<a href="#\1">\1</a>', re.sub("`(.+?)`", r"<code>\1</code>", text))


def comments_of(file: pb.FileDescriptorProto) -> dict[str, str]:
    """Return the comments of a file's parts by name, as in the page; the file's by no name."""
    return {name: place.leading_comments for name, place in _places(file).items()}


def _places(file: pb.FileDescriptorProto) -> dict[str, Any]:
    return {
        _name(file, place.path): place
        for place in file.source_code_info.location
        if place.leading_comments
    }


def _name(file: pb.FileDescriptorProto, path: Sequence[int]) -> str:
    """Return a part's name in the page; path: fields of descriptors, each with an index."""
    part: Any = file
    names = []
    for number, index in zip(path[::2], path[1::2], strict=False):
        part = getattr(part, part.DESCRIPTOR.fields_by_number[number].name)[index]
        names.append(part.name)
    return ".".join(names)


def _contents(title: str, names: Iterable[str]) -> str:
    items = (f'<li><a href="#{name}">{name.rpartition(".")[2]}</a></li>\n' for name in names)
    return f"<h2>{title}</h2>\n<ul>\n{''.join(items)}</ul>"


def _table(titles: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f"<table>\n<tr>{head}</tr>\n{''.join(rows)}</table>\n"


def _kind(field: pb.FieldDescriptorProto, maps: Mapping[str, pb.DescriptorProto]) -> str:
    """Return a field's type as the contract writes it; maps: those of its message, by name."""
    if entry := maps.get(field.type_name.rpartition(".")[2]):
        return f"map&lt;{', '.join(_kind(part, {}) for part in entry.field)}&gt;"
    scalar = pb.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    kind = _link(field.type_name) if field.type_name else scalar
    if field.label == pb.FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def _link(type_name: str) -> str:
    name = type_name.rpartition(".")[2]
    return f'<a href="#{name}">{name}</a>'


def _command(method: pb.MethodDescriptorProto, url: str) -> str:
    """Return what calls a method from a shell; a stream is framed, which curl doesn't know."""
    tool = "buf curl --schema protos --data" if method.server_streaming else "curl --json"
    request = json.dumps(_REQUESTS[method.name])
    if "$" not in request:
        return f"{tool} '{request}' {url}"
    return f"{tool} @- {url} <<END\n{request}\nEND"


def contract(comments: bool = True) -> pb.FileDescriptorProto:
    """Return the contract as it is now, with its comments."""
    buf = Path(sys.executable).with_name("buf")
    only = (PROTOS, "--path", PROTOS / "visavis/v1/vision.proto", "--exclude-imports")
    more = () if comments else ("--exclude-source-info",)
    command = (buf, "build", *only, *more, "--as-file-descriptor-set", "--output", "-")
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    (file,) = pb.FileDescriptorSet.FromString(built).file
    return file


def main() -> None:
    """Print the page of the contract as it is now."""
    sys.stdout.buffer.write(Reference(contract()).page().encode())


if __name__ == "__main__":
    main()
