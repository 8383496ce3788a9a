"""Reads pickles into an inert tree: nothing is imported, called or evaluated.

A pickle is a program for a small stack machine. Python's machine imports and calls the functions
that the program names. This one only builds containers: a class or function stays a name, and an
object stays a record of its class, arguments and state.
"""

import pickletools
import re
from dataclasses import dataclass, field
from typing import IO, Any

import torch

from visavis_export.errors import CheckpointError, UnsafeCheckpoint

# YOLOv5x6 takes about 100,000.
MAX_INSTRUCTIONS = 1_000_000
# Parts visited by walking an object; a shared part counts each time it is reached.
MAX_PARTS = 500_000
MAX_DEPTH = 60
# torch's magic number takes ten.
_MAX_NUMBER_BYTES = 16
_MAX_RANK = 8
_MAX_NAME_LENGTH = 200
# Of a list of numbers, such as the sides of a kernel.
_MOST_SHOWN = 4

DTYPES = {
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float": torch.float32,
    "Double": torch.float64,
}
# Classes and functions that checkpoints of these families, and of common training libraries, name.
# They are never imported; a file that names others was made for another purpose and is refused.
_EXPECTED = re.compile(
    r"(__main__|argparse|collections|datetime|enum|models|numpy|pathlib|torchvision|ultralytics"
    r"|utils|torch\.(nn|optim|amp|cuda\.amp|distributed)|easydict|lightning|omegaconf"
    r"|pytorch_lightning|timm|yolov6)\.[\w.]+|types\.SimpleNamespace|_codecs\.encode"
    r"|builtins\.(bytearray|complex|dict|frozenset|getattr|int|list|object|range|set|slice)"
    r"|torch\.(Size|device|Tensor|storage\.UntypedStorage|serialization\._get_layout)"
    r"|torch\.torch_version\.TorchVersion|torch\.\w+Storage"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.(float|double|half|bfloat16|q?u?int|long|short|bool|complex)\d*(_e\dm\d\w*)?"
    r"|torch\.per_(tensor|channel)_(affine|symmetric)\w*"
)
_CONTAINERS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
_KEYS = str | int | float | bytes | None


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle names, such as `models.yolo.Model`; not imported."""

    path: str


@dataclass(eq=False, slots=True)
class Inert:
    """An object whose class was not imported.

    class_path: module and name of the class, such as `models.yolo.Model`.
    args: the constructor's arguments. state: the argument of `__setstate__`, or the `__dict__`.
    """

    class_path: str
    args: tuple[object, ...] = ()
    state: Any = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Storage:
    """The numbers behind tensors, which are views of it. data: their bytes, filled in later."""

    dtype: torch.dtype
    elements: int
    data: bytearray = field(default_factory=bytearray)

    @property
    def size_bytes(self) -> int:
        """The size of all elements in bytes."""
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True, eq=False, slots=True)
class StoredTensor:
    """A view of a storage as the file describes it; allocates nothing until `tensor` is called."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements in the view's shape."""
        product = 1
        for side in self.shape:
            product *= side
        return product

    def tensor(self) -> torch.Tensor:
        """Return the view; raises CheckpointError if it has more elements than its storage."""
        reach = sum((side - 1) * step for side, step in zip(self.shape, self.stride, strict=True))
        end = self.offset + reach + 1 if self.elements else 0
        if max(end, self.elements) > self.storage.elements:
            raise CheckpointError(
                f"a tensor of shape {list(self.shape)} reaches beyond the {self.storage.elements} "
                "elements of its storage; the file is damaged or forged"
            )
        if not self.elements:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        flat = torch.frombuffer(self.storage.data, dtype=self.storage.dtype)
        return flat.as_strided(self.shape, self.stride, self.offset)


@dataclass(frozen=True, slots=True)
class Pickled:
    """A pickle's content. storages: the storages of its tensors, by key."""

    content: Any
    storages: dict[str, Storage]


def read_pickle(file: IO[bytes]) -> Pickled:
    """Return a pickle's content; stops reading at the pickle's end.

    Raises UnsafeCheckpoint for names and instructions that no checkpoint needs, and ValueError or
    another of `archive`'s `_MALFORMED` errors for malformed input.
    """
    machine = _Machine()
    return Pickled(machine.run(file), machine.storages)


