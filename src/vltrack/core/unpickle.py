"""A pickle as plain data and marks. Knows the instructions of pickles; looks up no name and calls nothing.

A pickle is a small program that imports what it names and calls what it likes. Here its instructions are read
one after the other: those that make plain data are carried out, a name becomes a ``Name``, and whatever would
be made by calling one becomes a ``Thing`` that remembers the name and what was passed. Python's own unpickler
is not used at all.
"""

from __future__ import annotations

import pickletools
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

MAX_STEPS = 1_000_000
DAMAGE = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What readers of damaged pickles, and of archives that hold them, raise beside their own errors."""
_PLAIN_KEYS = (str, int, float, bytes, type(None))


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """Where a class or function would have been looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Thing:
    """What a call would have made: ``what`` (usually a ``Name``), its arguments, entries and state."""

    what: object
    arguments: object = ()
    items: dict[Any, Any] = field(default_factory=dict)
    state: object = None

    def is_made_by(self, module: str, name: str) -> bool:
        """Whether it is what this function or class would have given."""
        return isinstance(self.what, Name) and (self.what.module, self.what.name) == (module, name)


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """A reference to something beside the pickle, such as the bytes of a tensor."""

    key: object


def read_pickle(
    file: IO[bytes], *, max_steps: int = MAX_STEPS, names: set[str] | None = None
) -> tuple[Any, list[Outside]]:
    """What one pickle holds, and its references to the outside; ``file`` then stands behind it.

    Dictionaries keep only entries whose key is text, a number, bytes or None; sets come out empty. What would
    have been looked up goes into ``names``, such as "os.system".

    Raises:
        ValueError, LookupError, TypeError, AttributeError: no pickle, a damaged one, one of more than
            ``max_steps`` instructions, or one with instructions that only running programs need.
    """
    machine = _Machine(set() if names is None else names)
    return machine.run(file, max_steps), machine.outside


class _Machine:
    """A stack, the stacks below its marks, and a memory by number."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memory: dict[int, Any] = {}
        self.outside: list[Outside] = []

    def run(self, file: IO[bytes], max_steps: int) -> Any:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if step >= max_steps:
                raise ValueError(f"more than {max_steps} instructions")
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _VALUES:
                self.push(argument)
            elif opcode.name in _FRESH:
                self.push(_FRESH[opcode.name]())
            elif opcode.name not in _NOTHING:
                _ACTIONS[opcode.name](self, argument)
        raise ValueError("no end")

    def push(self, value: Any) -> None:
        # Not a bound method of the list: a value may come from a call that changes which list it is.
        self.stack.append(value)

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def take(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise LookupError("too few values")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.drop(None)

    def drop(self, _: Any) -> None:
        self.since_mark()

    def store(self, number: int | None) -> None:
        self.memory[len(self.memory) if number is None else number] = self.stack[-1]

    def fetch(self, number: int) -> None:
        self.push(self.memory[number])

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def enter(self, items: list[Any]) -> None:
        owner = self.stack[-1]
        entries = owner.items if isinstance(owner, Thing) else owner
        entries.update(_pairs(items))

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push(Name(module, name))
        self.names.add(f"{module}.{name}")

    def stack_name(self, _: Any) -> None:
        module, name = self.take(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            # Not turned into text: that of a tuple of tuples of tuples ... can end a process.
            raise TypeError("a name that is no text")
        self.name(f"{module} {name}")

    def call(self, _: Any) -> None:
        what, arguments = self.take(2)
        self.push(Thing(what, arguments))

    def call_with_names(self, _: Any) -> None:
        what, arguments, _named = self.take(3)
        self.push(Thing(what, arguments))

    def call_since_mark(self, _: Any) -> None:
        what, *arguments = self.since_mark()
        self.push(Thing(what, tuple(arguments)))

    def call_named_since_mark(self, argument: str) -> None:
        arguments = tuple(self.since_mark())
        self.name(argument)
        self.push(Thing(self.stack.pop(), arguments))

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Thing):
            self.stack[-1].state = state

    def refer(self, key: object) -> None:
        self.outside.append(Outside(key))
        self.push(self.outside[-1])


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Other keys are left out: working out the hash of a tuple of tuples of tuples ... can end a process."""
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if isinstance(key, _PLAIN_KEYS)}


_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Thing("set"),
}
_NOTHING = frozenset(("PROTO", "FRAME"))
# Not here, and so refused with a LookupError: numbers for names that a program registered, and bytes passed
# beside the pickle.
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.drop,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "PUT": _Machine.store,
    "BINPUT": _Machine.store,
    "LONG_BINPUT": _Machine.store,
    "MEMOIZE": _Machine.store,
    "GET": _Machine.fetch,
    "BINGET": _Machine.fetch,
    "LONG_BINGET": _Machine.fetch,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "DICT": lambda machine, _: machine.push(_pairs(machine.since_mark())),
    "SETITEM": lambda machine, _: machine.enter(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.enter(machine.since_mark()),
    "ADDITEMS": _Machine.drop,
    "FROZENSET": lambda machine, _: machine.push(Thing("set", machine.since_mark())),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_names,
    "OBJ": _Machine.call_since_mark,
    "INST": _Machine.call_named_since_mark,
    "BUILD": _Machine.build,
    "PERSID": _Machine.refer,
    "BINPERSID": lambda machine, _: machine.refer(machine.stack.pop()),
}
