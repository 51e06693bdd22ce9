"""Puppets play each benchmark: what comes back through files is what the scripts say."""

from dataclasses import fields, replace
from functools import cache
from unittest.mock import patch

import numpy as np
import pytest

from stvg_nb.foundations.files import InputError, read_json, repo_root
from stvg_nb.foundations.geometry import Interval, Tube, xywh_to_xyxy
from stvg_nb.foundations.samples import Sample
from stvg_nb.foundations.settings import DataConfig
from stvg_nb.foundations.sources import load_split
from stvg_nb.foundations.video import sample_indices
from stvg_nb.rows import VIEWS, number_split
from stvg_nb.theatre.clips import LAYOUTS, mevis_frames
from stvg_nb.theatre.layouts import ocr_records, segment, sign
from stvg_nb.theatre.scripts import DOMAINS, Dice
from stvg_nb.theatre.sentences import expressions, thing_question
from stvg_nb.theatre.stories import make_script
from stvg_nb.theatre.truth import full_boxes, truth
from stvg_nb.theatre.views import ASKED, script_of, thing_tube

FIRST = 17  # in the test split: 15 frames per second, a window, a thing that is handled
CAST = [("stage", FIRST), ("street", FIRST)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("played")


def played(folder, benchmark, split="test", **options):
    data = DataConfig(source="puppets", root=str(folder), domain="stage+street")
    options = dict(clips=2, first=FIRST, progress=False) | options
    return load_split(data, benchmark, split, **options)


@cache
def clip(domain, index):
    script = make_script("test", domain, index)
    return script, truth(script)


def written(boxes):  # what two digits of left, top, width and height leave of xyxy boxes
    x1, y1, x2, y2 = np.asarray(boxes, float).T
    return xywh_to_xyxy(np.round(np.stack([x1, y1, x2 - x1, y2 - y1], 1), 2))


def size(script):
    return dict(width=script.width, height=script.height)


def span(script):
    return Interval.frames(script.start, script.end)


# samples as the scripts say ----------------------------------------------------------------------


def hcstvg(script, facts, i):
    return [
        Sample(
            f"{script.name}.mp4",
            "hcstvg",
            "stvg",
            script.query,
            f"{script.name}.mp4",
            **size(script),
            fps=float(script.fps),
            frame_count=script.frames,
            interval=span(script),
            tube=Tube.dense(script.start, written(full_boxes(facts["tube"]))),
            query_type=script.type,
            extra=dict(st_frame=script.start + 1),
        )
    ]


def vidstg(script, facts, i):
    n, (first, last) = len(script.puppets), segment(script)
    asked = [("d0", script.query, script.target), ("i0", script.question, script.target)]
    if thing_question(script):
        event = next(e for e in script.events if (e.start, e.end) == (script.start, script.end))
        asked.append(("i1", thing_question(script), n + event.prop))
    out = []
    for letter, query, target in asked:
        seen = facts["tubes"][target + 1]
        inside = full_boxes(Tube(script.start, script.end, seen.frames, seen.boxes)).astype(int)
        boxes = dict(zip(range(script.start, script.end), inside.astype(float)))
        end = ({f: b for f, b in zip(seen.frames.tolist(), seen.boxes)} | boxes).get(
            min(script.end, last)
        )
        kind = "puppet" if target < n else script.props[target - n].kind
        extra = dict(vid=script.name, target_id=target, category=kind, end_box=end)
        extra |= dict(temporal_gt=(script.start, script.end), used_segment=(first, last))
        out.append(
            Sample(
                f"{script.name}#{i}#{letter}",
                "vidstg",
                "stvg",
                query,
                f"{script.domain}/{script.name}.mp4",
                **size(script),
                fps=float(script.fps),
                frame_count=script.frames,
                interval=span(script),
                tube=Tube.dense(script.start, inside),
                window=(first, last + 1),
                group="interrogative" if letter[0] == "i" else "declarative",
                query_type=script.type,
                extra=extra,
            )
        )
    return out


def st_align_of(script, key, query, query_type, boxes, placed=False):
    "`placed`: the times are given, and the loader takes the boxes for those of the whole clip."
    times = None if placed else (script.start, script.end - 1)
    by_frame = dict(zip(range(script.start, script.end), boxes.tolist()))
    tube = Tube.dense(script.start, boxes)
    return Sample(
        str(key),
        "st-align",
        "svg" if placed else "stvg",
        query,
        f"{script.name}.mp4",
        **size(script),
        interval=None if placed else span(script),
        tube=replace(tube, start=0, end=script.frames) if placed else tube,
        window=(0, script.frames),
        query_type=query_type,
        extra=dict(split=(0, script.frames - 1), span=times, boxes=by_frame),
    )


def st_align(script, facts, i):
    boxes = written(full_boxes(facts["tube"]))
    return [st_align_of(script, i, script.query, script.type, boxes)]


def mevis_of(script, frames, which, query, group, zero):
    return Sample(
        f"{script.name}#{which}",
        "mevis",
        "rvos",
        query,
        script.name,
        **size(script),
        frame_count=len(frames),
        extra=dict(
            frames=[f"{f:05d}" for f in frames], anno_id=[zero + k for k in group], obj_id=group
        ),
    )


def mevis(script, facts, i):
    zero = 16 * (2 * script.index + DOMAINS.index(script.domain))
    about = enumerate(expressions(script))
    return [mevis_of(script, mevis_frames(script), k, q, g, zero) for k, (q, g) in about]


def charades(script, facts, i):
    return [
        Sample(
            f"{script.name}#0",
            "charades-sta",
            "vtg",
            script.query,
            f"{script.name}.mp4",
            interval=Interval(script.start / script.fps, script.end / script.fps),
            extra=dict(duration=script.duration, sentence=0),
        )
    ]


def tvgbench(script, facts, i):
    first, last = segment(script)
    whole = (first, last) == (0, script.frames - 1)
    window = None if whole else (first / script.fps, (last + 1) / script.fps)
    start, end = (script.start - first) / script.fps, (script.end - first) / script.fps
    length = (last + 1 - first) / script.fps
    extra = dict(duration=length, window=window, dataset_name="puppets", source="stvg-puppets")
    return [
        Sample(
            str(i),
            "tvgbench",
            "vtg",
            script.query,
            f"{script.name}.mp4",
            interval=Interval(start, end),
            window=window,
            group=script.type,
            extra=extra | dict(question_type="video temporal grounding"),
        )
    ]


def ocr(script, facts, i):
    free, choice = ocr_records(script)
    answers = [sign(script)[0], choice["answer"]]
    return [
        Sample(
            str(2 * i + k),
            "mme-videoocr",
            "ocr",
            "What is written on the sign?",
            f"{script.name}_sign.mp4",
            group="text recognition",
            extra=dict(
                eval_method=("containment_match", "multiple_choice")[k],
                answer=answers[k],
                option=[[], choice["option"]][k],
                task="sign",
                task_type="text recognition",
                scored=True,
            ),
        )
        for k in range(2)
    ]


DIRECT = {
    "hcstvg": hcstvg,
    "vidstg": vidstg,
    "st-align": st_align,
    "mevis": mevis,
    "charades-sta": charades,
    "tvgbench": tvgbench,
    "mme-videoocr": ocr,
}


def questions(script, facts, i, placed=False):
    "Keys count items, so they are given afterwards."
    boxes = written(full_boxes(facts["tube"]))
    out = [st_align_of(script, 0, script.question, "person", boxes, placed)]
    if thing_question(script):
        x1, y1, x2, y2 = thing_tube(script, facts).boxes.T
        boxes = xywh_to_xyxy(np.stack([x1, y1, x2 - x1, y2 - y1], 1))
        out.append(st_align_of(script, 0, thing_question(script), "object", boxes, placed))
    return out


def groups(script, facts, i):
    listed = [(k, q, g) for k, (q, g) in enumerate(expressions(script)) if len(g) > 1]
    if not listed:
        return []
    frames = sample_indices(script.frames, script.fps).tolist()
    which, query, group = Dice("groups", script.name).pick(listed)
    zero = 1000 * script.index + 100 * DOMAINS.index(script.domain)
    return [mevis_of(script, frames, which, query, group, zero)]


VIEWED = {
    "times": charades,
    "questions": questions,
    "question-places": lambda *clip: questions(*clip, placed=True),
    "groups": groups,
}


# compared ----------------------------------------------------------------------------------------


def same(a, b):
    if isinstance(a, Tube):
        return (
            (a.start, a.end) == (b.start, b.end)
            and same(a.frames, b.frames)
            and same(a.boxes, b.boxes)
        )
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is not None and b is not None and np.array_equal(a, b)
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


def differing(sample, direct):
    "Names of the fields in which two samples differ."
    names = [f.name for f in fields(Sample)]
    return [n for n in names if not same(getattr(sample, n), getattr(direct, n))]


def test_every_benchmark_and_view_is_compared():
    assert set(DIRECT) == set(LAYOUTS) and set(VIEWED) == set(ASKED) <= set(VIEWS)


@pytest.mark.parametrize("benchmark", DIRECT)
def test_samples_through_files_are_those_of_the_scripts(folder, benchmark):
    through = list(played(folder, benchmark).samples)
    direct = [s for i, c in enumerate(CAST) for s in DIRECT[benchmark](*clip(*c), i)]
    assert [s.key for s in through] == [s.key for s in direct]
    assert {d.key: differing(s, d) for s, d in zip(through, direct) if differing(s, d)} == {}


@pytest.mark.parametrize("view", VIEWED)
def test_samples_of_a_view_are_those_of_the_scripts(folder, view):
    through = list(played(folder, ASKED[view].benchmark, view=view).samples)
    direct = [s for i, c in enumerate(CAST) for s in VIEWED[view](*clip(*c), i)]
    if ASKED[view].benchmark == "st-align":
        direct = [replace(s, key=str(k)) for k, s in enumerate(direct)]
    assert [s.key for s in through] == [s.key for s in direct]
    assert {d.key: differing(s, d) for s, d in zip(through, direct) if differing(s, d)} == {}


@pytest.mark.parametrize("view", [None, "groups"])
def test_masks_through_files_are_those_of_the_clip(folder, view):
    split = played(folder, "mevis", view=view)
    for sample in split.samples:
        script, facts = clip(*next(c for c in CAST if c[0] in sample.video))
        numbers = [facts["numbers"][k - 1] for k in sample.extra["obj_id"]]
        for name, mask in zip(sample.extra["frames"], split.samples.masks(sample), strict=True):
            own = [facts["masks"].mask(n, int(name)) for n in numbers]
            own = [m for m in own if m is not None]
            assert np.array_equal(mask, np.logical_or.reduce(own) if own else np.zeros_like(mask))


@pytest.mark.parametrize("benchmark", DIRECT)
def test_every_sample_has_its_video(folder, benchmark):
    split = played(folder, benchmark)
    assert all(split.video(s).exists() for s in split.samples)
    assert split.facts["synthetic"] and split.exact == folder / "masks"


# as predictions name them ------------------------------------------------------------------------

KEPT = repo_root() / "figures" / "tiny" / "predictions"
NAMES = {
    "times": "puppets-times-test-200",
    "questions": "puppets-questions-test-120",
    "question-places": "puppets-places-test-120",
    "groups": "puppets-groups-test-100",
}


def exact(video):
    return video.parents[1] / "masks" / f"{video.stem}.masks.json.gz"


def viewed(split, view):
    "The samples as predictions name them, with the exact masks in place of numbered ones."
    with patch("stvg_nb.rows.Numberer", lambda config, device: exact):
        return VIEWS[view](number_split(split, None, progress=False))


def asked_of(path):
    "Key -> question of a kept file."
    records = read_json(path)
    if "videos" in records:
        videos = records["videos"].items()
        return {f"{v}#{k}": e["exp"] for v, r in videos for k, e in r["expressions"].items()}
    if "timestamps" in next(iter(records.values())):
        return {f"{k}#0": r["sentences"][0] for k, r in records.items()}
    return {k: r["caption"] for k, r in records.items()}


@pytest.mark.parametrize("view", NAMES)
def test_keys_and_questions_are_those_of_the_kept_predictions(folder, view):
    split = played(folder, ASKED[view].benchmark, view=view, clips=3, first=0)
    kept, made = asked_of(KEPT / f"{NAMES[view]}.json.gz"), viewed(split, view)
    assert {s.key: s.query for s in made.samples}.items() <= kept.items()
    assert list(asked_of(made.annotations)) == [s.key for s in made.samples]
    assert list(kept)[: len(made.samples)] == [s.key for s in made.samples]


def test_a_question_about_a_thing_has_the_name_of_the_kept_one(folder):
    split = played(folder, "st-align", view="questions", clips=1, first=8)
    kept, made = asked_of(KEPT / f"{NAMES['questions']}.json.gz"), viewed(split, "questions")
    assert [s.key.split(".")[1:] for s in made.samples] == [["mp4"], ["thing", "mp4"]]
    assert {s.key: s.query for s in made.samples}.items() <= kept.items()


@pytest.mark.parametrize("view", ["questions", "question-places"])
def test_a_place_in_the_file_is_mapped_to_a_name(folder, view):
    split = played(folder, "st-align", view=view)
    made = viewed(split, view)
    for place, (before, after) in enumerate(zip(split.samples, made.samples, strict=True)):
        ending = ".thing.mp4" if before.query_type == "object" else ".mp4"
        script = script_of(before.video)
        assert (before.key, after.key) == (str(place), script.name + ending)
        assert (before.window, after.window) == ((0, script.frames), None)
        assert (after.interval, after.fps) == (span(script), script.fps)
        assert (after.tube.start, after.tube.end) == (script.start, script.end)
        changed = ["key", "video", "fps", "frame_count", "window", "answer_ids"]
        placed = ["interval", "tube"] if before.task == "svg" else []
        assert set(differing(before, after)) - {"database", "vote"} == {*changed, *placed}


def test_what_puppets_do_not_play_is_refused(folder):
    for benchmark, split, view, text in (
        ("tvgbench", "val", None, "play test of tvgbench"),
        ("mevis", "test", "times", "plays charades-sta"),
        ("imagenet", "test", None, "is not one of"),
    ):
        with pytest.raises(InputError, match=text):
            played(folder, benchmark, split, view=view)
