"""One frame for all targets: crops, a pass of the network for each, post-processing, new states.

States are immutable: a step returns new ones and changes nothing. A target's pass has no part of another one,
not even the size of a batch, on which the last bits of a sum depend: companions cannot change its boxes. On a
CPU a batch takes as long as its parts; small networks run on several targets side by side.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import GroundingFailed, UsageError
from vltrack.core.types import (
    Box,
    Candidate,
    Floats,
    Image,
    Status,
    Target,
    clip_xywh,
    cxcywh_to_xywh,
    iou_xywh,
    xywh_to_cxcywh,
)
from vltrack.prep.crops import (
    Crop,
    cut,
    cut_published,
    letterbox,
    letterbox_published,
    mean_color,
    padded_published,
    region_for,
)
from vltrack.prep.prompts import check_box
from vltrack.prep.tokenizers import TextTokenizer, load_tokenizer
from vltrack.tracking.network import BoxedImage, Float32, Found, Network
from vltrack.tracking.postprocess import APART, RIVAL_SCORE, Choice, Maps, Policy, choose, rivals_in, smooth_size
from vltrack.tracking.starts import DOUBTFUL_START, RIVAL_ABOVE, SAME_OBJECT, probability_of

if TYPE_CHECKING:
    from vltrack.tracking.grounding import Grounding

Color = tuple[float, float, float]
TILES_PER_SEARCH = 6
"""Regions of the frame, or candidates of the grounder, searched at once for a lost target."""
LONGEST_PAUSE = 8
"""Longest time between two questions to the grounder, in units of ``search_again_every``: each takes some 0.1 s."""
STEPS, LEVELS, GRAIN = 64, 64, 1 / 16
"""With ``steady``: steps of a region's center per side of the target, sizes of it from one to its double, and the
grain of boxes in pixels. Finer costs no accuracy; coarser lets two runs which rounding has parted meet again sooner."""
BEYOND = 1e6
"""Pixels: a box that reaches so far is none; its numbers would not fit in those of a network."""
SHIFTED = 0.3
"""Shift, in sides of the box, of the second region that ``refresh_agreement`` asks for."""
FIRST_SECOND = 25
"""Frames in which a doubtful start may be made anew."""


@dataclass(frozen=True, kw_only=True)
class State:
    """The state of one target.

    Attributes:
        box: xywh in frame pixels.
        memory: the network's memory.
        frame_size: (width, height) that ``box`` refers to.
        score: of the last frame; ``presence``: running mean of the scores.
        status: of the last frame.
        lost_for: frames since the target was last seen.
        age: frames since the start.
        updated: age at the last update of the memory.
        predicted: the last box as the network predicted it, cx, cy, w, h in units of the search region.
        rivals: (K, 4) boxes beside it in the last frame that may be of look-alikes, xywh in frame pixels.
        rivalry: score of the best box beside it as a share of its own, if more than half; 0 without one.
        rival_near: how near such a box is: 1 / (1 + distance of the centers in sides of the target); 0 without one.
        best: with ``refresh_best``, score, prediction and box (4,) of the best frame since that update.
        tile: number of the region at which the next search of the whole frame begins.
        past: (H, 4) the last boxes, oldest first, xywh in frame pixels; H is the model's ``history``.
        claim: probability that the start was on what was meant; 1 unless the grounder found it.
        text: by which the grounder finds the target; None where it did not name the box of the start well enough.
        asked: age at which the grounder last ranked a frame for it; ``pause`` frames later it may again.
    """

    box: Box
    memory: Any
    frame_size: tuple[int, int]
    past: Box
    score: float = 1.0
    presence: float = 1.0
    status: Status = Status.OK
    lost_for: int = 0
    age: int = 0
    updated: int = 0
    tile: int = 0
    claim: float = 1.0
    text: str | None = None
    asked: int = 0
    pause: int = 0
    predicted: Box | None = None
    rivals: Box = field(default_factory=lambda: np.zeros((0, 4)))
    best: tuple[float, Found, Float32] | None = None
    rivalry: float = 0.0
    rival_near: float = 0.0


@dataclass(frozen=True, kw_only=True)
class View:
    """A region of the frame, its image, and the mask of what is outside, for trackers with ``mask_padding``."""

    region: Crop
    image: Image
    padded: NDArray[np.bool_] | None


class Engine:
    """A network with its post-processing; targets are passed in as states.

    Attributes:
        network: on its backend; ``policy``: the post-processing.
        grounder: loads what finds a target from text; None is the model itself, as its paper does it.
        anyway: start from text even where nothing fits it.
    """

    def __init__(
        self,
        network: Network,
        policy: Policy,
        reader: Callable[[], TextTokenizer] | None = None,
        grounder: Callable[[], Grounding] | None = None,
        anyway: bool = False,
    ) -> None:
        self.network, self.policy = network, policy
        self.grounder, self.anyway = grounder, anyway
        # Called with the first text only: a start from a box needs no vocabulary.
        self.reader = reader or partial(load_tokenizer, network.vocabulary)

    # -- start ------------------------------------------------------------------------------------

    def find(self, image: Image, texts: Sequence[str]) -> list[list[Candidate]]:
        """Candidates for each text, best first: the grounder's, or the one box that the model itself finds.

        Raises:
            ModelNotFound: no weights of the grounder.
            GroundingFailed: the model itself found no usable box. And what ``start`` raises for a text.
        """
        if self.grounder is not None:
            return self.grounder().find(image, texts)
        found = [self._ground(image, self._encode_text(text)[0]) for text in texts]
        return [[Candidate(box=box, score=score, label="")] for box, score in found]

    def start(self, image: Image, target: Target, claim: float | None = None) -> tuple[State, tuple[str, ...]]:
        """Initialize a target from a box, a text or both; return its state, and warnings for the user.

        A text alone is located by the model itself. ``claim`` is the probability that a given box is what was
        meant, where the grounder found it.

        Raises:
            UsageError: neither box nor text.
            BoxInvalid, BoxOutside, PromptEmpty, PromptTooLong, PromptInvalid: see ``prep.prompts``.
            ModelNotFound, TokenizerMismatch: no vocabulary for the text, see ``prep.tokenizers``.
            GroundingFailed: the text gave no usable box.
        """
        height, width = image.shape[:2]
        warnings: tuple[str, ...] = ()
        text, score = None, 1.0
        if target.text is not None:
            text, warnings = self._encode_text(target.text)
        if target.box is not None:
            checked = check_box(target.box, width, height)
            box, warnings = checked.box, warnings + checked.warnings
        elif text is not None:
            box, score = self._ground(image, text)
            if score < DOUBTFUL_START:
                warnings += (
                    f"the box found from the text has a score of only {score:.2f}: "
                    "check the first frame, or give a box too.",
                )
        else:
            raise UsageError("No target given: pass a box, a text description or both.", hint="Such as text='the car'.")
        given, box = box, self._kept(box)
        border = mean_color(image)
        template = self._boxed(image, border, box, self.network.template_factor, self.network.template_size)
        context = self._boxed(image, border, box, self.network.search_factor, self.network.search_size)
        memory = self.network.init(template, context, text)
        past = np.tile(box, (self.network.history, 1))
        named = claim
        if claim is None and target.text is not None and self.grounder and self.policy.search_again_every:
            named = probability_of(box, self.find(image, [target.text])[0])
            if named < RIVAL_ABOVE:
                warnings += (f"the text does not name what is in the box (probability {named:.2f}): the box decides.",)
        # The grounder is asked for the target later on where it found the box, or agrees with it.
        heeded = named is not None and (claim is not None or named >= self.policy.heed_text_above)
        state = State(
            box=given, memory=memory, frame_size=(width, height), past=past, score=score, presence=score,
            claim=1.0 if claim is None else claim, text=target.text if heeded else None,
            pause=self.policy.search_again_every,
        )  # fmt: skip
        return state, warnings

    def _encode_text(self, sentence: str) -> tuple[Any, tuple[str, ...]]:
        tokens = self.reader().encode(sentence, self.network.max_words)
        return self.network.read_text(tokens.ids, tokens.mask), tokens.warnings

    def _ground(self, image: Image, text: Any) -> tuple[Box, float]:
        """Locate the target in the whole frame from its text: the box and its score."""
        height, width = image.shape[:2]
        published, size = self.policy.published_crops, self.network.search_size
        scene = letterbox(width, height, size)
        picture = letterbox_published(image, size) if published else cut(image, scene)
        maps = self.network.ground(picture, text).maps
        if not published:
            maps = maps.only(_in_frame(scene.to_frame(_crop_xywh(maps.boxes, scene)), width, height))
        choice = choose(maps, None, self.policy, window=0)
        box = None if choice is None else scene.to_frame(_crop_xywh(choice.box, scene))
        if choice is None or box is None or not _in_frame(box, width, height):
            raise GroundingFailed("The text gave no usable box in the first frame.", hint="Give a box, or both.")
        # Published code does not cut it.
        return box if published else clip_xywh(box, width, height), choice.score

    # -- crops ------------------------------------------------------------------------------------

    def _search(self, image: Image, border: Color, box: Box, grown: float = 1.0) -> View:
        return self._view(image, border, box, self.network.search_factor * grown, self.network.search_size)

    def _view(self, image: Image, border: Color, box: Box, factor: float, size: int) -> View:
        """The region around a box, and its image."""
        if not self.policy.published_crops:
            region = region_for(self._on_grid(box), factor, size)
            return View(region=region, image=cut(image, region, border), padded=None)
        return View(
            region=region_for(box, factor, size, least=1.0),
            image=cut_published(image, box, factor, size),
            padded=padded_published(image, box, factor, size) if self.network.mask_padding else None,
        )

    def _on_grid(self, box: Box) -> Box:
        """A square for the box, its side and center rounded to the ``steady`` grid."""
        if not self.policy.steady:
            return box
        side = 2 ** (round(math.log2(math.sqrt(box[2] * box[3])) * LEVELS) / LEVELS)
        step = 2.0 ** round(math.log2(side)) / STEPS
        center = np.round((box[:2] + box[2:] / 2) / step) * step
        return np.array([*(center - side / 2), side, side])

    def _kept(self, box: Box) -> Box:
        """The box to the grain of ``steady``."""
        return np.round(box / GRAIN) * GRAIN if self.policy.steady else box

    def _boxed(self, image: Image, border: Color, box: Box, factor: float, size: int) -> BoxedImage:
        """The region around a box with the box in it."""
        view = self._view(image, border, box, factor, size)
        return BoxedImage(image=view.image, box=self._unit_boxes(box, view.region), padded=view.padded)

    def _unit_boxes(self, boxes_xywh: Box, crop: Crop) -> Float32:
        """(..., 4) xywh in frame pixels -> (..., 4) cx, cy, w, h in units of the crop."""
        unit: Float32 = (xywh_to_cxcywh(crop.to_crop(boxes_xywh)) / crop.size).astype(np.float32)
        return unit

    # -- each frame -------------------------------------------------------------------------------

    def step(self, image: Image, states: Sequence[State]) -> list[State]:
        """New states of all targets after one frame."""
        height, width = image.shape[:2]
        states = [self._rescaled(s, (width, height)) for s in states]
        border = mean_color(image)
        searches = [self._search(image, border, s.box, self._grown(s)) for s in states]
        workers = min(self.network.targets_at_once, len(states))
        run = map if workers < 2 else _pool(workers, os.getpid()).map
        seen = list(run(self._locate, searches, [s.memory for s in states], [s.past for s in states]))
        maps = [one.maps for one in seen]
        placed = [self._postprocess(s, v.region, m) for s, v, m in zip(states, searches, maps, strict=True)]
        ranked = self._ask(image, placed, maps)
        after = []
        for i, (found, view) in enumerate(zip(placed, searches, strict=True)):
            doubted = False
            if i in ranked:
                others = [s.box for j, s in enumerate(placed) if j != i and s.status is Status.OK]
                found, doubted = self._chosen_by_text(image, border, found, _left_by(others, found, ranked[i]))
            elif found.text is None or self._doubtful_start(found):
                found = self._search_again(image, border, found)
            found = replace(
                found, past=np.concatenate([found.past, found.box[None]])[1:], presence=self._presence(states[i], found)
            )
            after.append(
                found if doubted else self._update_memory(image, border, found, view.region, seen[i], states[i].box)
            )
        return after

    def _presence(self, before: State, now: State) -> float:
        """Running mean of the scores; it begins anew where a lost target was found."""
        share = 1.0 if before.lost_for and not now.lost_for else self.policy.visible_smooth
        return share * now.score + (1 - share) * before.presence

    def _rescaled(self, state: State, frame_size: tuple[int, int]) -> State:
        """The video changed its frame size: the box keeps its place relative to the frame."""
        if state.frame_size == frame_size:
            return state
        ratio = np.array(frame_size, dtype=np.float64) / np.array(state.frame_size, dtype=np.float64)
        scale = np.concatenate([ratio, ratio])
        box = self._inside(state.box * scale, frame_size)
        return replace(state, box=box, frame_size=frame_size, past=state.past * scale)

    def _locate(self, view: View, memory: Any, past: Box) -> Found:
        """Run the network on a search region; ``past`` are the (H, 4) former boxes."""
        unit = self._unit_boxes(past, view.region) if self.network.history else None
        return self.network.locate(view.image, memory, unit, view.padded)

    def _grown(self, state: State) -> float:
        # In logarithms: the power overflows once a target has been lost for long enough.
        return math.exp(min(state.lost_for * math.log(self.policy.grow), math.log(self.policy.grow_limit)))

    def _postprocess(self, state: State, region: Crop, maps: Maps) -> State:
        """The state after choosing a box, smoothing its size and deciding whether the target is lost."""
        policy, age = self.policy, state.age + 1
        size = region.to_crop(state.box)[2:] / region.size
        window = policy.window if state.lost_for == 0 else policy.window * 0.5
        choice = choose(maps, size, policy, window=window)
        rivals, rivalry, near = state.rivals, 0.0, 0.0
        if policy.follow_rivals:
            choice = self._unless_rival(state, region, maps, choice, size, window)
            others = rivals_in(maps, choice, policy) if choice is not None else []
            found = [region.to_frame(_crop_xywh(one.box, region)) for one in others]
            found = [box for box in found if np.abs(box).max() < BEYOND]
            if choice is not None and others:
                rivalry = others[0].score / max(choice.score, 1e-9)
                apart = min(math.hypot(*(one.box[:2] - choice.box[:2])) for one in others)
                near = 1 / (1 + apart / math.sqrt(float(size.prod())))
            if choice is not None and choice.score < policy.refresh_above:
                found = [box for box in found if (iou_xywh(state.rivals, box) > SAME_OBJECT).any()]
            rivals = np.array(found).reshape(-1, 4)
        if choice is None:
            return replace(state, age=age, score=0.0, status=Status.INVALID, lost_for=state.lost_for + 1)
        box = self._placed(state, region, choice)
        state = replace(state, age=age, score=choice.score, predicted=choice.box, rivals=rivals)
        state = replace(state, rivalry=rivalry, rival_near=near)
        if choice.score >= policy.lost_below:
            return replace(state, box=box, status=Status.OK, lost_for=0)
        if choice.score < policy.hold_below:
            box = state.box
        else:
            held = cxcywh_to_xywh(np.concatenate([box[:2] + box[2:] / 2, state.box[2:]]))
            box = self._inside(held, state.frame_size)
        return replace(state, box=box, status=Status.LOST, lost_for=state.lost_for + 1)

    def _unless_rival(
        self, state: State, region: Crop, maps: Maps, choice: Choice | None, size: Floats, window: float
    ) -> Choice | None:
        """The choice, or where that is a rival of the last frame, the best one that is none.

        A rival that has come to score twice as much as all else is taken: then the box was on the wrong object.
        """
        if choice is None or not len(state.rivals):
            return choice
        unit = self._unit_boxes(np.concatenate([state.rivals, state.box[None]]), region)
        overlaps = np.stack([maps.overlap(box) for box in unit])
        on_rival = (overlaps[:-1].max(axis=0) > SAME_OBJECT) & (overlaps[-1] < overlaps[:-1].max(axis=0))
        rest = choose(maps.only(~on_rival), size, self.policy, window=window)
        if rest is None or rest.score < RIVAL_SCORE * choice.score:
            return choice
        return rest

    def _placed(self, state: State, region: Crop, choice: Choice) -> Box:
        """The chosen box in frame pixels (xywh), its size smoothed, inside the frame."""
        found = region.to_frame(_crop_xywh(choice.box, region))
        center = found[:2] + found[2:] / 2
        size = smooth_size(state.box[2:], found[2:], choice, self.policy)
        return self._inside(cxcywh_to_xywh(np.concatenate([center, size])), state.frame_size)

    def _inside(self, box: Box, frame_size: tuple[int, int]) -> Box:
        """The box (xywh) to its grain, moved so that ``margin`` pixels of it are inside the frame."""
        width, height = frame_size
        if self.policy.published_crops:
            return clip_xywh(box, width, height, margin=self.policy.margin, min_side=self.policy.margin)
        box = self._kept(box)
        size = np.clip(box[2:], 1.0, [width, height])
        center = box[:2] + box[2:] / 2
        margin = np.minimum(self.policy.margin, size / 2)
        low, high = margin - size / 2, np.array([width, height]) - margin + size / 2
        center = np.clip(center, low, high)
        return cxcywh_to_xywh(np.concatenate([center, size]))

    # -- lost targets -----------------------------------------------------------------------------

    def _search_again(self, image: Image, border: Color, state: State) -> State:
        """While the target is lost, search a few other regions of the frame with its text and template."""
        every = self.policy.search_again_every
        if not every or state.lost_for < every or state.lost_for % every:
            return state
        tiles = _tiles(state, self.network.search_factor)
        count = min(TILES_PER_SEARCH, len(tiles))
        chosen = [tiles[(state.tile + k) % len(tiles)] for k in range(count)]
        seen = self._seen_at(image, border, state, chosen)
        state = replace(state, tile=(state.tile + count) % len(tiles))
        box, score = max(seen, key=lambda one: one[1])
        if score < self.policy.search_again_above:
            return state
        return replace(state, box=box, score=score, status=Status.OK, lost_for=0, tile=0)

    def _seen_at(
        self, image: Image, border: Color, state: State, places: Sequence[Box], *, only_there: bool = False
    ) -> list[tuple[Box, float]]:
        """What the network finds in the search regions of some places: boxes, and scores (-1: nothing usable).

        ``only_there`` leaves out boxes that do not overlap the place itself.
        """
        found = []
        for place in places:
            view = self._search(image, border, place)
            region, past = view.region, np.tile(place, (self.network.history, 1))
            maps = self._locate(view, state.memory, past).maps
            there = xywh_to_cxcywh(region.to_crop(place)) / region.size
            if only_there:
                maps = maps.only(maps.overlap(there) > SAME_OBJECT)
            choice = choose(maps, there[2:], self.policy, window=0)
            if choice is None:
                found.append((place, -1.0))
            else:
                found.append((self._placed(replace(state, box=place), region, choice), choice.score))
        return found

    # -- targets with a text ----------------------------------------------------------------------

    def _ask(self, image: Image, states: Sequence[State], maps: Sequence[Maps]) -> dict[int, list[Candidate]]:
        """What the grounder finds, in one pass, for targets that are lost or doubtful, by index.

        Doubtful: just after a start on a box of little claim; later, with a box of the user's that the text fits, not
        sure enough for an update of the memory, or with a look-alike in the search region. (A box that the grounder
        found itself does not show that it understands the text.)
        """
        policy, asking = self.policy, {}
        for i, state in enumerate(states):
            if state.text is None or state.age - state.asked < state.pause:
                continue
            best = choose(maps[i], None, policy, window=0)
            doubtful = state.claim == 1 and (
                state.score < policy.refresh_above or bool(rivals_in(maps[i], best, policy))
            )
            wanted = state.lost_for >= policy.search_again_every if state.lost_for else doubtful
            if state.age <= FIRST_SECOND if self._doubtful_start(state) else wanted:
                asking[i] = state.text
        return dict(zip(asking, self.find(image, list(asking.values())), strict=True)) if asking else {}

    def _chosen_by_text(
        self, image: Image, border: Color, state: State, candidates: Sequence[Candidate]
    ) -> tuple[State, bool]:
        """The state after the grounder's answer, and whether that names another object than the present one.

        A lost target takes the candidate for which the geometric mean of its probability and of the network's
        score on it is the greatest and reaches ``search_again_above``. One that is followed takes a candidate that
        leads by ``heed_text_above`` and that the network too calls a rival. (Unpublished; our design.)
        """
        every = self.policy.search_again_every
        after = replace(state, asked=state.age, pause=min(2 * state.pause, LONGEST_PAUSE * every))
        apart = [c for c in candidates if state.lost_for or _apart(c.box, state.box)]
        here = sum(c.score for c in candidates) - sum(c.score for c in apart)
        clear = [c for c in apart if c.score >= here + self.policy.heed_text_above]
        if self._doubtful_start(state):
            return self._started_anew(image, after, candidates, clear)
        rivals = (apart if state.lost_for else clear)[:TILES_PER_SEARCH]
        if not rivals:
            return after, False
        seen = self._seen_at(image, border, state, [c.box for c in rivals], only_there=True)
        best = max(range(len(rivals)), key=lambda n: rivals[n].score * seen[n][1])
        box, score = seen[best]
        enough = score > RIVAL_SCORE * state.score
        if state.lost_for:
            enough = rivals[best].score * score >= self.policy.search_again_above**2
        if not enough:
            return after, not state.lost_for
        return replace(after, box=box, score=score, status=Status.OK, lost_for=0, tile=0, pause=every), False

    def _doubtful_start(self, state: State) -> bool:
        return state.claim < self.policy.heed_text_above

    def _started_anew(
        self, image: Image, state: State, candidates: Sequence[Candidate], clear: Sequence[Candidate]
    ) -> tuple[State, bool]:
        """After a doubtful start: on what is clearly meant in this frame, or else with the claim of this frame."""
        if not clear:
            claim = 0.0 if state.lost_for else min(probability_of(state.box, candidates), 1.0)
            return replace(state, claim=claim) if claim >= self.policy.heed_text_above else state, False
        x, y, w, h = clear[0].box.tolist()
        new, _ = self.start(image, Target(box=(x, y, w, h), text=state.text), clear[0].score)
        return replace(new, age=state.age, asked=state.age, updated=state.age), True

    # -- memory -----------------------------------------------------------------------------------

    def _update_memory(
        self, image: Image, border: Color, state: State, region: Crop, seen: Found, before: Box
    ) -> State:
        if self.policy.refresh_by_number:
            return self._update_by_number(image, border, state, region, seen)
        policy = self.policy
        due = policy.refresh_every and state.age - state.updated >= policy.refresh_every
        if not due or state.status != Status.OK or state.score < policy.refresh_above:
            return state
        in_region = self._unit_boxes(state.box, region)
        if (in_region[:2] < 0).any() or (in_region[:2] > 1).any():
            return state  # found elsewhere in this frame: these tokens do not show the target
        if float(iou_xywh(before, state.box)) < policy.refresh_overlap:
            return state
        if policy.refresh_agreement:
            shift = np.array([*(state.box[2:] * SHIFTED), 0.0, 0.0])
            again, _ = self._seen_at(image, border, state, [state.box + shift])[0]
            if float(iou_xywh(again, state.box)) < policy.refresh_agreement:
                return state
        return self._updated(image, border, state, seen, in_region)

    def _update_by_number(self, image: Image, border: Color, state: State, region: Crop, seen: Found) -> State:
        """As STARK and UVLTrack do: at every so many frames, whenever the last update was."""
        policy, raw = self.policy, state.predicted
        if not policy.refresh_every or state.status is Status.INVALID or raw is None:
            return state
        score, box = state.score, self._unit_boxes(state.box, region)
        if policy.refresh_best:
            best = state.best
            if best is None or score > best[0]:
                best = (score, seen, raw.astype(np.float32))
            state, (score, seen, box) = replace(state, best=best), best
        if state.age % policy.refresh_every or score <= policy.refresh_above:
            return state
        return replace(self._updated(image, border, state, seen, box), best=None)

    def _updated(self, image: Image, border: Color, state: State, seen: Found, box: Float32) -> State:
        """The state with new memory from a prediction and the target's box in its search region."""
        template, network = None, self.network
        if self.policy.refresh_template:
            template = self._boxed(image, border, state.box, network.template_factor, network.template_size)
        memory = network.update(state.memory, seen, box, template)
        return replace(state, memory=memory, updated=state.age)


