"""The language audit: models that read pass, models that do not are detected; the numbers by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from listeners import NAMES, Deaf, Reader
from scripted import EAGER, Puppet, clip, prediction, tiny_weights, tracker
from vltrack.core.errors import GroundingFailed, PartialResult
from vltrack.core.types import Frame, Mode, Target
from vltrack.datasets.synthetic import synthesize_clip
from vltrack.evaluation import audit_report, distractors
from vltrack.evaluation.audit import (
    AuditTarget,
    Effect,
    FailedTarget,
    TargetAudit,
    Variant,
    audit_one,
    audit_targets_of,
    movement,
    track_targets,
    truncated,
)
from vltrack.evaluation.audit_report import Verdict, judge, summarize
from vltrack.evaluation.audit_sentences import (
    PLAIN,
    Wording,
    content_words,
    contradict,
    opposites,
    plain_phrase,
    shuffled,
    wordings,
)
from vltrack.evaluation.distractors import (
    DistractorVerdict,
    audit_scene,
    distractor_scenes,
    judge_pairs,
    summarize_pairs,
)
from vltrack.models.base import Memory
from vltrack.tracking.tracker import MultiTracker, Tracker

BOTH = (Mode.NL, Mode.NLBBOX)


def frames_of(images: np.ndarray | list[np.ndarray]) -> Iterator[Frame]:
    for index, image in enumerate(images):
        yield Frame(image=image, index=index, seconds=index / 25)


def targets(count: int, frames: int = 5) -> list[AuditTarget]:
    """Clips with distractor pairs: in NL only the text decides; the other has the contradicting color."""
    return [
        AuditTarget(
            name=f"clip-{seed}",
            sentence=made.sentence,
            frames=lambda made=made: frames_of(made.frames),
            start=tuple(made.boxes[0]),
            boxes=made.boxes,
            absent=made.absent,
        )
        for seed, made in distractor_scenes(count, frames)
    ]


def audited(model: Reader | Puppet, count: int = 6) -> audit_report.Audit:
    followed, found = MultiTracker(tracker(model)), targets(count)
    said = wordings([one.sentence for one in found])
    return summarize([audit_one(followed, one, w, BOTH) for one, w in zip(found, said, strict=True)], BOTH)


@pytest.fixture(scope="module")
def reader() -> audit_report.Audit:
    """The audit of a model that reads."""
    return audited(Reader(), 6)


# -- distractor pairs ----------------------------------------------------------------------------------


def pair_audit(model: Reader, count: int = 6) -> distractors.DistractorAudit:
    follower = MultiTracker(tracker(model))
    return summarize_pairs([audit_scene(follower, s, c) for s, c in distractor_scenes(count, 5)])


def test_a_model_that_reads_follows_the_sentence_on_distractor_pairs() -> None:
    found = pair_audit(Reader())
    assert found.verdict is DistractorVerdict.FOLLOWS
    assert found.flip.mean == 1.0
    assert found.lead.mean > 0.95
    assert found.moved.mean > 0.9
    judge_pairs(found, "reader")


def test_a_model_that_ignores_the_sentence_is_detected_on_distractor_pairs() -> None:
    found = pair_audit(Deaf())
    assert found.verdict is DistractorVerdict.IGNORES
    assert (found.flip.mean, found.lead.mean) == (0.0, 0.0)
    assert found.moved.mean == pytest.approx(0, abs=1e-9)
    assert found.named.mean == found.other.mean > 0.25  # on one of the two, half of the time rightly
    with pytest.raises(PartialResult, match="distractor pairs") as caught:
        judge_pairs(found, "deaf")
    assert caught.value.exit_code == 7


def test_a_model_that_follows_the_other_object_is_detected() -> None:
    class Contrary(Reader):
        """Reads the sentence and follows the other object."""

        def _named(self, text):
            return self.swap[super()._named(text)]

    model = Contrary()
    follower, scenes = MultiTracker(tracker(model)), []
    for seed, made in distractor_scenes(6, 4):
        words = [Reader()._named(model_text(s)) for s in (made.sentence, made.distractor_sentence)]
        model.swap = {words[0]: words[1], words[1]: words[0]}
        scenes.append(audit_scene(follower, seed, made))
    found = summarize_pairs(scenes)
    assert found.verdict is DistractorVerdict.ASTRAY
    assert found.lead.mean < -0.95
    with pytest.raises(PartialResult):
        judge_pairs(found, "contrary")


def model_text(sentence: str):
    import torch

    from vltrack.prep.tokenizers import WordPieceTokenizer

    tokens = WordPieceTokenizer.load().encode(sentence, 12)
    return Reader().read_text(torch.from_numpy(tokens.ids)[None], torch.from_numpy(tokens.mask)[None])


def test_scenes_are_fair_and_always_the_same() -> None:
    scenes = list(distractor_scenes(5, 6))
    again = list(distractor_scenes(5, 6))
    assert [seed for seed, _ in scenes] == [seed for seed, _ in again]
    assert all(seed >= distractors.FIRST_SEED for seed, _ in scenes)
    assert {seed for seed, _ in distractor_scenes(5, 6, seed=1)}.isdisjoint(seed for seed, _ in scenes)
    for _, made in scenes:
        assert made.distractor_boxes is not None
        assert not made.absent.any()
        assert made.sentence.split()[1] != made.distractor_sentence.split()[1]
        assert made.sentence.split()[2] == made.distractor_sentence.split()[2]


def test_a_clip_without_a_pair_is_refused() -> None:
    single = next(c for seed in range(20) if (c := synthesize_clip(seed, 2)).distractor_boxes is None)
    with pytest.raises(ValueError, match="No distractor pair"):
        audit_scene(MultiTracker(tracker(Reader())), 0, single)


def test_files_hold_every_scene(tmp_path: Path) -> None:
    few = pair_audit(Reader(), 5)
    assert few.verdict_text == "too few scenes to tell (5, 6 are needed)"
    judge_pairs(few, "reader")
    found = summarize_pairs([*few.scenes, few.scenes[0]])
    distractors.save(found, {"model": "reader"}, tmp_path)
    record = json.loads((tmp_path / "audit.json").read_text())
    assert (record["kind"], record["verdict"], len(record["scenes"])) == ("twins", "follows the sentence", 6)
    rows = list(csv.DictReader((tmp_path / "audit.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert {row["flipped"] for row in rows} == {"1"}


# -- sequences ------------------------------------------------------------------------------------------


def test_a_model_that_reads_gains_from_the_sentence(reader: audit_report.Audit) -> None:
    found = reader
    nl = found.modes[Mode.NL]
    assert nl.verdict is Verdict.LISTENS
    assert nl.auc is not None
    assert nl.auc > 60
    against = nl.totals[Variant.CONTRADICTING]
    assert against.moved.mean > 0.5
    assert against.gain is not None
    assert against.gain.low > 0
    assert Variant.NONE not in nl.totals  # the target would be unspecified
    box = found.modes[Mode.NLBBOX].totals
    assert box[Variant.NONE].moved.mean < 0.5 * box[Variant.CONTRADICTING].moved.mean  # the box helps, too
    judge(found, "reader")


def gaining(gains: list[float]) -> audit_report.ModeResult:
    """A mode in which the shuffled sentence costs ``gains`` points per target, the contradicting one none."""
    heard = [
        TargetAudit(
            name=f"t{number}",
            sentence="the dog",
            wording=Wording(shuffled="a bus", contradicting=contradict("the dog")),
            frames=5,
            auc={Mode.NL: 50.0},
            refused=(),
            effects=tuple(
                Effect(mode=Mode.NL, variant=variant, sentence="", moved=0.5, distance=1.0, auc=50.0 - worth,
                       gain=worth, refused=False)
                for variant, worth in ((Variant.SHUFFLED, gain), (Variant.CONTRADICTING, 0.0))
            ),
            skipped={},
        )
        for number, gain in enumerate(gains)
    ]  # fmt: skip
    return summarize(heard, (Mode.NL,)).modes[Mode.NL]


def test_few_targets_and_small_gains_are_not_enough() -> None:
    few = gaining([20.0, 21.0, 22.0])
    assert few.verdict is Verdict.FEW
    assert few.verdict_text == "too few targets to tell (3, 6 are needed)"
    assert few.totals[Variant.SHUFFLED].gain is not None
    assert few.totals[Variant.SHUFFLED].gain.to_dict()["p_value"] is None
    assert gaining([20.0] * 5).verdict is Verdict.FEW
    enough = gaining([20.0] * 6)
    assert (enough.verdict, enough.decided_by, enough.verdict_text) == (Verdict.LISTENS, Variant.SHUFFLED, "listens")
    small = gaining([0.26, 0.28, 0.30] * 4)
    assert small.totals[Variant.SHUFFLED].gain is not None
    assert small.totals[Variant.SHUFFLED].gain.low > 0  # surely above 0, but too small
    assert small.verdict is Verdict.NO_HELP
    assert gaining([0.6, 0.7] * 4).verdict is Verdict.LISTENS


def test_a_model_that_ignores_the_sentence_is_detected() -> None:
    found = audited(Deaf(), 3)
    assert found.ignored_modes == BOTH
    for result in found.modes.values():
        assert result.verdict is Verdict.IGNORES
        assert all(total.moved.mean < 1e-9 for total in result.totals.values())
    with pytest.raises(PartialResult, match=r"deaf ignores the sentence \(nl and nlbbox\)") as caught:
        judge(found, "deaf")
    assert caught.value.exit_code == 7


def test_reacting_only_to_the_presence_of_a_sentence_is_ignoring_it() -> None:
    class Flag(Deaf):
        """Follows another color as soon as there is a sentence, whatever it says."""

        def init_template(self, template, context, text=None):
            memory = super().init_template(template, context)
            heard = text is not None
            return Memory(flag_B=(memory.flag_B + heard) % len(NAMES), text=memory.text)

    found = audited(Flag(), 3)
    nlbbox = found.modes[Mode.NLBBOX]
    assert nlbbox.totals[Variant.NONE].moved.mean > 0.1
    assert nlbbox.verdict is Verdict.IGNORES


def test_one_batched_pass_gives_the_boxes_of_separate_passes(tmp_path: Path) -> None:
    """With a real network (random weights), all sentences and modes at once."""
    single = Tracker.load(tiny_weights(tmp_path), policy=replace(EAGER, own_grounding=True))
    images = clip(3)
    box = (30.0, 20.0, 40.0, 30.0)
    wording = Wording(shuffled="a bus", contradicting=contradict("the red thing on the left side"))
    sentence = "the red thing on the left side"
    texts = {
        Variant.TRUE: sentence,
        Variant.NONE: None,
        Variant.SHUFFLED: wording.shuffled,
        Variant.CONTRADICTING: wording.contradicting.text,
    }
    targets = {(Mode.NLBBOX, variant): Target(box=box, text=text) for variant, text in texts.items()}
    targets |= {(Mode.NL, variant): Target(text=text) for variant, text in texts.items() if text}
    together, count = track_targets(MultiTracker(single), frames_of(images), targets)
    assert count == 3
    moved = []
    for run, target in targets.items():
        alone, _ = track_targets(MultiTracker(single), frames_of(images), {run: target})
        np.testing.assert_allclose(together[run], alone[run], atol=1e-3, rtol=0)
        moved.append(alone[run])
    assert len({rows.round(2).tobytes() for rows in moved}) > 1, "all runs are the same: the test proves nothing"


def test_every_frame_is_decoded_once_for_all_runs() -> None:
    model, opened = Reader(), []
    (one,) = targets(1)

    def counted() -> Iterator[Frame]:
        for frame in one.frames():
            opened.append(frame.index)
            yield frame

    audit_one(MultiTracker(tracker(model)), replace(one, frames=counted), wordings([one.sentence])[0], BOTH)
    assert opened == [0, 1, 2, 3, 4]
    assert model.searched == [1] * 7 * 4


class Picky(Reader):
    """Refuses text-only initialization without a color word."""

    def ground(self, scene_B3SS, text):
        if self._named(text) < 0:
            raise GroundingFailed("No color in the text.")
        return super().ground(scene_B3SS, text)


def test_a_refused_start_counts_as_no_box_and_the_others_go_on() -> None:
    (one,) = targets(1)
    wording = Wording(shuffled="the dog", contradicting=contradict(one.sentence))
    heard = audit_one(MultiTracker(tracker(Picky())), one, wording, (Mode.NL,))
    effects = {effect.variant: effect for effect in heard.effects}
    refused = effects[Variant.SHUFFLED]
    assert refused.refused
    assert (refused.moved, refused.auc) == (1.0, 0.0)
    assert np.isnan(refused.distance)
    assert not effects[Variant.CONTRADICTING].refused
    assert heard.auc[Mode.NL] is not None
    assert heard.auc[Mode.NL] > 60


def test_a_model_that_never_starts_is_not_judged_as_ignoring() -> None:
    (one,) = targets(1)
    silent = replace(one, sentence="the dog", start=None)
    wording = Wording(shuffled="the cat", contradicting=contradict("the dog"))
    heard = audit_one(MultiTracker(tracker(Picky())), silent, wording, BOTH)
    assert heard.skipped == {Mode.NLBBOX: "no box in the first frame to start with"}
    assert heard.refused == (Mode.NL,)
    found = summarize([heard], BOTH)
    assert found.modes[Mode.NL].verdict is Verdict.NOTHING
    assert found.modes[Mode.NLBBOX].verdict is Verdict.NOTHING
    with pytest.raises(PartialResult, match=r"\(nl and nlbbox\)"):
        judge(found, "picky")


def test_without_ground_truth_only_the_movement_is_reported() -> None:
    (one,) = targets(1)
    bare = replace(one, boxes=None, absent=None)
    heard = audit_one(MultiTracker(tracker(Reader())), bare, wordings([one.sentence])[0], BOTH)
    found = summarize([heard], BOTH)
    assert found.modes[Mode.NL].verdict is Verdict.UNKNOWN
    assert found.modes[Mode.NL].auc is None
    assert all(total.gain is None for result in found.modes.values() for total in result.totals.values())
    text = json.dumps(audit_report.document(found, {"model": "reader"}), allow_nan=False)
    assert json.loads(text)["sequences"][0]["runs"][0]["gain"] is None


def test_movement_by_hand() -> None:
    one = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    two = np.array([[0.0, 0, 10, 10], [5, 0, 10, 10], [np.nan] * 4])
    moved, distance = movement(one, two)
    assert moved == pytest.approx((0 + (1 - 50 / 150) + 1) / 3)
    assert distance == pytest.approx((0 + 0.5) / 2)
    assert np.isnan(movement(one[:0], two[:0])).all()
    assert np.isnan(movement(two[2:], two[2:])).all()


def test_a_failed_target_is_reported_and_never_exits_with_0(reader: audit_report.Audit) -> None:
    error = GroundingFailed("no.")
    found = summarize(reader.targets[:2], BOTH, failed=[FailedTarget(name="bad", error=error)])
    with pytest.raises(PartialResult, match=r"1 of 3 targets failed; bad: no\."):
        judge(found, "reader")
    assert audit_report.document(found, {})["failed"] == [{"name": "bad", "code": "GroundingFailed", "message": "no."}]


def test_files_have_one_row_per_run_and_are_always_the_same(tmp_path: Path, reader: audit_report.Audit) -> None:
    assert audit_report.document(audited(Reader(), 6), {}) == audit_report.document(reader, {})
    found = summarize(reader.targets[:2], BOTH)
    audit_report.save(found, {"model": "reader", "data": "pairs"}, tmp_path)
    told = json.loads((tmp_path / "audit.json").read_text())
    assert (told["format"], told["version"], told["kind"]) == ("vltrack.audit", 1, "sentences")
    assert told["modes"]["nl"]["variants"]["shuffled"]["gain"]["sequences"] == 2
    rows = list(csv.DictReader((tmp_path / "audit.csv").read_text().splitlines()))
    assert len(rows) == 2 * 5
    first = rows[0]
    assert float(first["gain"]) == pytest.approx(float(first["auc_true"]) - float(first["auc"]), abs=1e-3)


def test_a_target_can_be_truncated() -> None:
    short = truncated(targets(1)[0], 3)
    assert [frame.index for frame in short.frames()] == [0, 1, 2]
    assert short.boxes is not None
    assert len(short.boxes) == 3


def test_a_model_that_never_moves_is_detected() -> None:
    """The verdict depends on the boxes, not on the kind of stub."""
    seen = prediction([(0.5, 0.5, 0.3, 0.3)], [1.0], 8)
    model = Puppet(seen.center_BSS[0].numpy(), seen.presence_BSS[0].numpy(), seen.boxes_BSS4[0].numpy())
    assert audited(model, 2).ignored_modes == BOTH


def test_sequences_become_targets(tmp_path: Path) -> None:
    from vltrack.datasets.reader import open_dataset
    from vltrack.datasets.synthetic import write_clip

    for number, (_, made) in enumerate(distractor_scenes(2, 3)):
        write_clip(made, tmp_path / f"clip-{number}")
    (tmp_path / "clip-1" / "nlp.txt").unlink()
    found, left_out = audit_targets_of(open_dataset(tmp_path).sequences)
    assert [one.name for one in found] == ["clip-0"]
    assert left_out == {"clip-1": "no sentence"}
    assert found[0].start is not None
    assert len(list(found[0].frames())) == 3


# -- sentences ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "contradicted", "how"),
    [
        ("the red car on the left", "the blue car on the right", "attribute"),
        ("a man in Red", "a woman in Blue", "attribute"),
        ("the small dog", "the large dog", "attribute"),
        ("big brown horse, second from the left", "small white horse, second from the right", "attribute"),
        ("the black and white dog", "the red and blue dog", "attribute"),
        ("red-haired girl", "blue-haired boy", "attribute"),
        ("the dog", "the cat", "class"),
        ("basketball player", "basketball ball", "class"),
    ],
)
def test_contradictions(said: str, contradicted: str, how: str) -> None:
    found = contradict(said)
    assert (found.text, found.how) == (contradicted, how)
    assert found.swapped


def test_a_sentence_without_known_words_is_replaced_by_another_thing() -> None:
    found = contradict("the zorb")
    assert found.how == "object"
    assert found.swapped == ()
    assert found.text in PLAIN
    assert found.text != plain_phrase("the zorb")  # the shuffled one is another


def test_opposites_never_keep_a_word() -> None:
    table = opposites()
    assert all(word != other for word, other in table.items())
    for one, other in (("left", "right"), ("small", "large"), ("man", "woman"), ("first", "last")):
        assert (table[one], table[other]) == (other, one)


def test_shuffling_is_a_derangement_and_always_the_same() -> None:
    said = [f"the {color} {thing}" for color in ("red", "blue", "green") for thing in ("dog", "bus", "cup")]
    others = shuffled(said)
    assert others == shuffled(said)
    assert sorted(others) == sorted(said)
    shared = [len(content_words(a) & content_words(b)) for a, b in zip(said, others, strict=True)]
    assert all(a != b for a, b in zip(said, others, strict=True))
    assert sum(shared) <= 3
    assert shuffled(said, seed=1) != others


def test_no_target_keeps_its_own_words() -> None:
    others = shuffled(["the dog", "The dog", "the dog"])
    assert all(other in PLAIN for other in others)
    (alone,) = shuffled(["the red umbrella"])
    assert not content_words(alone) & {"red", "umbrella"}
    assert shuffled([]) == []
    everything = " ".join(PLAIN)
    assert plain_phrase(everything) in PLAIN
