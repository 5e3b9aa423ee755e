"""Reads the pickles of CIFAR's batches without unpickling them: the few opcodes of such files are
interpreted here, and every other is refused.

A pickle is a program. An unpickler with a list of allowed names is no protection: numpy's own
constructors, given a forged state, make arrays of objects at addresses of the file's choosing.
Nothing is called here but what stands below: a name is a mere token, an array is built by
numpy.frombuffer from bytes of the file and one of a few number types, and all else is dicts, lists,
tuples, strings and numbers.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class PickleRefused(ValueError):
    """The file is no pickle of plain values and arrays of numbers. str() says why, as a clause."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that the file refers to; never looked up."""

    text: str


@dataclass(slots=True)
class _DType:
    """A type of numbers in the making: its byte order comes later."""

    descr: str

    def made(self) -> np.dtype[Any]:
        return np.dtype(self.descr)


@dataclass(slots=True, eq=False)
class _Array:
    """An array in the making: its content comes later."""

    made: list[Array] = field(default_factory=list)


_NDARRAY: Final = _Name("numpy.ndarray")
_DTYPE: Final = _Name("numpy.dtype")
_ENCODE: Final = _Name("_codecs.encode")
_RECONSTRUCT, _SCALAR, _FROMBUFFER = (
    {_Name(f"numpy.{core}.{name}") for core in ("core", "_core")}
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
)
_NAMES: Final = {_NDARRAY, _DTYPE, _ENCODE} | _RECONSTRUCT | _SCALAR | _FROMBUFFER
"""All that a pickle of arrays refers to, as numpy 1 and numpy 2 write it."""

_NUMBERS: Final = re.compile(r"[<>|=]?[biuf][1248]")

