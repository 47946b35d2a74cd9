"""Clips of one's own to fine-tune on: read them, hold a part out, and measure a tracker on that part.

A clip is a folder as ``vltrack datasets`` reads it (layout ``folder``), or a track that ``vltrack track -o`` wrote
and someone corrected.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import torch

from vltrack.checkpoints import store
from vltrack.checkpoints.cards import read_card
from vltrack.core.errors import DataError
from vltrack.core.files import as_resource_error, open_limited, printable, sha256_bytes, write_text
from vltrack.core.track import FORMAT, MAX_FILE_BYTES, Track
from vltrack.core.types import Mode, Status, Target
from vltrack.datasets.detect import has_clips
from vltrack.datasets.reader import open_dataset
from vltrack.datasets.sequences import Sequence as Clip
from vltrack.metrics.success import success
from vltrack.nn.device import choose_device
from vltrack.prep.tokenizers import load_tokenizer
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy, default_policy
from vltrack.tracking.torch_network import TorchNetwork
from vltrack.training.init import starting_model
from vltrack.training.recipes import TrainConfig
from vltrack.video.images import sort_images

CLIPS_TO_HOLD_ONE = 4
"""From as many clips on whole clips are held out, every fifth; of fewer the last quarter of each."""
LEAST = 10
"""Frames with the target that the held-out part, and the rest of a clip, must have."""
_HEAD_BYTES = 256
JPEG_QUALITY = 95


def has_tracks(root: Path) -> bool:
    """Return whether a folder has files that ``vltrack track -o`` wrote."""
    return bool(_track_files(root))


def read_clips(root: Path) -> tuple[Clip, ...]:
    """Read the clips of a folder: clips with their boxes, and tracks (.json, .csv) with their videos.

    Frames in which a track is not visible have the target absent. A frame without a row, or whose row has
    ``missing`` or ``invalid``, has a box of NaN: ``as_images`` leaves it out.

    Raises:
        DataError: nothing to read, an error in an annotation, or the video of a track is missing.
    """
    tracks = [_from_track(file) for file in _track_files(root)]
    if tracks and not has_clips(root):
        return tuple(tracks)
    annotated = open_dataset(root, name="folder").sequences
    return (*(replace(clip, boxes=np.nan_to_num(clip.boxes)) for clip in annotated), *tracks)


def as_images(clip: Clip, folder: Path) -> Clip:
    """Return a clip with one image file for each frame; a video is decoded into ``folder``, once.

    Raises:
        DataError: the video has another number of frames than rows, or another size than its track.
        InputError, PartialResult: it cannot be read (see ``vltrack.video``). ResourceError: no space left.
    """
    if clip.files is not None:
        return clip
    name = f"{clip.source.stem}-{sha256_bytes(str(clip.source.resolve()).encode())[:8]}"
    if not (folder / name).is_dir():
        _decode(clip, folder, name)
    files = {int(file.stem): file for file in (folder / name).iterdir()}
    total = max(files) + 1
    if total < len(clip.boxes) or (clip.size is None and total != len(clip.boxes)):  # a track may end early
        raise DataError(
            f"{printable(clip.source)} has {total} frames, its annotation {len(clip.boxes)} rows.",
            hint="Every frame needs one row.",
        )
    rows = [row for row in range(len(clip.boxes)) if row in files and np.isfinite(clip.boxes[row]).all()]
    return part_of(replace(clip, files=[files.get(row, clip.source) for row in range(len(clip.boxes))]), rows)


def split_clips(root: Path, out: Path) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Return the clips of a folder to train on, and those that are held out, as images (see ``hold_out``)."""
    return hold_out([as_images(clip, out / "frames") for clip in read_clips(root)])


