"""Voting and repair against second implementations written from the description, in exact fractions and dictionaries."""

import random
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from fractions import Fraction as Q

import numpy as np
import pytest
from conftest import DATA
from pycocotools import mask as coco

from stvg_nb.dataset import VotingConfig, Work, build_samples, voted
from stvg_nb.foundations.benchmarks import load
from stvg_nb.foundations.geometry import Interval, Tube, xyxy_to_xywh
from stvg_nb.foundations.masks import MaskDatabase, decode_mask
from stvg_nb.foundations.samples import read_samples, true_seconds
from stvg_nb.foundations.scoring import evaluate
from stvg_nb.repair import (
    FLAGS,
    VARIANTS,
    answer_tube,
    fragment,
    fragmentation_study,
    no_answer,
    repair,
    union_masks,
)
from stvg_nb.voting import Tracks, upper_bound, vote

CASES = 2000

# exact boxes: four whole numbers, measures as fractions -------------------------------------------------


def area(b):
    return (b[2] - b[0]) * (b[3] - b[1])


def common(a, b):
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def iou(a, b):
    return Q(common(a, b), area(a) + area(b) - common(a, b))


def overlap(a, b):
    return Q(common(a, b), min(area(a), area(b)))


def plus_one(b):
    return (b[0], b[1], b[2] + 1, b[3] + 1)


def minus_one(b):
    return (b[0], b[1], b[2] - 1, b[3] - 1)


def tubes_of(video):
    "{frame: {ID: box}} -> {ID: Tube}"
    ids = {i for here in video.values() for i in here}
    return {
        i: Tube.from_dict({t: list(map(float, here[i])) for t, here in video.items() if i in here})
        for i in ids
    }


def plain(tubes):
    return {i: (t.frames.tolist(), t.boxes.tolist()) for i, t in tubes.items()}


def a_box(r, grid=6, side=5):
    x, y = r.randrange(grid), r.randrange(grid)
    return (x, y, x + r.randint(2, side), y + r.randint(2, side))


# voting -------------------------------------------------------------------------------------------------


def second_vote(video, scores, truth, interval, marks, min_iou, code):
    "Equations 2 and 3. truth: {frame: box}; marks: {frame: IDs} or None."

    def winners(only_marked):
        out = []
        for t, g in sorted(truth.items()):
            if not interval[0] <= t < interval[1]:
                continue
            look = t + 1 if code else t
            readable = {
                i: b
                for i, b in video.get(look, {}).items()
                if not only_marked or i in marks.get(look, ())
            }
            seen = {i: iou(plus_one(g) if code else g, b) for i, b in readable.items()}
            best = None
            for i in sorted(seen):
                if seen[i] <= min_iou:
                    continue
                if (
                    best is None
                    or seen[i] > seen[best]
                    or (seen[i] == seen[best] and not code and scores[i] > scores[best])
                ):
                    best = i
            out.append((t, best, seen.get(best, Q(0))))
        return out

    rows, unmarked = winners(marks is not None), False
    if marks is not None and not code and all(w is None for _, w, _ in rows):
        rows = winners(False)
        unmarked = any(w is not None for _, w, _ in rows)
    counted, summed = {}, {}
    for _, w, q in rows:
        if w is not None:
            counted[w] = counted.get(w, 0) + 1
            summed[w] = summed.get(w, Q(0)) + q
    answer = None
    for i in counted:  # in the order in which they were first counted
        if answer is None or counted[i] > counted[answer]:
            answer = i
        elif (
            counted[i] == counted[answer]
            and not code
            and (summed[i], -i) > (summed[answer], -answer)
        ):
            answer = i
    fits = []
    for t, _, _ in rows:
        b = video.get(t + 1 if code else t, {}).get(answer)
        if b:
            fits.append(iou(plus_one(truth[t]) if code else truth[t], b))
    return dict(
        id=answer,
        winners=[w or 0 for _, w, _ in rows],
        ious=[q for _, _, q in rows],
        votes=counted,
        unmarked=unmarked,
        mean_iou=sum(fits) / len(fits) if answer else None,
        visible=Q(len(fits), len(rows)) if answer else 0,
    )


