"""Numbers in text: accepted forms, places of mistakes, and that both parsers agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vltrack.core.errors import DataError
from vltrack.datasets import parsing
from vltrack.datasets.parsing import parse_table, read_digits, read_names, read_table

ROWS = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.5, 7.0, 8.0]]


@pytest.mark.fault("D02")
@pytest.mark.parametrize(
    "written",
    [
        "1,2,3,4\n5,6.5,7,8\n",
        "1,2,3,4\n5,6.5,7,8",
        "1,2,3,4\r\n5,6.5,7,8\r\n\r\n",
        "\ufeff1,2,3,4\n5,6.5,7,8\n",
        "1\t2\t3\t4\n5\t6.5\t7\t8\n",
        " 1.00, 2.00,3.00 , 4\n5,6.5,7,8\n",
        "1 2   3 4\n5 6.5 7 8\n\n \n",
        "1,2\t3 4\n5, 6.5, 7, 8\n",
        "1,2,3,4,\n5,6.5,7,8,\n",
        "1\t2\t3\t4\t\n5,6.5,7,8\n",
        "1e0,2E+0,+3,4.\n5,6.5,7,8\n",
    ],
)
def test_accepted_forms(tmp_path: Path, written: str) -> None:
    path = tmp_path / "b.txt"
    path.write_bytes(written.encode())
    assert read_table(path).tolist() == ROWS


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ("1,2,3,4\n\n5,6,7,8\n", ":2: "),
        ("1,2,3,4\n5,6,7\n", ":2: .*5,6,7"),
        ("1,2,3,4\n5,6,7,8,9\n", ":2: .*5,6,7,8,9"),
        ("1,2,3,4\n5,,7,8\n", ":2"),
        ("1,2,3,4\n5,six,7,8\n", ":2:3: 'six'"),
        ("1,2,3,4\n5,6,7,inf\n", ":2:7: 'inf'"),
        ("1,2,3,1e999\n", ":1:7"),
        ("# x y w h\n1,2,3,4\n", ":1"),
        ("1;2;3;4\n", ":1"),
        ("1,2,3,\uff14\n", ":1:7"),
        ("0x1,2,3,4\n", ":1:1"),
        ("1_0,2,3,4\n", ":1:1"),
        ("", ": "),
        (" \n \n", ": "),
    ],
)
def test_a_mistake_is_named_by_its_place(tmp_path: Path, written: str, where: str) -> None:
    path = tmp_path / "b.txt"
    path.write_bytes(written.encode())
    with pytest.raises(DataError, match=r"b\.txt" + where):
        read_table(path)


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3)) | st.just(float("nan"))


@given(st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=12), st.sampled_from(",\t "))
def test_both_parsers_agree(rows: list[list[float]], separator: str) -> None:
    written = "\n".join(separator.join(map(str, row)) for row in rows)
    fast = parsing._parse_fast(written, parsing.BOX)
    assert fast is not None
    assert np.array_equal(fast, parsing._parse_rows(written, "x", parsing.BOX), equal_nan=True)
    assert np.array_equal(fast, rows, equal_nan=True)


def test_good_files_never_go_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_parse_rows", None)
    assert parse_table(b"1,2,3,4\n5,6,7,8\n", "x").shape == (2, 4)
    assert parse_table(b'0 1 2 3 4 9 0 "a"\n' * 3, "x", (1, 2, 3, 4, 6))[2].tolist() == [1, 2, 3, 4, 0]


def test_columns_of_a_wider_table(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text('0 1 2 3 4 9 0 "a car"\n0 1 2 3 4 9\n')
    assert read_table(path, (1, 2, 3, 4)).tolist() == [[1, 2, 3, 4]] * 2
    with pytest.raises(DataError, match=r"b\.txt:2: .* 6 values, 7 "):
        read_table(path, (1, 2, 3, 4, 6))


def test_flags_in_one_line_or_one_per_line(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    for written in ("0,1,0", "0\n1\n0\n", "0 \r\n1 \r\n0 ", "0\t1\t0\n", "0.0,1.0,0\n"):
        path.write_text(written)
        assert read_digits(path).tolist() == [0, 1, 0]
    for written, where in (("0,2,0", ":1:3"), ("0\n10\n", ":2:1"), ("0\nyes\n", ":2:1"), ("-1", ":1:1")):
        path.write_text(written)
        with pytest.raises(DataError, match=r"f\.txt" + where):
            read_digits(path)


def test_names_keep_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_bytes(b"\xef\xbb\xbfa b-1\r\n\r\nc-2\r\n\r\n")
    assert read_names(path) == ["a b-1", "", "c-2"]