def hold_out(clips: Iterable[Clip]) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Split clips into those to train on and those that are held out; the order given does not matter.

    Of four or more clips every fifth is held out, at least one, by a checksum of their names; of fewer the last
    quarter of each. A part with fewer than ten frames with the target is not held out, so there may be none.
    """
    clips = sorted(clips, key=lambda clip: (sha256_bytes(clip.name.encode()), clip.name))
    if len(clips) >= CLIPS_TO_HOLD_ONE:
        fit = [clip for clip in clips if _seen(clip).sum() >= LEAST]
        held = fit[: max(1, len(clips) // 5)]
        kept = [clip for clip in clips if all(clip is not other for other in held)]
        return _by_name(kept), _by_name(held)
    train, ends = [], []
    for clip in clips:
        cut = len(clip) - len(clip) // 4
        seen = _seen(clip)
        if min(seen[:cut].sum(), seen[cut:].sum()) < LEAST:
            train.append(clip)
            continue
        train.append(part_of(clip, range(cut)))
        end = part_of(clip, range(cut, len(clip)))
        ends.append(replace(end, name=f"{clip.name}, frames {cut} to {len(clip) - 1}"))
    return _by_name(train), _by_name(ends)


def measure(
    model: Any, held: Iterable[Clip], device: torch.device, policy: Policy, folder: Path | None = None
) -> dict[str, float]:
    """Track each clip from its first frame with the target; return the mean success AUC by mode.

    Args:
        model: a network in eval mode on ``device``.
        held: clips as images.
        policy: post-processing of the tracker.
        folder: of a vocabulary that does not ship.

    Returns:
        ``bbox``, and ``nlbbox`` where clips have a sentence: 0 to 1, by the rule ``visible-only``
        (``vltrack.metrics.success``). Empty where no clip is given.

    Raises:
        DataError: an image cannot be decoded, or a clip has no frame with the target.
    """
    engine = Engine(TorchNetwork(model, device), policy, partial(load_tokenizer, model.vocabulary, folder))
    found: dict[str, list[float]] = {}
    for clip in held:
        seen = _seen(clip)
        if not seen.any():
            raise DataError(f"The target of {printable(clip.name)} is absent in every frame.")
        part = part_of(clip, range(int(seen.argmax()), len(clip)))
        for mode, boxes in _follow(engine, part).items():
            found.setdefault(mode, []).append(success(boxes, part.boxes, part.absent).auc)
    return {mode: round(fmean(values), 4) for mode, values in found.items()}


def compare(config: TrainConfig, out: Path, roots: Iterable[Path], weights: Path, device: str) -> dict[str, Any]:
    """Measure the start of a run and its weights on what it held out; keep both in finetune.json and on the card.

    Args:
        config, out: of the run, which is finished.
        roots: folders of clips.
        weights: the .safetensors file of the run.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        ``held_out``: names; ``before`` (only for a run that starts from weights) and ``after``: see ``measure``.

    Raises:
        As ``measure`` and ``starting_model``; ResourceError: no space left.
    """
    held = [clip for root in roots for clip in split_clips(root, out)[1]]
    policy, place = default_policy(config.model, config.size), choose_device(device)
    record: dict[str, Any] = {"held_out": [clip.name for clip in held]}
    networks = {"after": store.load(weights)[0]}
    if config.start or config.init_from:
        networks = {"before": starting_model(config, out).eval()} | networks
    for when, network in networks.items():
        record[when] = measure(network.to(place), held, place, policy, out)
    write_text(out / "finetune.json", json.dumps(record, indent=2) + "\n")
    card = read_card(weights) | {"own_clips": record}
    write_text(weights.with_suffix(".json"), json.dumps(card, indent=2) + "\n")
    return record


def _follow(engine: Engine, clip: Clip) -> dict[str, np.ndarray[Any, Any]]:
    """Boxes (N, 4) of a clip by mode, all modes in one pass."""
    x, y, w, h = clip.boxes[0].tolist()
    targets = {str(Mode.BBOX): Target(box=(x, y, w, h))}
    if clip.sentence:
        targets[str(Mode.NLBBOX)] = Target(box=(x, y, w, h), text=clip.sentence)
    frames = (frame.image for frame in clip.frames() if frame.image is not None)
    first = next(frames)
    states = [engine.start(first, target)[0] for target in targets.values()]
    steps = [states, *(states := engine.step(image, states) for image in frames)]
    return {mode: np.stack([step[k].box for step in steps]) for k, mode in enumerate(targets)}


def _track_files(root: Path) -> list[Path]:
    """Files of the folder that hold a track of one target."""
    files = sorted(file for file in root.iterdir() if file.suffix.lower() in (".json", ".csv") and file.is_file())
    return [file for file in files if FORMAT.encode() in _head(file)]


def _head(file: Path) -> bytes:
    try:
        with open_limited(file, MAX_FILE_BYTES) as opened:
            return opened.read(_HEAD_BYTES)
    except OSError:
        return b""


def _from_track(file: Path) -> Clip:
    """A track as a clip; its rows go from frame 0 of the video to the track's last frame."""
    track = Track.load(file)
    source = str(track.meta.get("source", ""))
    places = (file.parent / source, Path(source), file.parent / Path(source).name)
    video = next((place for place in places if source and place.exists()), None)
    if video is None or not len(track):
        said = f"names the video {printable(source)!r}, which is missing" if len(track) else "has no rows"
        raise DataError(f"{printable(file)} {said}.", hint="Put the video next to the track, or correct its `source`.")
    count = int(track.indices[-1]) + 1
    boxes, absent = np.full((count, 4), np.nan), np.ones(count, dtype=bool)
    known = np.array([status not in (Status.MISSING, Status.INVALID) for status in track.status])
    boxes[track.indices[known]], absent[track.indices[known]] = track.boxes[known], ~track.visible[known]
    width, height = (value if type(value := track.meta.get(key)) is int else 0 for key in ("width", "height"))
    clip = Clip(
        name=file.stem,
        source=video,
        files=None,
        boxes=boxes,
        absent=absent,
        sentence=str(track.meta.get("sentence") or ""),
        size=(width, height),
    )
    if not video.is_dir():
        return clip
    images = sort_images(video.iterdir())[0]
    if len(images) < count:
        raise DataError(f"{printable(file)} has a row of frame {count - 1}, {printable(video)} {len(images)} images.")
    return part_of(replace(clip, files=images), np.flatnonzero(np.isfinite(boxes).all(axis=1)).tolist())


