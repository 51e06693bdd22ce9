"""Puppets: other processes, a judge of every query, the real loaders, interrupted runs."""

import json
import os
import subprocess
import sys
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_nb.foundations.benchmarks import load, locate
from stvg_nb.foundations.files import InputError, sha256_file
from stvg_nb.foundations.masks import MaskDatabase
from stvg_nb.foundations.video import probe
from stvg_nb.theatre import clips as files
from stvg_nb.theatre import stories
from stvg_nb.theatre.clips import LAYOUTS, is_puppets, layout_options, play, write_split
from stvg_nb.theatre.scenes import pixel_hash, render
from stvg_nb.theatre.scripts import COLOURS, DOMAINS, SIZES, SPLITS, Script, script_hash
from stvg_nb.theatre.sentences import HELD_OUT, expressions, thing_question
from stvg_nb.theatre.staging import Options
from stvg_nb.theatre.stories import make_script
from stvg_nb.theatre.truth import full_boxes, manifest, manifest_hash, truth

CLIPS = [("test", "stage", 5), ("open", "street", 12), ("train", "street", 3)]

# determinism --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_same_hashes_in_another_process(seed):
    code = (
        "import json, sys\n"
        "from stvg_nb.theatre.scripts import script_hash\n"
        "from stvg_nb.theatre.scenes import pixel_hash\n"
        "from stvg_nb.theatre.stories import make_script\n"
        "scripts = [make_script(*c) for c in json.loads(sys.argv[1])]\n"
        "print(json.dumps([[script_hash(s), pixel_hash(s)] for s in scripts]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", "import sys, json; " + code, json.dumps(CLIPS)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    assert json.loads(out.stdout) == [
        [script_hash(s), pixel_hash(s)] for s in (make_script(*c) for c in CLIPS)
    ]


def test_scripts_of_the_frozen_splits_are_those_of_the_manifest():
    frozen = manifest()["splits"]
    for split in ("val", "open"):
        for domain in DOMAINS:
            entry = frozen[f"{split}/{domain}"]
            assert entry["n"] == SIZES[split] == len(entry["scripts"]) == len(entry["pixels"])
            assert [
                script_hash(make_script(split, domain, i)) for i in range(0, SIZES[split], 4)
            ] == entry["scripts"][::4]


@pytest.mark.parametrize(
    "split,domain,index",
    [
        ("test", "stage", 7),
        ("test", "street", 123),
        ("val", "stage", 199),
        ("open", "street", 0),
        ("train", "stage", 39),
    ],
)
def test_pixels_are_those_of_the_manifest(split, domain, index):
    assert (
        pixel_hash(make_script(split, domain, index))
        == manifest()["splits"][f"{split}/{domain}"]["pixels"][index]
    )


def test_the_manifest_notices_a_change():
    changed = manifest()
    changed["splits"]["test/stage"]["pixels"][0] = "0" * 16
    assert manifest_hash(changed) != manifest_hash()


def test_a_script_survives_json():
    s = make_script("test", "street", 41)
    assert Script.from_dict(json.loads(json.dumps(s.to_dict()))) == s


# every query has one answer: judged by a second implementation that sees only the JSON ------------


def wears(p, who):
    return all(p[k] == v for k, v in who.items())


def places(d):
    "x of every puppet in every frame, None where it is away; event by event, frame by frame."
    out = []
    for k, p in enumerate(d["puppets"]):
        x, row = p["home"], []
        moves = [
            e for e in d["events"] if e["puppet"] == k and e["action"] in ("walk", "enter", "leave")
        ]
        for f in range(d["frames"]):
            now = [e for e in moves if e["start"] <= f < e["end"]]
            past = [e for e in moves if e["end"] <= f]
            if now:
                x = now[0]["x0"] + (now[0]["x1"] - now[0]["x0"]) * (f - now[0]["start"]) / (
                    now[0]["end"] - now[0]["start"]
                )
            elif past:
                x = max(past, key=lambda e: e["end"])["x1"]
            row.append(x if p["enter"] <= f < p["leave"] else None)
        out.append(row)
    return out


def only(d, who):
    ks = [k for k, p in enumerate(d["puppets"]) if wears(p, who)]
    assert len(ks) == 1, f"{who} names {len(ks)} puppets"
    return ks[0]


def judge(d):
    "All (puppet, start, end) that fit the logical form, by brute force over puppets and events."
    form, people, found, x = d["form"], d["puppets"], [], places(d)
    if form["action"] is None:
        return [(k, p["enter"], p["leave"]) for k, p in enumerate(people) if wears(p, form["who"])]
    same = [
        e
        for e in d["events"]
        if e["action"] == form["action"]
        and wears(people[e["puppet"]], form.get("who") or {})
        and ("object" not in form or d["props"][e["prop"]]["kind"] == form["object"])
    ]
    for e in same:
        k, span, ok = e["puppet"], range(e["start"], e["end"]), True
        for role in {"to", "from"} & set(form):
            ok &= e["partner"] == only(d, form[role])
        for side in {"left", "right"} & set(form):
            q = only(d, form[side])
            ok &= q != k and all(
                x[q][f] is not None
                and ((x[k][f] < x[q][f]) if side == "left" else (x[k][f] > x[q][f]))
                for f in span
            )
        for way in {"behind", "front"} & set(form):
            q = only(d, form[way])
            ok &= (
                q != k
                and all(x[q][f] is not None for f in span)
                and (people[k]["foot"] < people[q]["foot"]) == (way == "behind")
            )
            ok = ok and (x[k][span[0]] < x[q][span[0]]) != (x[k][span[-1]] < x[q][span[-1]])
        for when in {"after", "before"} & set(form):
            q = only(d, form[when]["who"])
            marks = [
                m for m in d["events"] if m["puppet"] == q and m["action"] == form[when]["action"]
            ]
            assert len(marks) == 1
            ok &= (
                e["start"] >= marks[0]["end"] if when == "after" else e["end"] <= marks[0]["start"]
            )
        if ok:
            found.append(e)
    if "order" in form:
        assert len(found) > 1, "first or last of one"
        best = (
            min(found, key=lambda e: e["start"])
            if form["order"] == "first"
            else max(found, key=lambda e: e["start"])
        )
        assert all(
            e is best or e["end"] <= best["start"] or e["start"] >= best["end"] for e in found
        ), "nobody could say which is first"
        found = [best]
    return [(e["puppet"], e["start"], e["end"]) for e in found]


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_query_has_exactly_one_answer(domain):
    rng, kinds = np.random.default_rng(7), set()
    for split in SPLITS:
        for index in rng.integers(0, 50_000, 30):
            d = json.loads(json.dumps(make_script(split, domain, int(index)).to_dict()))
            assert judge(d) == [(d["target"], d["start"], d["end"])], (split, domain, index)
            kinds |= set(d["form"])
    assert {"order", "after", "before", "left", "right", "behind", "to", "from", "who"} <= kinds


def test_the_test_split_has_exactly_one_answer():
    for domain in DOMAINS:
        for index in range(SIZES["test"]):
            d = make_script("test", domain, index).to_dict()
            assert judge(d) == [(d["target"], d["start"], d["end"])], (domain, index)


def test_the_judge_can_say_no():
    d = make_script("test", "stage", 1).to_dict()
    twin = next(e for e in d["events"] if e["puppet"] == d["target"] and e["start"] == d["start"])
    d["events"].append({**twin, "start": d["end"] + 1, "end": d["end"] + 9})
    assert len(judge(d)) == 2


# properties of scripts ----------------------------------------------------------------------------

clips = dict(
    split=st.sampled_from(SPLITS), domain=st.sampled_from(DOMAINS), index=st.integers(0, 10**6)
)


@settings(max_examples=40)
@given(
    fps=st.sampled_from([None, 8, 12.5, 24, 30]),
    duration=st.sampled_from([12.0, 14.5, 20.0, 30.0]),
    **clips,
)
def test_scripts_are_playable(split, domain, index, fps, duration):
    s = make_script(split, domain, index, Options(duration=duration, fps=fps))
    assert (
        s.frames == int(duration * s.fps + 0.5)
        and 2 <= len(s.puppets) <= 6
        and 0 <= s.start < s.end <= s.frames
    )
    for k, p in enumerate(s.puppets):
        mine = [e for e in s.events if e.puppet == k]
        assert all(p.enter <= e.start < e.end <= p.leave for e in mine)
        assert all(a.end <= b.start or b.end <= a.start for a, b in combinations(mine, 2)), (
            "one thing at a time"
        )
        assert all(abs(e.x1 - e.x0) >= 0.39 * s.width for e in mine if e.action == "walk")
        assert {p.shirt, p.trousers} <= set(COLOURS)
        if split != "open":
            assert not any((p.shirt, e.action) in HELD_OUT for e in mine)
    assert (
        s.query
        and s.question.endswith("?")
        and ("brief" in s.labels) == ((s.end - s.start) / s.fps < 1)
    )


@settings(max_examples=6)
@given(**clips)
def test_masks_are_disjoint_and_boxes_are_tight(split, domain, index):
    s = make_script(split, domain, index, Options(duration=12.0, fps=5))
    labels = [label for _, label in render(s)]
    facts = truth(s, labels)
    for k, tube in facts["tubes"].items():
        for f, (x1, y1, x2, y2) in list(zip(tube.frames, tube.boxes.astype(int)))[::7]:
            mask = labels[f] == k
            assert mask[y1:y2, x1:x2].sum() == mask.sum()
            assert (
                mask[y1].any()
                and mask[y2 - 1].any()
                and mask[:, x1].any()
                and mask[:, x2 - 1].any()
            )
            assert (facts["masks"].mask(facts["numbers"][k - 1], f) == mask).all()
    seen = facts["tube"].at(np.arange(s.start, s.end))[1]
    assert seen.mean() > 0.6, "the target is in sight for most of its event"


def test_the_first_number_is_on_the_left_of_the_first_frame():
    for index in range(20):
        s = make_script("val", "stage", index)
        facts = truth(s, [next(render(s))[1]], masks=False)
        first = sorted(
            (t.boxes[0][0], facts["numbers"][k - 1])
            for k, t in facts["tubes"].items()
            if k <= len(s.puppets)
        )
        assert [n for _, n in first] == list(range(1, len(first) + 1))


# real lay-outs, read by the real loaders ----------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("puppets")
    return {
        layout: write_split(
            root / layout,
            "test",
            "street",
            2,
            layout,
            start=6,
            masks=layout == "hcstvg",
            progress=False,
        )
        for layout in ("hcstvg", "vidstg", "mevis")
    }


def script_of(layout, index):
    return make_script("test", "street", index, layout_options(layout, "test", "street", index))


def test_hcstvg_is_read_as_it_was_meant(written):
    bench = load(**written["hcstvg"]["load"])
    assert len(bench) == 2 and not bench.warnings
    for index, sample in zip((6, 7), bench):
        s, path = script_of("hcstvg", index), written["hcstvg"]["load"]["videos"] / sample.video
        info, tube = probe(path), truth(script_of("hcstvg", index), masks=False)["tube"]
        assert info.duration == pytest.approx(20.0) and info.fps == sample.fps == s.fps
        assert info.frame_count == sample.frame_count == 20 * s.fps
        assert (sample.width, sample.height) == (info.width, info.height) == (
            320,
            240,
        ) and is_puppets(path)
        assert (sample.interval.start, sample.interval.end, sample.query, sample.query_type) == (
            s.start,
            s.end,
            s.query,
            s.type,
        )
        boxes, has = sample.tube.at(tube.frames)
        assert has.all() and np.abs(boxes - tube.boxes).max() < 0.011
        oracle = MaskDatabase.open(path.parent.parent / "masks" / f"{s.name}.masks.json.gz")
        assert oracle.video["frame_count"] == info.frame_count
    assert script_of("hcstvg", 7).fps != 10, "a tenth of the test clips has another rate"


def test_vidstg_is_read_as_it_was_meant(written):
    bench = load(**written["vidstg"]["load"])
    assert {s.group for s in bench} == {"declarative", "interrogative"}
    for sample in bench:
        index = int(sample.extra["vid"][-5:])
        s = script_of("vidstg", index)
        info = probe(written["vidstg"]["load"]["videos"] / "street" / f"{s.name}.mp4")
        assert info.fps == sample.fps == s.fps and info.frame_count == sample.frame_count
        assert info.duration == pytest.approx(s.frames / s.fps)
        assert sample.extra["temporal_gt"] == (s.start, s.end) and sample.window[1] <= s.frames
        tube = truth(s, masks=False)["tubes"][sample.extra["target_id"] + 1]
        boxes, has = sample.tube.at(tube.frames)
        inside = (tube.frames >= s.start) & (tube.frames < s.end)
        assert has[inside].all() and np.array_equal(boxes[inside], tube.boxes[inside])


def test_mevis_is_read_as_it_was_meant(written):
    import cv2

    bench = load(**written["mevis"]["load"])
    assert any(len(s.extra["obj_id"]) > 1 for s in bench), "several targets"
    for index in (6, 7):
        s = script_of("mevis", index)
        labels = [label for _, label in render(s)]
        samples = [b for b in bench if b.key.startswith(s.name)]
        assert [(b.query, b.extra["obj_id"]) for b in samples] == [
            (t, g) for t, g in expressions(s)
        ]
        sample = max(samples, key=lambda b: len(b.extra["obj_id"]))
        assert all(
            (mask == np.isin(label, sample.extra["obj_id"])).all()
            for mask, label in zip(bench.masks(sample), labels)
        )
        folder = written["mevis"]["load"]["videos"] / s.name
        assert sorted(p.stem for p in folder.iterdir()) == sample.extra["frames"]
        assert cv2.imread(str(folder / "00000.jpg")).shape == (240, 320, 3)
        info = probe(folder.parent.parent / "videos" / f"{s.name}.mp4")
        assert (info.fps, info.frame_count) == (s.fps, s.frames) and info.duration == pytest.approx(
            s.duration
        )


# interrupted and repeated runs --------------------------------------------------------------------

SHORT = Options(duration=12.0, fps=5)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole = write_split(tmp_path / "a", "train", "stage", 3, options=SHORT, progress=False)
    original, calls = files.write_video, []

    def breaks(frames):
        for i, frame in enumerate(frames):
            if i == 20:
                raise KeyboardInterrupt
            yield frame

    def stops(path, frames, *args, **kwargs):
        calls.append(path)
        return original(path, breaks(frames) if len(calls) == 2 else frames, *args, **kwargs)

    monkeypatch.setattr(files, "write_video", stops)
    with pytest.raises(KeyboardInterrupt):
        write_split(tmp_path / "b", "train", "stage", 3, options=SHORT, progress=False)
    left = {p.name for p in (tmp_path / "b").rglob("*") if p.is_file()}
    assert left == {"puppets_stage_train_00000.mp4", "puppets_stage_train_00000.json"}, (
        "nothing half-written"
    )
    monkeypatch.undo()
    again = write_split(tmp_path / "b", "train", "stage", 3, options=SHORT, progress=False)
    assert (again["written"], again["kept"]) == (2, 1) and whole["written"] == 3

    def hashes(root):
        files = [p for p in root.rglob("*") if p.is_file()]
        return {str(p.relative_to(root)): sha256_file(p) for p in files}

    assert hashes(tmp_path / "a") == hashes(tmp_path / "b"), "the same bytes, interrupted or not"


def test_changed_options_and_missing_videos_are_written_again(tmp_path):
    write_split(tmp_path, "val", "stage", 2, options=SHORT, progress=False)
    (tmp_path / "videos/puppets_stage_val_00001.mp4").unlink()
    assert write_split(tmp_path, "val", "stage", 2, options=SHORT, progress=False)["written"] == 1
    assert (
        write_split(
            tmp_path, "val", "stage", 1, options=Options(duration=12.0, fps=6), progress=False
        )["written"]
        == 1
    )


@pytest.mark.parametrize("args,word", [(("dev", "stage", 0), "dev"), (("test", "moon", 0), "moon")])
def test_unknown_names_are_refused(args, word):
    with pytest.raises(InputError, match=word):
        make_script(*args)


def test_options_no_scene_fits_are_refused(monkeypatch):
    monkeypatch.setattr(stories, "ATTEMPTS", 20)
    with pytest.raises(InputError, match="allow more seconds"):
        make_script("train", "stage", 1, Options(duration=2.0))


# seven benchmarks in one folder -------------------------------------------------------------------

PLAYED = [("hcstvg", s) for s in ("train", "val", "test", "v2-train", "v2-test")]
PLAYED += [("vidstg", s) for s in ("train", "val", "test")]
PLAYED += [("st-align", "stvg"), ("st-align", "svg"), ("mevis", "train"), ("mevis", "valid_u")]
PLAYED += [("mevis", "test"), ("charades-sta", "train"), ("charades-sta", "test")]
PLAYED += [("tvgbench", "test"), ("mme-videoocr", "test")]
FIRST = 17  # in the test split: 15 frames per second, a window, a thing that is handled


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    "A clip of each domain for every benchmark and split, and how often a clip was painted."
    folder, painted = tmp_path_factory.mktemp("played"), []
    original = files.render
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "render", lambda s: painted.append(s.name) or original(s))
        for benchmark, split in PLAYED:
            report = play(benchmark, split, folder, 2, "both", FIRST, progress=False)
            assert (report["written"], report["kept"]) == (2, 0)
            assert report["load"] == locate(benchmark, folder, split)
        for benchmark, split in PLAYED:
            assert play(benchmark, split, folder, 2, "both", FIRST, progress=False)["kept"] == 2
    return folder, painted


