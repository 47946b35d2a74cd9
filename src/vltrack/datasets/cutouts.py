"""Cut-and-paste objects: RGBA patches with soft edges, cut out of images once and cached for later runs.

Outlines are the annotated polygons, or the alpha channel of a transparent image; where an image only has a main
object, ``cv2.grabCut`` with a filter that keeps plausible results. Each object has its color as an English word.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from vltrack.core.errors import DataError, ResourceError
from vltrack.core.files import as_resource_error, atomic_path, cache_folder
from vltrack.core.types import Image
from vltrack.datasets.images import AnnotatedObject, ByteCache, ImageSet, IndexedImage

FORMAT = 4
_REBUILD = "Delete the cut-out file; it is built again."
Mask = NDArray[np.uint8]
Points = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """A decoded object.

    Attributes:
        levels: RGBA uint8 images, each half the size of the one before (level 0 first); colors continue under
            the transparent pixels so that filtering leaves no halo.
        outline: (N, 2) float32 corners of the convex hull of the opaque pixels, in level-0 pixels, pixel
            edges (the center of the first pixel is at 0.5, 0.5).
    """

    levels: tuple[NDArray[np.uint8], ...]
    outline: Points


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutout:
    """One object without its pixels.

    Attributes:
        name: English noun.
        file: the image it is from.
        origin: x, y of the patch in the image and image pixels per patch pixel.
        color: clear dominant color or "", as annotated or by its pixels.
        clothing_color: of the garment; where none is annotated, the dominant color between 20 % and 60 % of the
            object's height, where people wear clothes.
        touches: whether the object is cut by the image's border.
        garment: what a person wears on the upper body, "" where it is not annotated.
        folder: of the image, as in ``IndexedImage``.
    """

    name: str
    file: str
    origin: tuple[float, float, float]
    color: str
    clothing_color: str
    touches: bool
    garment: str = ""
    folder: int = 0


class CutoutSet:
    """Objects of one or several files; decoded patches are cached."""

    def __init__(self, cutouts: tuple[Cutout, ...], blobs: list[bytes]) -> None:
        self.cutouts = cutouts
        self._blobs = blobs
        self._cache: ByteCache[Patch] = ByteCache(900_000_000)

    @classmethod
    def load(cls, *paths: Path) -> CutoutSet:
        """Read files of ``build_cutouts``: file k has the objects of an image set's folder k.

        Raises:
            DataError: a file is missing or damaged.
        """
        return cls.join([_read(path) for path in paths])

    @classmethod
    def join(cls, folders: Sequence[list[tuple[Cutout, bytes]]]) -> CutoutSet:
        """Objects with their encoded patches, one list for each folder of an image set."""
        made = [(replace(cut, folder=number), blob) for number, cuts in enumerate(folders) for cut, blob in cuts]
        return cls(tuple(cut for cut, _ in made), [blob for _, blob in made])

    def __len__(self) -> int:
        return len(self.cutouts)

    def __iter__(self) -> Iterator[Cutout]:
        return iter(self.cutouts)

    def __getitem__(self, index: int) -> Cutout:
        return self.cutouts[index]

    def patch(self, index: int) -> Patch:
        """Return the decoded object ``index``; do not write into it."""
        found = self._cache.get(index)
        if found is not None:
            return found
        patch = make_patch(_decode(self._blobs[index]))
        return self._cache.put(index, patch, sum(level.nbytes for level in patch.levels))


def make_patch(rgba: NDArray[np.uint8]) -> Patch:
    """Return levels and outline of an RGBA image (H, W, 4)."""
    levels = [rgba]
    while min(levels[-1].shape[:2]) >= 24:  # no level has a side below 12 pixels
        last = levels[-1]
        half = (max(1, last.shape[1] // 2), max(1, last.shape[0] // 2))
        levels.append(np.asarray(cv2.resize(last, half, interpolation=cv2.INTER_AREA), dtype=np.uint8))
    return Patch(levels=tuple(levels), outline=outline_of(rgba[..., 3]))


def outline_of(alpha: Mask) -> Points:
    """Return the convex hull (N, 2) of the pixels with alpha >= 128 in pixel edges; of all if none has."""
    rows, columns = np.nonzero(alpha >= 128)
    if len(rows) == 0:
        h, w = alpha.shape
        return np.array([[0, 0], [w, 0], [w, h], [0, h]], dtype=np.float32)
    first = np.full(alpha.shape[0], alpha.shape[1])
    last = np.full(alpha.shape[0], -1)
    np.minimum.at(first, rows, columns)
    np.maximum.at(last, rows, columns)
    used = np.flatnonzero(last >= 0)
    sides = [np.stack([x, y], axis=1) for x in (first[used], last[used] + 1) for y in (used, used + 1)]
    hull = cv2.convexHull(np.concatenate(sides).astype(np.float32))
    return np.asarray(hull.reshape(-1, 2), dtype=np.float32)


def _read(path: Path) -> list[tuple[Cutout, bytes]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            if (version := int(data["format"])) != FORMAT:
                raise DataError(f"Unknown cut-out format {version} (expected {FORMAT}): {path}.", hint=_REBUILD)
            texts, numbers, ends = data["words"].tolist(), data["numbers"].tolist(), data["ends"].tolist()
            blob = data["blob"].tobytes()
        made = []
        rows = zip(texts, numbers, [0, *ends[:-1]], ends, strict=True)
        for (name, file_name, color, clothing_color, garment), (x, y, factor, touches), start, end in rows:
            cutout = Cutout(
                name=name,
                file=file_name,
                origin=(x, y, factor),
                color=color,
                clothing_color=clothing_color,
                touches=bool(touches),
                garment=garment,
            )
            made.append((cutout, blob[start:end]))
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"Cannot read the cut-out file {path}: {error}.", hint=_REBUILD) from error
    return made


Progress = Callable[[int, int], None]


def cached_cutouts(images: ImageSet, progress: Progress = lambda done, total: None) -> CutoutSet:
    """Objects of an image set from the user's cache, cut out now where they are not there yet.

    The cache (``core.files.cache_folder``) has one file for each index, found by its content and the sizes of the
    images; a damaged one is made again. Several processes may call this: one cuts, the others wait.

    Raises:
        DataError: an image cannot be read.
        ResourceError: the cache cannot be written.
    """
    folders = []
    for number in range(len(images.roots)):
        part = ImageSet(images.roots, tuple(entry for entry in images if entry.folder == number))
        file = cache_folder() / "cutouts" / f"{_fingerprint(part)}.npz"
        try:
            folders.append(_read(file))
        except DataError:
            folders.append(_cache(part, file, progress))
    return CutoutSet.join(folders)


def _cache(images: ImageSet, file: Path, progress: Progress) -> list[tuple[Cutout, bytes]]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            try:
                return _read(file)  # another process has made it meanwhile
            except DataError:
                build_cutouts(images, file, progress)
                return _read(file)
    except (OSError, ResourceError) as error:
        said = error.message if isinstance(error, ResourceError) else as_resource_error(error, file).message
        raise ResourceError(said, hint="Set VLTRACK_CACHE to a folder with space that you may write to.") from error


def _fingerprint(images: ImageSet) -> str:
    """Hexadecimal number of what cut-outs are made from: format, files with their sizes, annotations."""
    digest = hashlib.sha256(f"{FORMAT} {cv2.__version__}".encode())
    for entry in images:
        objects = [(o.name, o.color, dict(o.clothes), [p.tobytes() for p in o.polygons]) for o in entry.instances]
        facts = (entry.file, images.path(entry).stat().st_size, entry.width, entry.height, entry.main_object)
        digest.update(repr((facts, entry.transparent, objects)).encode())
    return digest.hexdigest()[:32]


def build_cutouts(images: ImageSet, file: Path, progress: Progress = lambda done, total: None) -> CutoutSet:
    """Cut every object of one folder out and write ``file`` (.npz without pickle); return the set read back.

    Takes some minutes on one core for four thousand images; images are cut in parallel on all cores. ``progress``
    is called after each image with the number of finished images and of all.

    Raises:
        DataError: an image cannot be read.
        ResourceError: the file cannot be written.
    """
    found: list[tuple[Cutout, bytes]] = []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for done, cuts in enumerate(pool.map(lambda entry: _cut_image(images, entry), images), start=1):
            found += cuts
            progress(done, len(images))
    finally:
        pool.shutdown(cancel_futures=True)
    blobs = [blob for _, blob in found]
    texts = [(c.name, c.file, c.color, c.clothing_color, c.garment) for c, _ in found]
    numbers = [(*c.origin, float(c.touches)) for c, _ in found]
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            format=np.int64(FORMAT),
            words=np.array(texts, dtype=np.str_).reshape(-1, 5),
            numbers=np.array(numbers, dtype=np.float64).reshape(-1, 4),
            ends=np.cumsum([len(blob) for blob in blobs], dtype=np.int64),
            blob=np.frombuffer(b"".join(blobs), dtype=np.uint8),
        )
    return CutoutSet.load(file)


def _cut_image(images: ImageSet, entry: IndexedImage) -> list[tuple[Cutout, bytes]]:
    cv2.setNumThreads(1)
    outlined = [one for one in entry.instances if one.polygons]
    if not outlined and entry.main_object is None:
        return []
    image = images.decode(entry)
    main = AnnotatedObject(name=entry.main_object or "", box=(0, 0, entry.width, entry.height))
    masks: list[tuple[AnnotatedObject, Mask | None]]
    if entry.transparent:
        image, alpha = np.ascontiguousarray(image[..., :3]), np.ascontiguousarray(image[..., 3])
        masks = [(main, np.where(alpha >= 128, 255, 0).astype(np.uint8))]
    elif outlined:
        masks = [(one, object_mask(one.polygons, entry.height, entry.width)) for one in outlined]
    else:
        masks = [(main, grab_object(image))]
    cuts = [_cut(image, mask, one, entry.file) for one, mask in masks if mask is not None]
    return [cut for cut in cuts if cut is not None]


def object_mask(polygons: Sequence[Points], height: int, width: int) -> Mask:
    """Return the 0/255 mask of an object's parts."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for polygon in polygons:
        mask |= polygon_mask(polygon, height, width)
    return mask