def voting_case(r):
    n = r.randint(1, 9)
    ids = r.sample(range(1, 10), r.randint(0, 5))
    far = r.random() < 0.1  # a target that nobody overlaps
    video = {t: {i: a_box(r) for i in ids if r.random() < 0.75} for t in range(n + 1)}
    video = {t: here if r.random() < 0.85 else {} for t, here in video.items()}
    truth = {t: tuple(v + 100 * far for v in a_box(r)) for t in range(n) if r.random() < 0.9}
    interval = (r.randint(0, 2), r.randint(max(n - 2, 0), n)) if r.random() < 0.3 else (0, n)
    if r.random() < 0.3:  # a close race: one box each, in turns
        for t in range(n):
            video[t] = {i: a_box(r, 2, 2) for i in ids}
    marks = (
        None
        if r.random() < 0.4
        else {t: {i for i in here if r.random() < r.choice((0, 0.6))} for t, here in video.items()}
    )
    return (
        video,
        {i: r.choice((0.5, 0.9)) for i in range(1, 10)},
        truth,
        interval,
        marks,
        r.choice((0, 0, Q(3, 10))),
    )


def test_voting_against_a_second_implementation():
    r, seen = random.Random(1), Counter()
    for case in range(CASES):
        video, scores, truth, interval, marks, min_iou = voting_case(r)
        tube = Tube.from_dict({t: list(map(float, b)) for t, b in truth.items()}, *interval)
        given = marks if marks is None or case % 3 else (lambda t, marks=marks: marks.get(t, ()))
        for code in (False, True):
            want = second_vote(video, scores, truth, interval, marks, min_iou, code)
            got = vote(
                Tracks(tubes_of(video), scores),
                tube,
                given,
                float(min_iou),
                "code" if code else "ours",
            )
            got_all = dict(
                id=got.id, winners=got.winners.tolist(), votes=got.votes, unmarked=got.unmarked
            )
            assert got_all == {k: want[k] for k in got_all}, (case, code)
            assert got.ious.tolist() == pytest.approx([float(q) for q in want["ious"]], abs=1e-12)
            assert got.visible_share == pytest.approx(float(want["visible"]), abs=1e-12)
            if want["mean_iou"] is None:
                assert got.mean_iou is None
            else:
                assert got.mean_iou == pytest.approx(float(want["mean_iou"]), abs=1e-12)
            if got.votes:
                assert got.vote_share == pytest.approx(got.votes[got.id] / sum(got.votes.values()))
            top = [i for i in want["votes"] if want["votes"][i] == max(want["votes"].values())]
            seen.update(
                missed=got.missed,
                unmarked=got.unmarked,
                tied=len(top) > 1,
                empty=any(not video.get(t) for t in truth),
                outside=any(not interval[0] <= t < interval[1] for t in truth),
                marks=marks is not None,
            )
            measures = [[iou(g, b) for b in video.get(t, {}).values()] for t, g in truth.items()]
            seen["frame tie"] += any(m and max(m) > 0 and m.count(max(m)) > 1 for m in measures)
    assert min(seen.values()) > 100, seen


def boxes_with(ious):
    "A true box of 100 x 100 and boxes inside it with the given IoUs."
    return [[0, 0, 100, round(100 * q)] for q in ious]


@pytest.mark.parametrize(
    "winners, ious, answer, share",
    [([2, 2, 3, 2], [0.5] * 4, 2, 0.75), ([1, 1, 4, 4], [0.5, 0.6, 0.7, 0.8], 4, 0.5)],
)
def test_worked_votes(winners, ious, answer, share):
    tubes = {
        i: Tube.from_dict(
            {t: b for t, (w, b) in enumerate(zip(winners, boxes_with(ious))) if w == i}
        )
        for i in set(winners)
    }
    v = vote(tubes, Tube.dense(0, [[0, 0, 100, 100]] * 4))
    assert (v.id, v.vote_share, v.winners.tolist()) == (answer, share, winners)
    assert v.mean_iou == pytest.approx(
        sum(q for w, q in zip(winners, ious) if w == answer) / winners.count(answer)
    )
    assert (
        vote(tubes, Tube.dense(0, [[0, 0, 100, 100]] * 4), variant="release", shift=0).id
        == winners[0]
    )


