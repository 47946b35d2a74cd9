"""The mode of a target follows from what is given."""

from __future__ import annotations

import pytest

from vltrack.core.types import Mode, Target


def test_mode() -> None:
    assert Target(text="the car").mode is Mode.NL
    assert Target(box=(1, 2, 3, 4)).mode is Mode.BBOX
    assert Target(box=(1, 2, 3, 4), text="the car").mode is Mode.NLBBOX
    with pytest.raises(ValueError, match="box, a sentence or both"):
        _ = Target().mode