def told(sample):
    "Script of the clip that a sample of a played benchmark is about."
    name = sample.video.split("/")[-1].split(".")[0].removesuffix("_sign")
    _, domain, split, index = name.split("_")
    return make_script(split, domain, int(index))


@cache
def true_tubes(name):
    _, domain, split, index = name.split("_")
    return truth(make_script(split, domain, int(index)), masks=False)


def read_back(played, benchmark, split):
    bench = load(**locate(benchmark, played[0], split))
    assert {told(s).name for s in bench} == {
        f"puppets_{d}_{LAYOUTS[benchmark].splits[split]}_{FIRST:05d}" for d in DOMAINS
    }
    assert not [w for w in bench.warnings if w["kind"] != "box-outside"]
    return bench


def near(tube, wanted, slack):
    "The tube has a box on every frame of the wanted one, at most `slack` pixels away."
    boxes, has = tube.at(wanted.frames)
    return has.all() and np.abs(boxes - wanted.boxes).max() <= slack


def test_every_clip_is_painted_once_for_all_benchmarks(played):
    folder, painted = played
    assert len(painted) == len(set(painted)) == 3 * 2
    assert sorted(painted) == sorted(
        p.stem for p in folder.glob("videos/*.mp4") if not p.stem.endswith("_sign")
    )
    assert set(LAYOUTS) == {benchmark for benchmark, _ in PLAYED}