# repair -------------------------------------------------------------------------------------------------


def second_repair(
    video, frames, target, variant, literal=False, iou_min=Q(2, 5), overlap_min=Q(3, 5)
):
    "Algorithm 1, line by line: per-frame relabelling on a copy. Returns {t: (flag, lender, box)} and the aliases."
    here = {t: dict(video.get(t, {})) for t in frames}
    out = {
        t: ("kept", target, here[t][target]) if target in here[t] else ("none", 0, None)
        for t in frames
    }
    if variant == "off":
        return out, []
    if variant == "release":
        return second_released(here, frames, target, out), []
    anchor, aliases = {t: target in here[t] for t in frames}, []

    def relabel(t, lender, flag):
        box = here[t].pop(lender)
        here[t][target] = box
        out[t] = (flag, lender, box)
        anchor[t] = flag != "largest" or literal

    for t in frames:
        if target in here[t]:
            continue
        known = [a for a in aliases if a in here[t]]
        if known:
            relabel(t, known[-1], "alias")
            continue
        refs = sorted((abs(u - t), u) for u in frames if target in here[u] and anchor[u])
        if refs and here[t]:
            ref = here[refs[0][1]][target]
            best = sorted(here[t], key=lambda i: (-iou(ref, here[t][i]), i))[0]
            if iou(ref, here[t][best]) >= iou_min or overlap(ref, here[t][best]) >= overlap_min:
                aliases.append(best)
                relabel(t, best, "matched")
                continue
        if here[t] and variant != "no_largest":
            relabel(t, sorted(here[t], key=lambda i: (-area(here[t][i]), i))[0], "largest")
    return out, aliases


def second_released(here, frames, target, out):
    for t in frames:
        if target in here[t]:
            continue
        before, after = (
            [u for u in frames if u < t and target in here[u]],
            [u for u in frames if u > t and target in here[u]],
        )
        largest = min(here[t], key=lambda i: (-area(here[t][i]), i)) if here[t] else None
        if not before and not after:
            if here[t]:
                out[t] = ("largest", largest, here[t][largest])
            continue
        ref = here[before[-1] if before else after[0]][target]
        best = min(here[t], key=lambda i: (-iou(ref, here[t][i]), i), default=None)
        if best is not None and iou(ref, here[t][best]) > 0:
            out[t] = ("matched", best, here[t][best])
        elif before and here[t]:
            out[t] = ("largest", largest, here[t][largest])
        else:
            out[t] = ("copied", 0, ref)
    return out


def repair_case(r):
    n = r.randint(0, 16)
    ids = r.sample(range(1, 9), r.randint(0, 5))
    grid = r.choice(
        (2, 4, 9)
    )  # dense scenes, so that matches and several aliases occur, and wide ones, where nothing fits
    still = {i: a_box(r, grid) for i in ids}  # some boxes stay where they are
    stays, present = r.random(), r.choice((0.2, 0.5, 0.8))
    video = {
        t: {
            i: still[i] if r.random() < stays else a_box(r, grid)
            for i in ids
            if r.random() < present
        }
        for t in range(n)
    }
    frames = sorted(r.sample(range(n), r.randint(0, n))) if r.random() < 0.3 else list(range(n))
    return video, frames, r.choice(ids) if ids and r.random() < 0.9 else 42