def polygon_mask(polygon: Points, height: int, width: int) -> Mask:
    """Return the 0/255 mask of a polygon (even-odd); morphological opening removes lines that join parts."""
    mask = np.zeros((height, width), dtype=np.uint8)
    shift = 4
    points = np.round((polygon - 0.5) * (1 << shift)).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, lineType=cv2.LINE_8, shift=shift)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), dtype=np.uint8)


def grab_object(image: Image) -> Mask | None:
    """Return the mask of the one centered object of an image; None if it is not plausible."""
    h, w = image.shape[:2]
    scale = min(1.0, 200 / max(h, w))
    small = cv2.resize(image, (round(w * scale), round(h * scale)), interpolation=cv2.INTER_AREA)
    sh, sw = small.shape[:2]
    labels = np.full((sh, sw), cv2.GC_PR_BGD, dtype=np.uint8)
    mx, my = round(sw * 0.08), round(sh * 0.08)
    labels[my : sh - my, mx : sw - mx] = cv2.GC_PR_FGD
    rim = max(2, round(min(sh, sw) * 0.02))
    labels[:rim] = labels[-rim:] = cv2.GC_BGD
    labels[:, :rim] = labels[:, -rim:] = cv2.GC_BGD
    cv2.setRNGSeed(1)
    try:
        cv2.grabCut(small, labels, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # an image of one color has no two color models
        return None
    mask = np.where((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD), 255, 0).astype(np.uint8)
    main = _main_part(mask)
    if main is None or not _is_plausible(main, rim):
        return None
    full = cv2.resize(main, (w, h), interpolation=cv2.INTER_LINEAR)
    return np.where(full >= 128, 255, 0).astype(np.uint8)


def _main_part(mask: Mask) -> Mask | None:
    """Return the largest part without specks and small holes; None where no part dominates."""
    opened = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), dtype=np.uint8)
    main = _largest_part(opened, connectivity=4, share=0.8)
    if main is not None:
        count, holes, stats, _ = cv2.connectedComponentsWithStats(255 - main, connectivity=4)
        for hole in range(1, count):
            if stats[hole, cv2.CC_STAT_AREA] < 0.004 * main.size:
                main[holes == hole] = 255
    return main