@pytest.mark.parametrize("split", ["train", "val", "test", "v2-train"])
def test_played_hcstvg_is_the_script(played, split):
    bench = read_back(played, "hcstvg", split)
    assert len(bench) == 2
    for sample in bench:
        s, info = told(sample), probe(bench.video_path(sample))
        assert (sample.interval.start, sample.interval.end) == (s.start, s.end)
        assert (sample.query, sample.query_type, sample.fps) == (s.query, s.type, s.fps)
        assert (info.fps, info.frame_count) == (sample.fps, sample.frame_count)
        assert near(sample.tube, true_tubes(s.name)["tube"], 0.006)
        assert sample.tube.frames.tolist() == list(range(s.start, s.end))


def test_played_hcstvg_queries_have_no_truth(played):
    for sample in read_back(played, "hcstvg", "v2-test"):
        assert sample.query == told(sample).query and sample.tube is None


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_played_vidstg_is_the_script(played, split):
    bench, things = read_back(played, "vidstg", split), 0
    for sample in bench:
        s = told(sample)
        tubes = true_tubes(s.name)["tubes"]
        target = sample.extra["target_id"]
        inside = tubes[target + 1]
        inside = type(inside)(s.start, s.end, inside.frames, inside.boxes)
        assert sample.query in (s.query, s.question, thing_question(s))
        assert sample.extra["temporal_gt"] == (s.start, s.end)
        assert sample.window[0] <= s.start and s.end <= sample.window[1] <= s.frames
        kept = (inside.frames >= s.start) & (inside.frames < s.end)
        boxes, has = sample.tube.at(inside.frames[kept])
        assert has.all() and np.array_equal(boxes, inside.boxes[kept])
        assert bench.video_path(sample).is_file()
        things += target >= len(s.puppets)
    assert {s.group for s in bench} == {"declarative", "interrogative"}
    assert things == sum(thing_question(told(s)) is not None for s in bench if "#d" in s.key)