@pytest.mark.parametrize(
    "variant, literal", [*((v, False) for v in VARIANTS), ("paper", True), ("no_largest", True)]
)
def test_repair_against_a_second_implementation(variant, literal):
    r, seen = random.Random(2), Counter()
    for case in range(CASES):
        video, frames, target = repair_case(r)
        want, aliases = second_repair(video, frames, target, variant, literal)
        source = tubes_of(video)
        got = repair(source, target, frames, variant, "literal" if literal else "repaired")
        assert got.flags.tolist() == [want[t][0] for t in frames], case
        assert got.sources.tolist() == [want[t][1] for t in frames], case
        assert [None if np.isnan(b).any() else tuple(b) for b in got.boxes.tolist()] == [
            want[t][2] for t in frames
        ], case
        assert got.aliases == tuple(aliases), case
        assert plain(source) == plain(tubes_of(video))
        seen.update(got.flags.tolist())
        seen.update(
            {
                "several aliases": len(set(aliases)) > 1,
                "absent": target not in source,
                "empty": any(not video[t] for t in frames),
            }
        )
    expected = dict(
        off="",
        paper="alias matched largest",
        no_largest="alias matched",
        release="matched largest copied",
    )[variant].split()
    assert min(seen[k] for k in ("kept", "none", "absent", "empty", *expected)) > 100, seen
    assert set(seen) - {"several aliases", "absent", "empty"} <= set(FLAGS) and (
        variant in ("off", "release") or seen["several aliases"] > 100
    )


def test_worked_repair():
    video = {
        0: {1: (0, 0, 10, 10)},
        1: {7: (2, 0, 12, 10), 8: (50, 0, 90, 40)},
        2: {7: (4, 0, 14, 10)},
        3: {8: (50, 0, 90, 40)},
    }
    got = repair(tubes_of(video), 1, range(4))
    assert iou((0, 0, 10, 10), (2, 0, 12, 10)) == Q(2, 3)
    assert (
        got.flags.tolist() == ["kept", "matched", "alias", "largest"]
        and got.sources.tolist() == [1, 7, 7, 8]
        and got.aliases == (7,)
    )


def test_released_repair_sees_only_common_frames():
    video = {t: {1: (0, 0, 10, 10)} if t < 3 else {2: (1, 0, 11, 10)} for t in range(8)}
    a = answer_tube(tubes_of(video), 1, Interval.frames(0, 8), "code", truth=Interval.frames(2, 5))
    assert a.repaired.flags.tolist() == ["kept"] * 3 + ["matched"] * 2 + [
        "none"
    ] * 3 and a.tube.interval == Interval.frames(0, 8)
    assert a.repaired.variant == "release" and a.tube.frames.tolist() == [0, 1, 2, 3, 4]


def test_box_modes_shift_the_lower_right_corner():
    video = {0: {1: (0, 0, 10, 10)}, 1: {2: (0, 0, 10, 10)}}
    got = repair(tubes_of(video), 1, [0, 1], box_mode="code_eval")
    assert got.boxes.tolist() == [list(minus_one((0, 0, 10, 10)))] * 2 and got.flags.tolist() == [
        "kept",
        "matched",
    ]


def test_tube_of_an_answer_keeps_the_predicted_interval():
    tracks = Tracks({1: Tube.dense(0, [[0, 0, 10, 10]] * 20)}, fps=10.0, start=0, stop=20)
    for interval, frames, span in (
        (Interval(0.26, 0.44), [3], (3, 4)),
        (Interval(1.5, 9.0), [15, 16, 17, 18, 19], (15, 90)),
        (Interval(0.5, 0.5), [5], (5, 6)),
        (Interval(-1.0, 0.2), [0, 1], (0, 2)),
        (Interval(1.0, 0.5), [], (10, 5)),
        (Interval(30, 40), [], (300, 400)),
    ):
        tube = answer_tube(tracks, 1, interval).tube
        assert (tube.frames.tolist(), (tube.start, tube.end)) == (frames, span)


def test_union_of_masks_equals_the_pixel_union():
    rng = np.random.default_rng(0)
    db = MaskDatabase(17, 11, 5.0, 8)
    for i in (1, 2, 4):
        db.add_object(i)
        for f in range(8):
            if rng.random() < 0.7:
                db.add(i, f, rng.random((11, 17)) < 0.3)
    for ids in ([1], [4, 1], [1, 2, 4, 2], [9, 2], []):
        masks, unknown = union_masks(db, ids)
        assert unknown == [i for i in ids if i == 9]
        for f in range(8):
            want = np.zeros((11, 17), bool)
            for i in ids:
                if (m := db.mask(i, f)) is not None:
                    want |= m
            got = (
                decode_mask(masks[f]["counts"], 11, 17) if f in masks else np.zeros((11, 17), bool)
            )
            assert (got == want).all() and (f in masks) == want.any()