def _decode(clip: Clip, folder: Path, name: str) -> None:
    """Decode a whole video into ``folder / name``, which appears when all its images are there."""
    part = folder / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        with clip.open_frames() as frames:
            size = (frames.info.width, frames.info.height)
            if clip.size is not None and 0 not in clip.size and clip.size != size:
                raise DataError(
                    f"{printable(clip.source)} is {size[0]}x{size[1]}, the video of {printable(clip.name)} was not.",
                    hint="Put the right video next to the track.",
                )
            for frame in frames:
                if frame.image is not None:
                    image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
                    data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1]
                    (part / f"{frame.index:08d}.jpg").write_bytes(data.tobytes())
            if frames.report.failure is not None:
                raise frames.report.failure
        part.rename(folder / name)
    except OSError as error:
        raise as_resource_error(error, folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def part_of(clip: Clip, rows: Sequence[int]) -> Clip:
    """The frames ``rows`` of a clip with images."""
    at = list(rows)
    files = clip.files or ()
    return replace(clip, files=tuple(files[row] for row in at), boxes=clip.boxes[at], absent=clip.absent[at])


def _seen(clip: Clip) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(N,) whether a frame has the target."""
    seen: np.ndarray[Any, np.dtype[np.bool_]] = ~clip.absent & (clip.boxes[:, 2:].min(axis=1) > 0)
    return seen


def _by_name(clips: Iterable[Clip]) -> tuple[Clip, ...]:
    return tuple(sorted(clips, key=lambda clip: clip.name))