@pytest.mark.parametrize("split", ["stvg", "svg"])
def test_played_st_align_is_the_script(played, split):
    for sample in read_back(played, "st-align", split):
        s = told(sample)
        assert sample.query == s.query and sample.task == split
        assert sample.window == ((s.start, s.end) if split == "svg" else (0, s.frames))
        if split == "stvg":
            assert (sample.interval.start, sample.interval.end) == (s.start, s.end)
        boxes = full_boxes(true_tubes(s.name)["tube"])
        assert sample.tube.frames.tolist() == list(range(s.start, s.end))
        assert np.abs(sample.tube.boxes - boxes).max() <= 0.006


@pytest.mark.parametrize("split", ["train", "valid_u", "test"])
def test_played_mevis_is_the_script(played, split):
    import cv2

    bench = read_back(played, "mevis", split)
    assert any(len(s.extra["obj_id"]) > 1 for s in bench), "several targets"
    for video in sorted({s.video for s in bench}):
        own = [s for s in bench if s.video == video]
        s = told(own[0])
        labels = [label for _, label in render(s)]
        frames = [int(f) for f in own[0].extra["frames"]]
        assert [(b.query, b.extra["obj_id"]) for b in own] == expressions(s)
        assert frames == list(range(0, s.frames, round(s.fps / 5)))
        for sample in own:
            for f, mask in list(zip(frames, bench.masks(sample)))[::9]:
                assert (mask == np.isin(labels[f], sample.extra["obj_id"])).all()
        picture = cv2.imread(str(bench.video_path(own[0]) / f"{frames[3]:05d}.jpg"))[..., ::-1]
        painted = next(p for f, (p, _) in enumerate(render(s)) if f == frames[3])
        assert np.abs(picture.astype(int) - painted).mean() < 8, "the same frame, coded twice"


