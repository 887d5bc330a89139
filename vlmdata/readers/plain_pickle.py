"""Read pickles that hold only plain values, such as RefCOCO's `refs(unc).p`. Nothing in the file is imported, called or built.

Python's own unpickler runs what a pickle names, so it must not open a stranger's file. This reader is an interpreter of the few
operations that make None, booleans, numbers, texts, lists, tuples, dicts and sets. It refuses every other operation.
"""

from __future__ import annotations

import ast
import io
import pickletools
import re
from collections.abc import Callable, Iterator
from typing import Any

from vlmdata.readers.open_file import Damage

MOST_OPERATIONS = 60_000_000  # RefCOCO has about 5 million; each makes at most a few hundred bytes
_MARK = object()
_QUOTED = re.compile(rb"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")  # the line of a byte string in protocol 0

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_BYTES = {"STRING", "BINSTRING", "SHORT_BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME"}
_OF_CODE = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}


def read_plain(data: bytes) -> Any:
    """Return the value of a pickle of protocol 0 to 5 that holds only plain values. Byte strings of Python 2 become texts.

    Such a string is read as UTF-8, or else as Latin-1. Raises Damage, which names the byte, for a pickle that holds anything
    else, that is cut, or that has more than 60 million operations.
    """
    machine = _Machine()
    count = 0
    try:
        for name, argument, at in _operations(data):
            count += 1
            if count > MOST_OPERATIONS:
                raise Damage(f"the pickle has more than {MOST_OPERATIONS:,} operations")
            if name == "STOP":
                return machine.pop()
            machine.do(name, argument, at)
    except Damage:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, SyntaxError) as error:
        raise Damage(f"the pickle is damaged after {count:,} operations: {error}") from None
    raise Damage("the pickle has no end")


def _operations(data: bytes) -> Iterator[tuple[str, Any, int]]:
    """Yield the name, the argument and the place of each operation. `pickletools.genops` reads no byte string but ASCII."""
    known = {ord(one.code): (one.name, one.arg and one.arg.reader) for one in pickletools.opcodes}
    file = io.BytesIO(data)
    while code := file.read(1):
        at = file.tell() - 1
        if code[0] not in known:
            raise Damage(f"byte {at} is no operation of a pickle")
        name, reader = known[code[0]]
        if name == "STRING":
            yield name, _quoted(file.readline()), at
        else:
            yield name, reader(file) if reader else None, at


def _quoted(line: bytes) -> bytes:
    """Return the bytes in the line of a byte string, which are written as in Python's source code."""
    written = line.strip()
    if not line.endswith(b"\n") or not _QUOTED.fullmatch(written):
        raise Damage("the pickle has a byte string without quotes")
    if b"\\" not in written:
        return written[1:-1]
    found: bytes = ast.literal_eval(f"b{written.decode('ascii')}")
    return found


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}  # a pickle may name any index; a list would need memory up to the largest

    def pop(self) -> Any:
        """Return the top of the stack and remove it. Raises Damage if there is no value."""
        if not self.stack or self.stack[-1] is _MARK:
            raise Damage("the pickle takes a value that it never made")
        return self.stack.pop()

    def do(self, name: str, argument: Any, at: int) -> None:
        """Run one operation, which begins at byte `at`."""
        if name in _NUMBERS or name in _TEXTS:
            self.stack.append(argument)
        elif name in _BYTES:
            self.stack.append(_text(argument))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name not in _IGNORED:
            self._collect(name, argument, at)

    def _collect(self, name: str, argument: Any, at: int) -> None:
        """Run an operation that puts values into a list, tuple, dict or set."""
        if name in ("APPEND", "APPENDS"):
            values = [self.pop()] if name == "APPEND" else self._to_mark()
            _of(list, self.stack[-1]).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            value = self.pop() if name == "SETITEM" else None
            pairs = [self.pop(), value] if name == "SETITEM" else self._to_mark()
            _of(dict, self.stack[-1]).update(_items(pairs))
        elif name == "ADDITEMS":
            values = self._to_mark()
            _of(set, self.stack[-1]).update(map(_key, values))
        elif name in ("LIST", "TUPLE"):
            values = self._to_mark()
            self.stack.append(values if name == "LIST" else tuple(values))
        elif name == "DICT":
            self.stack.append(_items(self._to_mark()))
        elif name in _TUPLES:
            values = [self.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(values)))
        elif name in ("POP", "POP_MARK"):
            self.stack.pop() if name == "POP" else self._to_mark()
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        else:
            what = f"names code ({argument})" if name in _OF_CODE and argument else f"has the operation {name}"
            raise Damage(f"the pickle {what} at byte {at}. Only lists, dicts, texts and numbers are read, and nothing is run")

    def _to_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise Damage(f"the pickle adds to a {type(value).__name__} as if it were a {kind.__name__}")
    return value


def _items(flat: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(flat[::2], flat[1::2], strict=True)}


def _key(value: Any) -> Any:
    """Return a key of a dict. A nested tuple is refused: to hash it could exhaust the stack of the process."""
    if not isinstance(value, str | int | float | None):
        raise Damage(f"the pickle has a {type(value).__name__} as key")
    return value


def _text(value: bytes | str) -> str:
    """Return a byte string as text. `pickletools` gives those of Python 2 as Latin-1."""
    data = value.encode("latin-1") if isinstance(value, str) else value
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
