"""Pictures of every usual kind become RGB uint8, the others a clear error; the input stays as it was (row
A01).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vltrack.core.errors import ImageError
from vltrack.prep.prompts import check_image

pytestmark = pytest.mark.fault("A01")


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_rgb_is_taken_without_a_copy(picture) -> None:
    assert check_image(picture) is picture


def test_layouts_in_memory(picture) -> None:
    for view in (picture[::-1], picture[:, ::-1], picture[..., ::-1], picture[::2, 1::3], np.asfortranarray(picture)):
        before = view.copy()
        view.flags.writeable = False
        result = check_image(view)
        assert result.flags.c_contiguous
        assert (result == before).all()


def test_gray_alpha_and_floats(picture) -> None:
    gray = picture[..., 0]
    want = np.repeat(gray[..., None], 3, axis=2)
    assert (check_image(gray) == want).all()
    assert (check_image(gray[..., None]) == want).all()
    assert (check_image(np.dstack([picture, gray])) == picture).all()
    for dtype in (np.float16, np.float32, np.float64):
        assert np.abs(check_image((picture / 255).astype(dtype)).astype(int) - picture).max() <= 1
    assert (check_image(torch.from_numpy(picture)) == picture).all()
    assert (check_image(torch.from_numpy(picture).double() / 255) == picture).all()
    assert (check_image(picture.tolist() and np.array(picture.tolist(), dtype=np.uint8)) == picture).all()


def test_pil(picture) -> None:
    image = pytest.importorskip("PIL.Image")
    pil = image.fromarray(picture)
    assert (check_image(pil) == picture).all()
    assert check_image(pil.convert("P")).shape == (6, 9, 3)
    assert check_image(pil.convert("L")).shape == (6, 9, 3)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (None, "None"),
        (np.zeros((3, 20, 30), np.uint8), "channels last"),
        (np.zeros((0, 20, 3), np.uint8), r"\(0, 20, 3\)"),
        (np.zeros((20,), np.uint8), r"\(20,\)"),
        (np.zeros((1, 20, 30, 3), np.uint8), r"\(1, 20, 30, 3\)"),
        (np.zeros((20, 30, 2), np.uint8), r"\(20, 30, 2\)"),
        (np.zeros((20, 30, 3), np.uint16), "uint16"),
        (np.zeros((20, 30, 3), bool), "bool"),
        (np.full((20, 30, 3), 255.0), "255"),
        (np.full((20, 30, 3), -0.1), "-0.1"),
        (np.full((20, 30, 3), np.nan), "nan"),
        (np.array([["a"]]), "U1"),
        ("frame.jpg", "not an image"),
        (torch.zeros(20, 30, 3, requires_grad=True), "Tensor"),
    ],
)
def test_what_is_no_picture_is_said(bad, said) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        check_image(bad)
    assert caught.value.exit_code == 3


def test_the_input_is_never_modified(picture) -> None:
    for source in (picture, picture / 255, picture[..., 0], picture[:, ::-1]):
        before = source.copy()
        check_image(source)
        assert (source == before).all()