@pytest.mark.parametrize("split", ["train", "test"])
def test_played_charades_is_the_script(played, split):
    for sample in read_back(played, "charades-sta", split):
        s = told(sample)
        assert (sample.query, sample.extra["duration"]) == (s.query, 20.0)
        assert (sample.interval.start, sample.interval.end) == (s.start / s.fps, s.end / s.fps)


def test_played_tvgbench_is_the_script(played):
    bench = read_back(played, "tvgbench", "test")
    for sample in bench:
        s, first = told(sample), sample.window[0] if sample.window else 0
        assert sample.query == s.query and bench.video_path(sample).is_file()
        assert sample.interval.start + first == pytest.approx(s.start / s.fps)
        assert sample.interval.end + first == pytest.approx(s.end / s.fps)
        assert not sample.window or 0 <= first < sample.window[1] <= 20
    assert any(s.window for s in bench)


def test_played_signs_are_in_the_videos_that_are_asked_about(played):
    bench = read_back(played, "mme-videoocr", "test")
    assert len(bench) == 4 and {s.extra["eval_method"] for s in bench} == {
        "containment_match",
        "multiple_choice",
    }
    for free, choice in zip(bench[::2], bench[1::2]):
        letter = choice.extra["answer"]
        assert f"{letter}. {free.extra['answer']}" in choice.extra["option"]
        assert len(set(choice.extra["option"])) == 4
        assert is_puppets(bench.video_path(free)) and free.video.endswith("_sign.mp4")