def check_extent(stored: object, title: str) -> None:
    """Raise CheckpointError, naming the object by its title, unless walking it is bounded.

    A few instructions can make a list that holds itself, or forty lists that each hold the next
    one twice: small in memory, but endless to walk.
    """
    extents: dict[int, tuple[int, int] | None] = {}  # parts and depth; None: in progress
    todo: list[tuple[object, bool]] = [(stored, False)]
    while todo:
        part, walked = todo.pop()
        below = _parts(part)
        if walked:
            known = [extents[id(one)] or (1, 1) for one in below if id(one) in extents]
            parts = 1 + len(below) - len(known) + sum(count for count, _ in known)
            depth = 1 + max((depth for _, depth in known), default=0)
            if parts > MAX_PARTS or depth > MAX_DEPTH:
                raise CheckpointError(
                    f"{title} has over {MAX_PARTS} parts or is over {MAX_DEPTH} levels deep; "
                    "no network needs that, so the file was made to exhaust its reader"
                )
            extents[id(part)] = parts, depth
        elif id(part) not in extents:
            extents[id(part)] = None
            todo.append((part, True))
            for one in below:
                if isinstance(one, dict | list | tuple | Inert):
                    if id(one) in extents and extents[id(one)] is None:
                        raise CheckpointError(f"{title} contains itself, as no network does")
                    todo.append((one, False))


def shown(value: object, length: int = 60) -> str:
    """Return an untrusted value in printable form: shortened, control characters escaped."""
    if isinstance(value, Inert):
        return f"a {value.class_path}"
    if isinstance(value, dict):
        keys = ", ".join(shown(key, length) for key in list(value)[:8])
        return f"a dict of {keys}"[: 2 * length]
    if isinstance(value, list | tuple) and len(value) <= _MOST_SHOWN and all(map(_natural, value)):
        return repr(value)
    if not isinstance(value, str):
        plain = value is None or isinstance(value, bool | int | float)
        return repr(value) if plain else f"a {type(value).__name__}"
    text = value[: length + 1]
    if not text.isprintable():
        text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= length else f"{text[:length]}…"


def _parts(part: object) -> list[object]:
    if isinstance(part, dict):
        return list(part.values())
    if isinstance(part, list | tuple):
        return list(part)
    return [part.args, part.state] if isinstance(part, Inert) else []