def _largest_part(mask: Mask, *, connectivity: int, share: float) -> Mask | None:
    """Return the largest connected part; None where it has less than ``share`` of the mask, or that is empty."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 2 or areas.max() < share * areas.sum():
        return None
    return np.where(labels == int(areas.argmax()) + 1, 255, 0).astype(np.uint8)


def _is_plausible(mask: Mask, rim: int) -> bool:
    h, w = mask.shape
    share = float((mask > 0).mean())
    if not 0.08 <= share <= 0.75:
        return False
    inner = mask[rim : h - rim, rim : w - rim] > 0
    contact = [inner[0].mean(), inner[-1].mean(), inner[:, 0].mean(), inner[:, -1].mean()]
    if max(contact) > 0.45 or sum(contact) > 0.7:
        return False
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    edge = sum(cv2.arcLength(c, True) for c in contours)
    area = share * mask.size
    if edge * edge / (4 * np.pi * area) > 9:  # 1 for a disc; ragged results are far above
        return False
    ys, xs = np.nonzero(mask)
    center = abs(xs.mean() / w - 0.5) < 0.17 and abs(ys.mean() / h - 0.5) < 0.2
    return bool(center and np.ptp(xs) > 0.3 * w and np.ptp(ys) > 0.2 * h)


# What covers the upper body most comes first.
_UPPER = (
    "coat", "jacket", "blazer", "cape", "cardigan", "hoodie", "vest", "sweater", "sweatshirt", "jumper", "suit",
    "dress", "romper", "blouse", "shirt", "t-shirt", "top",
)  # fmt: skip


def _cut(image: Image, mask: Mask, one: AnnotatedObject, file: str) -> tuple[Cutout, bytes] | None:
    """Return one object as a cutout and its encoded patch; None where it is too small or in many pieces."""
    part = _largest_part(mask, connectivity=8, share=0.7)
    if part is None:
        return None
    mask = part
    ys, xs = np.nonzero(mask)
    if len(xs) < 250 or np.ptp(xs) < 11 or np.ptp(ys) < 11:
        return None
    h, w = mask.shape
    touches = bool(xs.min() <= 1 or ys.min() <= 1 or xs.max() >= w - 2 or ys.max() >= h - 2)
    chest = slice(int(ys.min() + 0.2 * np.ptp(ys)), int(ys.min() + 0.6 * np.ptp(ys)))
    pad = 3
    x0, x1, y0, y1 = xs.min() - pad, xs.max() + 1 + pad, ys.min() - pad, ys.max() + 1 + pad
    window = (slice(y0 + pad, y1 + pad), slice(x0 + pad, x1 + pad))
    canvas = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE)[window]
    alpha = cv2.copyMakeBorder(mask, pad, pad, pad, pad, cv2.BORDER_CONSTANT)[window]
    factor = max(1.0, max(canvas.shape[:2]) / 256)  # pixels of the longer side
    if factor > 1:
        size = (round(canvas.shape[1] / factor), round(canvas.shape[0] / factor))
        canvas = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(alpha, (3, 3), 0.8)
    garment = next((garment for garment in _UPPER if one.clothes.get(garment)), "")
    cutout = Cutout(
        name=one.name,
        file=file,
        origin=(float(x0), float(y0), float(factor)),
        color=one.color or dominant_color(image[mask > 0]),
        clothing_color=one.clothes[garment] if garment else dominant_color(image[chest][mask[chest] > 0]),
        touches=touches,
        garment=garment,
    )
    colors = spread_colors(np.asarray(canvas, np.uint8), np.asarray(alpha, np.uint8))
    return cutout, _encode(colors, np.asarray(soft, np.uint8))


def spread_colors(image: Image, alpha: Mask) -> Image:
    """Extend the colors of the object's inside outwards, so that its rim shows no old background."""
    solid = cv2.erode(alpha, np.ones((3, 3), np.uint8)) >= 250
    if not solid.any():
        solid = alpha >= 128
    weight = solid.astype(np.float32)
    color = image.astype(np.float32) * weight[..., None]
    spread = np.empty_like(color)
    done = np.zeros(weight.shape, dtype=bool)
    for radius in (2, 6, 24, 96):
        kernel = (2 * radius + 1, 2 * radius + 1)
        mass = cv2.blur(weight, kernel)
        fresh = (mass > 1e-3) & ~done
        spread[fresh] = cv2.blur(color, kernel)[fresh] / mass[fresh, None]
        done |= fresh
    spread[~done] = image[solid].mean(axis=0)
    return np.where(solid[..., None], image, np.clip(spread, 0, 255).astype(np.uint8)).astype(np.uint8)


