"""One error tree: every class has its own code and the exit code of its branch, as the fault table's contract
says.
"""

from __future__ import annotations

import pytest

from vltrack.core import errors

EXIT_CODES = {
    "UsageError": 2,
    "InputError": 3,
    "DataError": 4,
    "ModelError": 5,
    "ResourceError": 6,
    "PartialResult": 7,
    "Diverged": 8,
    "StateError": 9,
    "NothingFits": 10,
}


# Only the classes of this module: a floor may refine one of them, its own tests say so.
CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.VltrackError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_code_exit_code_and_docstring(kind) -> None:
    branch = next((base.__name__ for base in kind.__mro__ if base.__name__ in EXIT_CODES), None)
    assert kind.exit_code == EXIT_CODES.get(branch, 1)
    assert kind.code == (kind.__name__ if kind is not errors.VltrackError else "Error")
    assert kind.__doc__


def test_codes_are_unique_and_all_branches_are_there() -> None:
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)
    assert set(EXIT_CODES) <= {kind.code for kind in CLASSES}


def test_message_hint_and_context() -> None:
    error = errors.BoxOutside("outside.", hint="Move it.", box=(1, 2, 3, 4))
    assert (error.message, error.hint, error.context) == ("outside.", "Move it.", {"box": (1, 2, 3, 4)})
    assert str(error) == "outside. Move it."
    assert str(errors.BoxOutside("outside.")) == "outside."