class _Machine:
    """The stack machine: a stack, the positions of marks on it, and the memo of shared objects."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._left = MAX_INSTRUCTIONS

    def run(self, file: IO[bytes]) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            self._spend(1)
            if opcode.name == "STOP":
                return self._pop()
            self._step(opcode.name, argument)
        raise ValueError("the pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        push, pop = self._stack.append, self._pop
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._marks.append(len(self._stack))
            case "NONE":
                push(None)
            case "NEWTRUE" | "NEWFALSE":
                push(name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "BINFLOAT":
                push(argument)
            case "LONG1":
                if argument.bit_length() > 8 * _MAX_NUMBER_BYTES:
                    raise ValueError("a number is too long")
                push(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                push(argument)
            case "SHORT_BINSTRING" | "BINSTRING" | "SHORT_BINBYTES" | "BINBYTES":
                push(argument)
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self._memo[argument])
            case "GLOBAL":
                push(_name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                last, module = pop(), pop()
                push(_name(module, last))
            case "BINPERSID":
                push(self._storage(pop()))
            case _:
                self._build(name)

    def _build(self, name: str) -> None:
        """Run an instruction that builds a container or an object from the stack."""
        push, pop = self._stack.append, self._pop
        match name:
            case "EMPTY_DICT":
                push({})
            case "EMPTY_LIST" | "EMPTY_SET":
                push([])
            case "EMPTY_TUPLE":
                push(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(reversed([pop() for _ in range(int(name[-1]))])))
            case "TUPLE" | "FROZENSET":
                push(tuple(self._since_mark()))
            case "LIST":
                push(self._since_mark())
            case "DICT":
                push({})
                self._set_items(self._since_mark())
            case "APPEND":
                self._extend([pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._since_mark())
            case "SETITEM":
                value, key = pop(), pop()
                self._set_items([key, value])
            case "SETITEMS":
                self._set_items(self._since_mark())
            case "REDUCE" | "NEWOBJ":
                arguments, called = pop(), pop()
                push(self._made(called, arguments))
            case "BUILD":
                state, built = pop(), self._stack[-1]
                if isinstance(built, Inert):
                    built.state = state
                elif not isinstance(built, dict | StoredTensor):  # their attributes are ignored
                    raise ValueError("a state for an object without one")
            case _:
                raise UnsafeCheckpoint(f"it uses the instruction {name}")

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise CheckpointError(
                f"its pickle has over {MAX_INSTRUCTIONS} instructions; no network needs that many"
            )

    def _pop(self) -> Any:
        if self._marks and self._marks[-1] == len(self._stack):
            raise ValueError("a mark is in the way")
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)
        elif not isinstance(self._stack[-1], Inert):
            raise ValueError("items for something that is not a list")

    def _set_items(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self._stack[-1].update({_key(key): value for key, value in pairs})
        elif not isinstance(self._stack[-1], Inert):
            raise ValueError("items for something that is not a dict")

    def _made(self, called: object, arguments: object) -> Any:
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is not a function")
        match called.path:
            case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2":
                return _tensor(*arguments[:4])
            case (
                "torch._utils._rebuild_parameter"
                | "torch._utils._rebuild_parameter_with_state"
                | "torch.nn.parameter.Parameter"
            ):
                return arguments[0] if arguments else Inert(called.path)
            case "torch._tensor._rebuild_from_type_v2":
                return self._made(arguments[0], arguments[2])
            case "builtins.getattr":
                # `fuse` replaces a convolution's `forward` by its method `forward_fuse`.
                if arguments[1:] != ("forward_fuse",) or not isinstance(arguments[0], Inert):
                    raise UnsafeCheckpoint("it names builtins.getattr")
                return Name("forward_fuse")
            case "torch.Size" | "builtins.set" | "builtins.frozenset":
                return arguments[0] if arguments and isinstance(arguments[0], list | tuple) else ()
            case path if path in _CONTAINERS:
                pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
                self._spend(len(pairs))  # The same list may be used many times.
                return {_key(key): value for key, value in pairs}
        return Inert(called.path, arguments)

    def _storage(self, persistent_id: object) -> Storage:
        if not isinstance(persistent_id, tuple):
            raise ValueError("a persistent id that is not a storage")
        kind, called, key, _, elements = persistent_id[:5]
        path = called.path if isinstance(called, Name) else ""
        dtype = re.fullmatch(r"torch\.(\w+)Storage", path)
        if kind != "storage" or not isinstance(key, str) or not _natural(elements):
            raise ValueError("a persistent id that is not a storage")
        if not dtype or dtype[1] not in DTYPES:
            raise CheckpointError(
                f"it stores numbers of type {path or 'unknown'}, and supported are "
                f"{', '.join(DTYPES)}; save the weights as they were before they were quantised or "
                "converted"
            )
        storage = Storage(DTYPES[dtype[1]], elements)
        known = self.storages.setdefault(key, storage)
        if (known.dtype, known.elements) != (storage.dtype, storage.elements):
            raise ValueError("a storage with two sizes")
        return known


def _name(module: object, name: object) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name that is not text")
    module = "builtins" if module == "__builtin__" else module  # Python 2's name for it
    path = f"{module}.{name}"
    if len(path) > _MAX_NAME_LENGTH or not _EXPECTED.fullmatch(path):
        raise UnsafeCheckpoint(f"it names {shown(path, _MAX_NAME_LENGTH)}")
    return Name(path)


def _key(key: object) -> Any:
    # Deeply nested tuples would overflow the C stack when hashed.
    return key if isinstance(key, _KEYS) else Inert("builtins.object", (key,))


def _natural(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 48


def _tensor(storage: object, offset: object, shape: object, stride: object) -> StoredTensor:
    if not (
        isinstance(storage, Storage)
        and isinstance(shape, tuple)
        and isinstance(stride, tuple)
        and len(shape) == len(stride) <= _MAX_RANK
        and all(map(_natural, (offset, *shape, *stride)))
    ):
        raise ValueError("a malformed tensor")
    assert isinstance(offset, int)
    return StoredTensor(storage, offset, shape, stride)