@lru_cache(maxsize=4)
def _pool(workers: int, _process: int) -> ThreadPoolExecutor:
    """Threads for targets side by side; a fork has none of its parent's."""
    return ThreadPoolExecutor(workers, thread_name_prefix="vltrack-target")


def _crop_xywh(box_cxcywh: Box, crop: Crop) -> Box:
    return cxcywh_to_xywh(np.asarray(box_cxcywh)) * crop.size


def _in_frame(boxes_xywh: Box, width: int, height: int) -> NDArray[np.bool_]:
    """Return whether (..., 4) boxes in pixels have at least one pixel each way in the frame; False for NaN."""
    with np.errstate(invalid="ignore"):
        low = boxes_xywh[..., :2].clip(0, (width, height))
        high = (boxes_xywh[..., :2] + boxes_xywh[..., 2:]).clip(0, (width, height))
        inside: NDArray[np.bool_] = (high - low >= 1).all(axis=-1)
    return inside


def _apart(found: Box, box: Box) -> bool:
    """Whether a box found is on something else: hardly any overlap, and not around the other one's center."""
    inside = np.abs(found[:2] + found[2:] / 2 - box[:2] - box[2:] / 2) < found[2:] / 2
    return bool(iou_xywh(found, box) < APART and not inside.all())


def _left_by(others: Sequence[Box], state: State, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that are not elsewhere on another target."""
    return [
        c
        for c in candidates
        if not _apart(c.box, state.box) or not any(iou_xywh(c.box, box) > SAME_OBJECT for box in others)
    ]


def _tiles(state: State, factor: float) -> list[Box]:
    """Boxes of the target's size whose search regions cover the frame, nearest to the last place first."""
    width, height = state.frame_size
    size = state.box[2:]
    reach = math.sqrt(float(size.prod())) * factor
    # At most 48 along each side: a smaller target leaves gaps between its search regions.
    columns, rows = (min(48, max(1, math.ceil(1.5 * side / reach))) for side in (width, height))
    centers = [((i + 0.5) * width / columns, (j + 0.5) * height / rows) for j in range(rows) for i in range(columns)]
    here = state.box[:2] + size / 2
    centers.sort(key=lambda c: (c[0] - here[0]) ** 2 + (c[1] - here[1]) ** 2)
    return [np.array([x - size[0] / 2, y - size[1] / 2, *size]) for x, y in centers]