def _encode(rgb: Image, alpha: Mask) -> bytes:
    """Return JPEG colors and PNG alpha with a four-byte length in front."""
    colors = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])[1]
    coverage = cv2.imencode(".png", alpha)[1]
    return len(colors).to_bytes(4, "little") + colors.tobytes() + coverage.tobytes()


def _decode(blob: bytes) -> NDArray[np.uint8]:
    size = int.from_bytes(blob[:4], "little")
    colors = cv2.imdecode(np.frombuffer(blob[4 : 4 + size], np.uint8), cv2.IMREAD_COLOR)
    alpha = cv2.imdecode(np.frombuffer(blob[4 + size :], np.uint8), cv2.IMREAD_GRAYSCALE)
    if colors is None or alpha is None:
        raise DataError("Cut-out cannot be decoded.", hint=_REBUILD)
    return np.dstack([cv2.cvtColor(colors, cv2.COLOR_BGR2RGB), alpha])


# -- dominant colors; thresholds in HSV (OpenCV's: hue 0..180, saturation and value 0..255) set by inspection

COLORS = (
    "black", "white", "gray", "red", "orange", "brown", "yellow", "green", "blue", "purple", "pink",
)  # fmt: skip
_HUES = {6: "red", 20: "orange", 34: "yellow", 85: "green", 131: "blue", 150: "purple", 170: "pink"}


