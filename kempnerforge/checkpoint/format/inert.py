"""Reads a pickle as plain data: looks up no class, calls no function, builds no object.

It supports only the instructions that DCP's ``.metadata`` consists of, and accepts only the names
that the package's own loader allows; anything else is refused by name. A class becomes its name,
and an object becomes a :class:`Stub` with the arguments and the state that it would have received.

Not built on :class:`pickle.Unpickler`, even though its lookups can be disabled: it allocates memory
by sizes that the file states and hashes keys that the file supplies, both without bound.
"""

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kempnerforge.checkpoint.errors import CorruptCheckpointError, UnsafeCheckpointError

__all__ = ["ALLOWED_NAMES", "PATHLIB", "Name", "Stub", "read_inert"]

_DCP = "torch.distributed.checkpoint"
# Stock DCP records its directory as a path, which Python 3.13 pickles under the second name; 3.11
# and 3.12 do not have that name.
PATHLIB = ("pathlib", "pathlib._local")
ALLOWED_NAMES = frozenset(
    {
        (f"{_DCP}.metadata", "Metadata"),
        (f"{_DCP}.metadata", "MetadataIndex"),
        (f"{_DCP}.metadata", "TensorStorageMetadata"),
        (f"{_DCP}.metadata", "BytesStorageMetadata"),
        (f"{_DCP}.metadata", "ChunkStorageMetadata"),
        (f"{_DCP}.metadata", "TensorProperties"),
        (f"{_DCP}.metadata", "StorageMeta"),
        (f"{_DCP}.metadata", "_MEM_FORMAT_ENCODING"),
        (f"{_DCP}.filesystem", "_StorageInfo"),
        ("torch", "Size"),
        ("torch.serialization", "_get_layout"),
        ("collections", "OrderedDict"),
        *((module, name) for module in PATHLIB for name in ("PosixPath", "PurePosixPath")),
    }
)
# The names that the loader accepts from the module torch: dtypes and memory formats.
_TORCH_VALUES: Final = re.compile(
    r"bool|(?:q?u?int|b?float|complex|bits)[0-9][a-z0-9_]*"
    r"|contiguous_format|channels_last(?:_3d)?|preserve_format",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Name:
    """A class or a function that the pickle refers to."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Stub:
    """A stand-in for an object that was not built. Compared and hashed by identity."""

    of: Name
    args: tuple[Any, ...]
    state: Any = None

    def field(self, name: str) -> Any:
        """Returns an attribute from the object's state, or None."""
        return self.state.get(name) if isinstance(self.state, dict) else None


def read_inert(data: bytes, *, where: str) -> Any:
    """Returns the value that ``data`` describes, made of plain values, names and stubs.

    Raises:
        UnsafeCheckpointError: It asks for something that does not belong in ``.metadata``.
        CorruptCheckpointError: It is not a pickle.
    """
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(data):
            machine.run(operation.name, argument)
        return machine.result()
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"{where}: refused: {error}", path=where) from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise CorruptCheckpointError(f"{where}: cannot be read: {error}", path=where) from error


_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS: Final = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    }
)
_EMPTY: Final[dict[str, Callable[[], Any]]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS: Final = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS: Final = frozenset(("GET", "BINGET", "LONG_BINGET"))
_SILENT: Final = frozenset(("PROTO", "FRAME", "STOP"))


class _Machine:
    """A pickle's stack machine over inert values."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        (value,) = self._stack
        return value

    def run(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(self._last(_TUPLES[name]))]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _PUTS:
            self._memo[int(argument)] = stack[-1]
        elif name in _GETS:
            stack.append(self._memo[int(argument)])
        elif name not in _SILENT:
            self._build(name, argument)

    def _build(self, name: str, argument: Any) -> None:
        build = _BUILDERS.get(name)
        if build is None:
            raise UnsafeCheckpointError(f"its instruction {name} does not belong in metadata")
        build(self, argument)

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("it pops more values than it has pushed")
        return self._stack[-count:]

    def _above_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._above_mark()))

    def append(self, _: Any) -> None:
        value = self._stack.pop()
        self._list().append(value)

    def appends(self, _: Any) -> None:
        values = self._above_mark()
        self._list().extend(values)

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self, _: Any) -> None:
        self._set(self._above_mark())

    def _list(self) -> list[Any]:
        found = self._stack[-1]
        if not isinstance(found, list):
            raise ValueError("it appends to something that is not a list")
        return found

    def _set(self, pairs: list[Any]) -> None:
        found = self._stack[-1]
        if isinstance(found, Stub) and found.of.name == "OrderedDict":
            found.state = {} if found.state is None else found.state
            found = found.state
        if not isinstance(found, dict):
            raise ValueError("it sets an item of something that is not a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int | Stub):
                raise ValueError(f"a dict key is a {type(key).__name__}")
            found[key] = value

    def global_name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(_allowed(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_allowed(module, name))

    def call(self, _: Any) -> None:
        args, of = self._stack.pop(), self._stack.pop()
        if not isinstance(of, Name) or not isinstance(args, tuple):
            raise UnsafeCheckpointError("it calls something that is not a name")
        self._stack.append(Stub(of, args))

    def set_state(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if not isinstance(target, Stub):
            raise ValueError("it sets the state of something that is not an object")
        target.state = state


_BUILDERS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.set_state,
}


def _allowed(module: object, name: object) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name is not text")
    if (module, name) in ALLOWED_NAMES or (module == "torch" and _TORCH_VALUES.fullmatch(name)):
        return Name(module, name)
    raise UnsafeCheckpointError(f"it asks for {module}.{name}, which is not allowed")