def test_fragmentation_loses_exactly_what_it_says():
    truth = Tube.dense(5, [[k, 0, k + 30, 60] for k in range(80)])
    tubes = {
        3: Tube.dense(0, [[k - 5, 0, k + 25, 60] for k in range(100)]),
        8: Tube.dense(0, [[300, 0, 400, 200]] * 100),
    }
    for share in (0, 0.25, 0.5, 1):
        for how in ("relabel", "remove", "both"):
            broken = fragment(tubes, 3, share, how, span=truth.interval)
            lost = set(range(100)) - set(broken.tubes[3].frames.tolist())
            assert len(lost) == round(80 * share) and lost <= set(range(5, 85))
            fresh = [f for i in broken.tubes if i > 8 for f in broken.tubes[i].frames.tolist()]
            assert len(fresh) == len(set(fresh)) and set(fresh) <= lost
            assert how == "both" or set(fresh) == (lost if how == "relabel" else set())
    rows = fragmentation_study([(tubes, truth, 3)], shares=(0, 0.5), how="relabel")
    score = {(r["share"], r["variant"]): r["m_viou"] for r in rows}
    assert (
        score[0, "off"] == 1
        and score[0.5, "off"] == 0.5
        and score[0.5, "paper"] == score[0.5, "no_largest"] == pytest.approx(1.0)
    )


# real layouts ---------------------------------------------------------------------------------------------


def rectangle_database(sample, offset=0):
    "A database whose number 2 is the target (whole pixels) and whose number 1 stands in the corner."
    db = MaskDatabase(
        sample.width, sample.height, sample.fps, sample.frame_count, name=sample.video
    )
    db.add_object(1)
    db.add_object(2)
    boxes = np.concatenate(
        [[[0, 0, 20, 20]], sample.tube.boxes.round().clip(0, [*db.size[::-1]] * 2)]
    )
    corner, *codes = [c["counts"].decode() for c in coco.frPyObjects(xyxy_to_xywh(boxes), *db.size)]
    for t, code in zip(sample.tube.frames.tolist(), codes):
        if t + offset < sample.frame_count:
            db.add(1, t, corner)
            db.add(2, t + offset, code)
    return db


@pytest.fixture(scope="module")
def hcstvg():
    return load("hcstvg", DATA / "hcstvg/v1_test.json")


def build(samples, database, path, **settings):
    "Samples voted on with databases that a function makes; videos are not looked at."
    by_video = {s.video: s for s in samples}

    def number(video):
        sample = by_video[video.name]
        out = path.parent / f"{sample.key}.masks.json.gz"
        database(sample).save(out)
        return out

    work = Work(samples, lambda s: path.parent / s.video, number, config=VotingConfig(**settings))
    return build_samples(work, path, videos=path.parent, databases=path.parent, quiet=True)


def test_samples_from_hcstvg_annotations(hcstvg, tmp_path):
    bases = {s.key: rectangle_database(s) for s in hcstvg}
    header = build(hcstvg, lambda s: bases[s.key], tmp_path / "t.jsonl")
    samples, _ = read_samples(tmp_path / "t.jsonl", locate=False)
    assert header["counts"]["kept"] == len(samples) == len(hcstvg) == 6
    assert not any(header["counts"]["left_out"].values())
    for r, s in zip(samples, hcstvg):
        assert (r.answer_ids, r.interval, r.query) == ((2,), s.tube.interval, s.query)
        assert r.tube.to_dict() == s.tube.to_dict()
        assert r.vote["vote_share"] == r.vote["visible_share"] == 1 and r.vote["mean_iou"] > 0.9


def test_upper_bound_is_what_the_scorer_says(hcstvg):
    "The right number at the right time, as a prediction file, scores its upper bound."
    records, bounds = [], {}
    for s in hcstvg:
        db = rectangle_database(s)
        v = vote(db, s.tube)
        records.append(answer_tube(db, v.id, s.tube.interval, "off").record(s.key))
        bounds[s.key] = upper_bound(db, s.tube, v)["all"]
    records[0], bounds[records[0]["key"]] = no_answer(records[0]["key"]), 0.0
    result = evaluate("hcstvg", "clean", DATA / "hcstvg/v1_test.json", records, per_sample=True)
    assert {k: r["viou"] for k, r in result["per_sample"].items()} == pytest.approx(
        bounds, abs=1e-12
    )
    assert result["metrics"]["m_tiou"] == pytest.approx(5 / 6) and result["n_missing"] == 0