_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUSHED: Final = (
    *(
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
    ),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
"""Opcodes whose argument is the value."""

_MARK: Final = object()
_MOST_AXES: Final = 4


def read_pickle(content: bytes) -> Any:
    """Reads the value in a pickle of dicts, lists, tuples, strings, numbers and numpy arrays of
    numbers (protocols 2 to 5; Python 2's strings as latin-1).

    Raises:
        PickleRefused: it holds anything else, or is damaged.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                return _finished(machine.pop())
            machine.step(opcode.name, argument)
    except PickleRefused:
        raise
    except Exception as error:  # a damaged pickle can fail anywhere
        raise PickleRefused(f"it is damaged: {type(error).__name__}: {error}") from None
    raise PickleRefused("it is cut short")


class _Machine:
    """The stack and the memo of a pickle that is being read."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleRefused("its stack is empty where a value is wanted")
        return self._stack.pop()

    def _pop(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def _to_mark(self) -> list[Any]:
        values: list[Any] = []
        while self._stack:
            value = self._stack.pop()
            if value is _MARK:
                return values[::-1]
            values.append(value)
        raise PickleRefused("it has no mark where one is wanted")

    def step(self, name: str, argument: Any) -> None:
        """Does what the opcode says."""
        if name in _PUSHED:
            self._stack.append(argument)
            return
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
            return
        match name:
            case "PROTO" | "FRAME":
                pass
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "BINGET" | "LONG_BINGET":
                self._stack.append(self._memo[argument])
            case "MARK":
                self._stack.append(_MARK)
            case "POP":
                self._stack.pop()
            case "EMPTY_DICT":
                self._stack.append({})
            case "EMPTY_LIST":
                self._stack.append([])
            case "APPEND":
                self._append(self._pop(1))
            case "APPENDS":
                self._append(self._to_mark())
            case "SETITEM":
                self._set(self._pop(2))
            case "SETITEMS":
                self._set(self._to_mark())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._stack.append(tuple(self._pop(int(name[-1]))))
            case "TUPLE":
                self._stack.append(tuple(self._to_mark()))
            case "GLOBAL":
                self._refer(*str(argument).split(" ", 1))
            case "STACK_GLOBAL":
                self._refer(*self._pop(2))
            case "REDUCE":
                function, arguments = self._pop(2)
                self._stack.append(_made(function, arguments))
            case "BUILD":
                state = self.pop()
                _complete(self._top(), state)
            case _:
                raise PickleRefused(f"it uses the opcode {name}, which no CIFAR batch does")

    def _top(self) -> Any:
        value = self.pop()
        self._stack.append(value)
        return value

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise PickleRefused(f"it appends to {_kind(target)}")
        target.extend(values)

    def _set(self, pairs: list[Any]) -> None:
        target, keys = self._top(), pairs[::2]
        if type(target) is not dict or len(pairs) % 2 or any(type(key) is not str for key in keys):
            raise PickleRefused(
                f"it sets items of {_kind(target)}, with keys that are not all text"
            )
        target.update(zip(keys, pairs[1::2], strict=True))

    def _refer(self, module: Any, name: Any) -> None:
        name_ = _Name(f"{module}.{name}")
        if name_ not in _NAMES:
            raise PickleRefused(f"it refers to {name_.text[:100]}, which no CIFAR batch does")
        self._stack.append(name_)


def _made(function: Any, arguments: Any) -> Any:
    """What stands for the value of a call."""
    if isinstance(function, _Name) and type(arguments) is tuple:
        if function in _RECONSTRUCT and len(arguments) == 3 and arguments[0] == _NDARRAY:
            return _Array()
        if function == _DTYPE and arguments and type(arguments[0]) is str:
            if not _NUMBERS.fullmatch(arguments[0]):
                raise PickleRefused(
                    f"it holds an array of {arguments[0][:40]!r}, and a CIFAR batch holds numbers"
                    " only"
                )
            return _DType(arguments[0])
        if (
            function == _ENCODE
            and len(arguments) == 2
            and type(arguments[0]) is str
            and arguments[1] == "latin1"
        ):
            return arguments[0].encode("latin-1")
        if function in _SCALAR and len(arguments) == 2 and isinstance(arguments[0], _DType):
            return _numbers(arguments[1], arguments[0], (), "C")[()]
        if function in _FROMBUFFER and len(arguments) == 4 and isinstance(arguments[1], _DType):
            return _Array([_numbers(arguments[0], arguments[1], arguments[2], arguments[3])])
    raise PickleRefused(
        f"it calls {function.text if isinstance(function, _Name) else _kind(function)} in a way"
        " that no CIFAR batch does"
    )


def _complete(target: Any, state: Any) -> None:
    """Gives an array its content, or a type its byte order. Flags and fields that a state has
    besides are left unread.
    """
    match target, state:
        case _DType(), (int(), ("<" | ">" | "|" | "=") as order, *_):
            if order != "|":
                target.descr = order + target.descr.lstrip("<>|=")
        case _Array(), (
            int(),
            tuple() as shape,
            _DType() as dtype,
            bool() | int() as fortran,
            content,
        ):
            target.made[:] = [_numbers(content, dtype, shape, "F" if fortran else "C")]
        case _:
            raise PickleRefused(f"it gives {_kind(target)} a state that no CIFAR batch does")


def _numbers(content: Any, dtype: _DType, shape: Any, order: Any) -> Array:
    """The array of that shape over the bytes of `content`."""
    if type(content) is str:
        content = content.encode("latin-1")
    fits = (
        type(shape) is tuple
        and len(shape) <= _MOST_AXES
        and all(type(n) is int and n >= 0 for n in shape)
    )
    if not isinstance(content, (bytes, bytearray)) or not fits or order not in ("C", "F"):
        raise PickleRefused("it holds an array without bytes, shape or order")
    size = dtype.made().itemsize
    for n in shape:
        size *= n
    if size != len(content):
        raise PickleRefused(
            f"it holds an array of {len(content)} bytes where its shape {list(shape)[:8]} takes"
            f" {size}"
        )
    return np.frombuffer(content, dtype.made()).reshape(shape, order=order)


def _kind(value: Any) -> str:
    return type(value).__name__.strip("_").lower()


def _finished(value: Any) -> Any:
    """The value with its arrays in place; of containers only a dict's own values are looked at, for
    a batch has no others.
    """
    if type(value) is dict:
        return {key: _finished_array(item) for key, item in value.items()}
    return _finished_array(value)


def _finished_array(value: Any) -> Any:
    if not isinstance(value, _Array):
        return value
    if not value.made:
        raise PickleRefused("it holds an array without content")
    return value.made[0]
