"""Reads the reasons of all errors out of the code that raises them."""

import ast
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

VALUE: Final = "…"
"""Stands for a value that is known only when the error occurs."""

# Variables that hold a part of a message.
_PARTS: Final = frozenset(("why", "advice", "reason", "message"))
# How many assignments and calls are followed to a text.
_DEPTH: Final = 4

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Reason:
    """A message of an error, with VALUE for each value.

    kind: the error's class. field: the path of the field that is wrong; "" if there is none.
    """

    kind: str
    field: str
    message: str


@dataclass(frozen=True, order=True)
class Elsewhere:
    """An error whose message is made elsewhere; code: its expression."""

    file: str
    code: str


Found = tuple[list[Reason], list[Elsewhere]]
"""Both are sorted, without repetitions."""


@dataclass(frozen=True)
class _Place:
    """Where an expression stands; functions: those around it, the innermost last."""

    file: Path
    module: ast.Module
    functions: tuple[_Function, ...] = ()


@dataclass
class _Code:
    """All functions and calls in some files, by name."""

    functions: dict[str, list[tuple[_Function, _Place]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    calls: dict[str, list[tuple[ast.Call, _Place]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    imported: dict[tuple[Path, str], str] = field(default_factory=dict)
    modules: dict[Path, ast.Module] = field(default_factory=dict)

    def add(self, file: Path) -> None:
        """Read one more file."""
        module = self.modules[file] = ast.parse(file.read_text("utf-8"))
        self._visit(module, _Place(file, module))

    def _visit(self, node: ast.AST, place: _Place) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.functions[node.name].append((node, place))
                place = replace(place, functions=(*place.functions, node))
            case ast.Call():
                self.calls[_name(node.func)].append((node, place))
            case ast.ImportFrom(module=str(module), names=names):
                for each in names:
                    self.imported[place.file, each.name] = module.rpartition(".")[2]
        for child in ast.iter_child_nodes(node):
            self._visit(child, place)

    def texts(self, expression: ast.expr | None, place: _Place, depth: int = _DEPTH) -> list[str]:
        """Return the texts that an expression may give."""
        match expression:
            case ast.Constant(str(text)):
                return [text]
            case ast.JoinedStr(values):
                return self._joined(values, place, depth)
            case ast.BinOp(left, ast.Add(), right):
                return self._joined([left, right], place, depth)
            case ast.IfExp(body=body, orelse=other):
                return [*self.texts(body, place, depth), *self.texts(other, place, depth)]
            case ast.Name(name) if depth:
                return self._of_name(name, place, depth - 1) or [VALUE]
            case ast.Call(ast.Attribute(ast.Name(name), "get")) if depth:
                return self._of_table(name, place, depth - 1) or [VALUE]
            case ast.Call() if depth:
                return self._of_call(expression, place, depth - 1) or [VALUE]
        return [VALUE]

    def _joined(self, parts: Iterable[ast.expr], place: _Place, depth: int) -> list[str]:
        joined = [""]
        for part in parts:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            is_value = part is not inner and not (
                isinstance(inner, ast.Name) and inner.id in _PARTS
            )
            ends = [VALUE] if is_value else self.texts(inner, place, depth)
            joined = [start + end for start in joined for end in ends]
        return joined

    def _of_name(self, name: str, place: _Place, depth: int) -> list[str]:
        """Return the texts that a variable, a parameter or a constant may have."""
        if not place.functions:
            return self._assigned(name, place.module, place, depth)
        inside = place.functions[-1]
        if found := self._assigned(name, inside, place, depth):
            return found
        parameters = [each.arg for each in (*inside.args.args, *inside.args.kwonlyargs)]
        if name in parameters:
            return self._passed(name, parameters, place, depth)
        return self._of_name(name, replace(place, functions=place.functions[:-1]), depth)

    def _assigned(self, name: str, within: ast.AST, place: _Place, depth: int) -> list[str]:
        found = []
        for node in ast.walk(within):
            match node:
                case ast.Assign([ast.Name(target)], value) if target == name:
                    found += self.texts(value, place, depth)
                case ast.NamedExpr(ast.Name(target), value) if target == name:
                    found += self.texts(value, place, depth)
                case ast.AnnAssign(ast.Name(target), value=value) if target == name and value:
                    found += self.texts(value, place, depth)
        return found

    def _passed(self, name: str, parameters: list[str], to: _Place, depth: int) -> list[str]:
        """Return what callers pass for a parameter of a function."""
        position = parameters.index(name) - (parameters[0] in ("self", "cls"))
        found = []
        for call, place in self.calls[to.functions[-1].name]:
            if not self._reaches(call, place, to):
                continue
            if position < len(call.args):
                found += self.texts(call.args[position], place, depth)
            for keyword in call.keywords:
                if keyword.arg == name:
                    found += self.texts(keyword.value, place, depth)
        return found

    def _reaches(self, call: ast.Call, place: _Place, to: _Place) -> bool:
        """Return True if a call by name calls the function of that name in another place."""
        imported = self.imported.get((place.file, _name(call.func)))
        return isinstance(call.func, ast.Attribute) or to.file in (
            place.file,
            imported and to.file.with_stem(imported),
        )

    def _of_table(self, name: str, place: _Place, depth: int) -> list[str]:
        """Return the values of a dict that is a constant, of this module or an imported one."""
        imported = self.imported.get((place.file, name))
        file = place.file.with_stem(imported) if imported else place.file
        module = self.modules.get(file, place.module)
        found: list[str] = []
        for node in module.body:
            match node:
                case ast.Assign([ast.Name(target)], ast.Dict(values=values)) | ast.AnnAssign(
                    ast.Name(target), value=ast.Dict(values=values)
                ) if target == name:
                    for value in values:
                        found += self.texts(value, _Place(file, module), depth)
        return found

    def _of_call(self, call: ast.Call, caller: _Place, depth: int) -> list[str]:
        """Return what a function of these files returns, if it is known which one is called."""
        called = [
            (function, place)
            for function, place in self.functions.get(_name(call.func), [])
            if self._reaches(call, caller, place)
        ]
        if len(called) != 1:
            return []
        ((function, place),) = called
        inside = replace(place, functions=(*place.functions, function))
        returned = (node for node in ast.walk(function) if isinstance(node, ast.Return))
        return [text for each in returned for text in self.texts(each.value, inside, depth)]


def reasons(
    files: Iterable[Path], kinds: Collection[str], with_field: Collection[str] = ()
) -> Found:
    """Return the reasons of errors in Python files, and the errors that are left out.

    kinds: the names of the errors' classes. with_field: those that take a field before the message.
    """
    code = _Code()
    for file in files:
        code.add(file)
    found: set[Reason] = set()
    elsewhere: set[Elsewhere] = set()
    for kind in kinds:
        for call, place in code.calls[kind]:
            new = set(_of(code, call, place, kind, kind in with_field))
            found |= new
            if call.args and not new:
                elsewhere.add(Elsewhere(place.file.name, ast.unparse(call)))
    return sorted(found), sorted(elsewhere)


def _name(function: ast.expr) -> str:
    match function:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name
    return ""


def _of(code: _Code, call: ast.Call, place: _Place, kind: str, has_field: bool) -> Iterator[Reason]:
    if len(call.args) <= has_field or any(isinstance(each, ast.Starred) for each in call.args):
        return
    fields = [""]
    if has_field:
        given = call.args[0]
        # A field that callers pass differs from call to call.
        fields = [VALUE] if isinstance(given, ast.Name) else code.texts(given, place)
    for text in code.texts(call.args[has_field], place):
        if re.search(r"[A-Za-z]{3}", text):
            yield from (Reason(kind, _shortened(at), _shortened(text)) for at in fields)


def _shortened(text: str) -> str:
    """Return a text on one line, without repeated or quoted values."""
    return re.sub(rf"'?{VALUE}'?(?:, ?{VALUE}|{VALUE})*", VALUE, " ".join(text.split()))