def test_the_released_pairing_is_one_frame_late(hcstvg):
    for s in hcstvg:
        late = rectangle_database(s, offset=1)
        ours = voted(s, rectangle_database(s))
        released = voted(s, late, VotingConfig(variant="release"))
        assert ours.vote["mean_iou"] > 0.9 and released.vote["mean_iou"] > 0.9
        assert released.answer_ids == (2,)
        seen = sum(t + 1 < s.frame_count for t in s.tube.frames.tolist())
        assert released.vote["visible_share"] == seen / len(s.tube.frames)


CHILD = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from test_voting_repair import DATA, build, load, rectangle_database
    asked = []
    def database(s):
        asked.append(s)
        if len(asked) == {last}:
            os.kill(os.getpid(), signal.SIGKILL)
        return rectangle_database(s)
    build(load("hcstvg", DATA/"hcstvg/v1_test.json"), database, Path({out!r}))
"""


def test_a_killed_build_continues(tmp_path):
    def run(out, last):
        program = textwrap.dedent(CHILD).format(tests=str(DATA.parent), last=last, out=str(out))
        return subprocess.run([sys.executable, "-c", program]).returncode

    assert run(tmp_path / "whole.jsonl", 0) == 0
    side = tmp_path / "killed.jsonl.partial"
    assert run(tmp_path / "killed.jsonl", 4) == -signal.SIGKILL
    finished = side.read_bytes().count(b"\n") - 1
    assert finished == 3 and not (tmp_path / "killed.jsonl").exists()
    side.write_bytes(side.read_bytes() + b'{"key": "cut o')
    asked = []

    def database(s):
        asked.append(s.key)
        return rectangle_database(s)

    build(load("hcstvg", DATA / "hcstvg/v1_test.json"), database, tmp_path / "killed.jsonl")
    assert len(asked) == 6 - finished and not side.exists()
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_other_settings_start_again(hcstvg, tmp_path, capsys):
    bases = {s.key: rectangle_database(s) for s in hcstvg}

    def stop_at(n):
        left = iter(range(n))

        def database(s):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return bases[s.key]

        return database

    with pytest.raises(KeyboardInterrupt):
        build(hcstvg, stop_at(4), tmp_path / "t.jsonl")
    build(hcstvg, stop_at(6), tmp_path / "t.jsonl", min_iou=0.3)
    assert "starting again" in capsys.readouterr().err
    assert read_samples(tmp_path / "t.jsonl", locate=False)[1]["voting"]["min_iou"] == 0.3


def test_vidstg_sentences_give_votes_in_their_clip(annotations):
    "Real VidSTG records: one sample a sentence, seconds counted from the start of the used segment."
    bench = load("vidstg", annotations / "vidstg/val_annotations.json")
    done = 0
    for i in range(0, len(bench), max(len(bench) // 40, 1)):
        s = bench[i]
        if s.interval is None or s.window is None:
            continue
        n = int(s.interval.end - s.interval.start)
        tube = Tube.dense(int(s.interval.start), [[10, 10, 50, 90]] * n)
        db = MaskDatabase(64, 100, s.fps, s.frame_count, start=s.window[0], stop=s.window[1])
        db.add_object(5)
        mask = np.zeros((100, 64), bool)
        mask[10:90, 10:50] = True
        db.add(5, int(s.interval.start), mask)
        s = replace(s, width=None, height=None, tube=tube)
        r = voted(s, db, VotingConfig(variant="release"))
        assert r.answer_ids == (5,) and r.vote["visible_share"] == pytest.approx(1 / n)
        span = true_seconds(r)
        assert span.start == pytest.approx((s.interval.start - s.window[0]) / s.fps)
        assert span.length == pytest.approx(n / s.fps)
        done += 1
    assert done >= 20