def _color_of(hue: int, saturation: int, value: int) -> str:
    if value < 52:
        return "black"
    chroma = saturation * value / 255
    if saturation < 46 or chroma < 32:
        return "white" if value > 190 else ("black" if value < 75 else "gray")
    name = next((color for limit, color in _HUES.items() if hue < limit), "red")
    if name in ("red", "orange", "yellow") and (value < 150 or (name != "red" and saturation < 125)):
        if name == "yellow":
            return "green" if hue > 28 and saturation > 90 else "brown"
        return "red" if name == "red" and saturation > 150 else "brown"
    if name in ("red", "pink") and saturation < 130 and value > 170:
        return "pink"
    return name


_LEVELS = (np.arange(16, dtype=np.uint8) << 4) + 8
_CUBE = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), axis=-1).reshape(1, -1, 3)
_HSV = cv2.cvtColor(_CUBE, cv2.COLOR_RGB2HSV).reshape(-1, 3).astype(int)
# (16, 16, 16) index into ``COLORS`` by the upper four bits of R, G and B.
_TABLE = np.array([COLORS.index(_color_of(h, s, v)) for h, s, v in _HSV], dtype=np.uint8).reshape(16, 16, 16)
# Black and brown are not a pair: shading makes one of any brown object.
_PAIRS = {
    frozenset(pair.split())
    for pair in (
        "black white", "brown white", "red white", "blue white", "yellow black",
        "red black", "green white", "orange black", "orange white", "yellow white", "blue red",
        "yellow blue", "pink white", "yellow red", "green red", "blue black", "yellow green",
    )
}  # fmt: skip


def dominant_color(pixels: NDArray[np.uint8], share: float = 0.55) -> str:
    """Return the color of at least ``share`` of the (N, 3) RGB pixels.

    "black and white" where two contrasting colors fill three quarters, "" where no color is clear.
    """
    if len(pixels) < 12:
        return ""
    red, green, blue = (pixels[:, channel] >> 4 for channel in range(3))
    counts = np.bincount(_TABLE[red, green, blue], minlength=len(COLORS)) / len(pixels)
    second, best = (int(i) for i in counts.argsort()[-2:])
    if counts[best] >= share:
        return COLORS[best]
    contrast = frozenset((COLORS[best], COLORS[second])) in _PAIRS
    if contrast and counts[second] >= 0.28 and counts[best] + counts[second] >= 0.75:
        return f"{COLORS[best]} and {COLORS[second]}"
    return ""
