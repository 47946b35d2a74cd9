"""Read pickles as plain data, in a process that imports and calls nothing that a file names.

A pickle is a small program: it imports what it names and makes any call. Here Python's unpickler gets an inert
``Placeholder`` for every name. Placeholders cannot stop a pickle that takes unbounded time or memory (a tuple
of itself twice, sixty times, used as a key; a number of 2 GiB; a stack that overflows), so
``torch_archive.py`` runs this file under limits: ``python -I -S unpickle.py OBJECTS SECONDS BYTES`` reads the
pickles from standard input and writes one line of JSON to standard output. It imports nothing of vltrack.
"""

import contextlib
import gc
import io
import json
import pickle
import sys

MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of a file of ``torch.save`` from before 2020; four more pickles follow it."""
DEPTH, BITS = 64, 8192
DAMAGE = (
    *(pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(EOFError, MemoryError, RuntimeError, AssertionError),
)
"""Exceptions of Python's readers of pickles and archives for damaged ones."""


class Placeholder:
    """Inert stand-in for anything that a pickle names: keeps its arguments, does nothing."""

    path = ""

    def __new__(cls, *args: object, **_named: object) -> "Placeholder":
        made = object.__new__(cls)
        made.args, made.items, made.state = args, [], None
        return made

    args: tuple[object, ...]
    items: list[tuple[object, object]]
    state: object

    def __call__(self, *args: object) -> "Placeholder":
        return Placeholder(*args)

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.items.append((key, value))

    def append(self, _value: object) -> None:
        """Leave the value out, as ``extend`` and ``add`` do."""

    extend = add = append


class Reference:
    """A persistent id: a reference to something outside the pickle, such as the bytes of a tensor."""

    def __init__(self, key: object) -> None:
        self.key = key


class Unpickler(pickle.Unpickler):
    """Python's unpickler, for which every name is a class of its own derived from ``Placeholder``."""

    def __init__(self, file: io.BytesIO, classes: dict[str, type[Placeholder]]) -> None:
        super().__init__(file, encoding="latin1")
        self._classes = classes

    def find_class(self, module: str, name: str) -> type[Placeholder]:
        """Return the placeholder of ``module.name``. Nothing is looked up."""
        path = f"{module}.{name}"
        if path not in self._classes:
            self._classes[path] = type("Placeholder", (Placeholder,), {"path": path})
        return self._classes[path]

    def persistent_load(self, pid: object) -> Reference:
        """Keep the persistent id."""
        return Reference(pid)


class LimitExceeded(Exception):
    """The data unfolds to more values than allowed."""


class Encoder:
    """Convert unpickled values to JSON values: at most ``most`` of them, none below ``DEPTH`` levels."""

    def __init__(self, most: int) -> None:
        self._left = most

    def encode(self, value: object, depth: int = 0) -> object:
        """Convert a value: tuples become lists, anything that is not plain an object with one of these keys.

        ``{"dict": [[key, value], ...]}``, ``{"name": path}``, ``{"ref": key}``, ``{"type": other}`` and
        ``{"made": path, "args": ..., "items": [[key, value], ...], "state": ...}``.
        """
        self._left -= 1 + (len(value) // 32 if isinstance(value, str) else 0)
        if self._left < 0:
            raise LimitExceeded
        if value is None or isinstance(value, float | str) or (isinstance(value, int) and value.bit_length() < BITS):
            return value
        depth += 1
        if depth > DEPTH:
            return {"type": "deeper"}
        if isinstance(value, list | tuple):
            return [self.encode(each, depth) for each in value]
        if isinstance(value, dict):
            return {"dict": self._pairs(list(value.items()), depth)}
        if isinstance(value, Placeholder):
            made = {"made": value.path, "args": self.encode(value.args, depth)}
            return made | {"items": self._pairs(value.items, depth), "state": self.encode(value.state, depth)}
        if isinstance(value, type) and issubclass(value, Placeholder):
            return {"name": value.path}
        if isinstance(value, Reference):
            return {"ref": self.encode(value.key, depth)}
        return {"type": type(value).__name__}

    def _pairs(self, pairs: list[tuple[object, object]], depth: int) -> list[object]:
        plain = [pair for pair in pairs if type(pair[0]) in (str, int, float, type(None))]
        return [[self.encode(key, depth), self.encode(value, depth)] for key, value in plain]


def read(data: bytes, objects: int) -> dict[str, object]:
    """Return ``pickles``, where they ``end``, the ``names`` in them, and an ``error`` with its ``limit``."""
    classes: dict[str, type[Placeholder]] = {}
    found: dict[str, object] = {"error": "", "limit": False}
    try:
        file = io.BytesIO(data)
        pickles = [Unpickler(file, classes).load()]
        if isinstance(pickles[0], int) and pickles[0] == MAGIC:
            pickles += [Unpickler(file, classes).load() for _ in range(4)]
        encoder = Encoder(objects)
        found |= {"pickles": [encoder.encode(each) for each in pickles], "end": file.tell()}
    except LimitExceeded:
        found |= {"error": "is nested too deeply or has too many entries", "limit": True}
    except MemoryError:
        found |= {"error": "needs more memory than allowed to unpickle", "limit": True}
    except DAMAGE as error:
        found["error"] = f"{type(error).__name__}: {error}"[:200]
    return found | {"names": sorted(classes)}


def main() -> None:
    """Read standard input under the limits of the command line; answer on standard output."""
    objects, seconds, size = map(int, sys.argv[1:])
    with contextlib.suppress(ImportError):  # Windows has no limits; the caller's deadline holds there too
        import resource

        limits = {"RLIMIT_AS": size, "RLIMIT_CPU": seconds, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
        for name, value in limits.items():
            with contextlib.suppress(AttributeError, ValueError, OSError):  # not every system has each
                resource.setrlimit(getattr(resource, name), (value, value))
    gc.disable()
    sys.stdout.write(json.dumps(read(sys.stdin.buffer.read(), objects)))


if __name__ == "__main__":
    main()