def test_an_interrupted_play_goes_on_where_it_stopped(tmp_path, monkeypatch):
    original, calls = files.write_video, []

    def stops(path, frames, *args, **kwargs):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(path, frames, *args, **kwargs)

    ask = dict(options=SHORT, progress=False)
    monkeypatch.setattr(files, "write_video", stops)
    with pytest.raises(KeyboardInterrupt):
        play("vidstg", "train", tmp_path, 2, **ask)
    assert not (tmp_path / "train_annotations.json").exists(), "nothing half-written"
    assert len(list(tmp_path.glob("videos/*"))) == 1
    monkeypatch.undo()
    report = play("vidstg", "train", tmp_path, 2, **ask)
    assert (report["written"], report["kept"]) == (1, 1)
    next(tmp_path.glob("vidor/training/*/*.json")).unlink()
    assert play("vidstg", "train", tmp_path, 2, **ask)["written"] == 1
    assert len(load(**locate("vidstg", tmp_path, "train"))) >= 4


def test_a_shared_folder_holds_clips_of_one_kind(tmp_path):
    play("tvgbench", "test", tmp_path, 1, options=SHORT, progress=False)
    with pytest.raises(InputError, match="other options"):
        play("charades-sta", "test", tmp_path, 1, options=Options(12.0, 6), progress=False)
    with pytest.raises(InputError, match="img_num / 20"):
        play("hcstvg", "test", tmp_path, 1, options=SHORT, progress=False)
    with pytest.raises(InputError, match="valid"):
        play("mevis", "valid", tmp_path, 1, options=SHORT, progress=False)
