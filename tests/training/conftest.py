"""Training images that take no download, and a validation that takes no time."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_training import image_folder
from vltrack.datasets.cutouts import CutoutSet, build_cutouts
from vltrack.datasets.images import ImageSet
from vltrack.training import loop


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of tests/datasets with a stem of random numbers."""
    return image_folder(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def material(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, CutoutSet]:
    """The same images and their cut-outs."""
    images = ImageSet.load(data)
    return images, build_cutouts(images, tmp_path_factory.mktemp("cutouts") / "cut.npz")


@pytest.fixture(autouse=True)
def _quick_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "validate", lambda *given: {"bbox": 0.5, "nlbbox": 0.5, "nl": 0.5})
