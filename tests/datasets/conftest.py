"""A small image set with flat shapes of known color and outline."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

COLORS = {"red": (220, 30, 30), "blue": (40, 60, 220), "green": (40, 170, 60), "yellow": (240, 220, 40)}


def ground(rng: np.random.Generator, w: int = 200, h: int = 160) -> np.ndarray:
    """Return gray noise of two scales."""
    coarse = cv2.resize(rng.normal(0, 22, (9, 9)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    gray = 125 + coarse + rng.normal(0, 12, (h, w))
    return np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def make_image_set(root: Path) -> Path:
    """Write 12 images with one outlined shape, 3 with two boxes, 3 with a main object."""
    rng, entries = np.random.default_rng(5), []
    for number in range(12):
        image = ground(rng)
        name, color = ("tile", "plate")[number % 2], list(COLORS)[number % 4]
        cx, cy, r = rng.uniform(60, 140), rng.uniform(55, 105), rng.uniform(22, 40)
        corners = 4 if name == "tile" else 40
        angle = np.arange(corners) * 2 * np.pi / corners + 0.3
        points = np.stack([cx + r * np.cos(angle), cy + 0.8 * r * np.sin(angle)], axis=1)
        cv2.fillPoly(image, [np.round((points - 0.5) * 16).astype(np.int32)], COLORS[color], cv2.LINE_AA, 4)
        low, high = points.min(axis=0), points.max(axis=0)
        box = [*low.tolist(), *(high - low).tolist()]
        entries.append((image, {"inst": [{"c": name, "b": box, "p": points.round(2).ravel().tolist()}], "box": []}))
    for _ in range(3):
        image = ground(rng)
        image[30:80, 20:70] = (200, 120, 40)
        image[60:130, 110:170] = (200, 140, 90)
        boxes = [{"c": "crate", "b": [20, 30, 50, 50]}, {"c": "bin", "b": [110, 60, 60, 70]}]
        entries.append((image, {"inst": [], "box": boxes}))
    for _ in range(3):
        image = np.full((150, 180, 3), 245, dtype=np.uint8)
        cv2.circle(image, (92, 74), 50, (30, 60, 200), -1, cv2.LINE_AA)
        noisy = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
        entries.append((noisy, {"inst": [], "box": [], "whole": "balls2"}))
    lines = []
    for number, (image, entry) in enumerate(entries):
        name = f"p{number:02d}.png"
        cv2.imwrite(str(root / name), image[..., ::-1])
        size = {"f": name, "w": image.shape[1], "h": image.shape[0], "src": "made", "lic": "none"}
        lines.append(json.dumps(size | entry))
    (root / "index.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small image set."""
    return make_image_set(tmp_path_factory.mktemp("images"))
