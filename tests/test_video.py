"""Videos as people have them: turned, uneven, with a cover, as a folder; seconds in them."""

import json
import os
import shutil
import stat
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stvg_nb.cli import main
from stvg_nb.foundations.detections import Detections, select
from stvg_nb.foundations.files import InputError, read_jsonl, write_jsonl
from stvg_nb.foundations.geometry import Interval, Tube, UnevenRate, frame_of
from stvg_nb.foundations.masks import MaskDatabase
from stvg_nb.foundations.samples import Sample, open_database, true_frames, true_seconds
from stvg_nb.foundations.settings import SamplingConfig
from stvg_nb.foundations.store import content_hash
from stvg_nb.foundations.video import Clip, iter_frames, probe, sample_indices, write_video

CASES = Path(__file__).parent / "data/cases"
SMALL = ["--profile", "smoke", "--quiet"]
ONE = 65536
TURNS = {  # degrees clockwise -> a, b, u, c, d, v of the track's matrix
    90: (0, ONE, 0, -ONE, 0, 0),
    180: (-ONE, 0, 0, 0, -ONE, 0),
    270: (0, -ONE, 0, ONE, 0, 0),
}


def corner(n=6, size=(64, 96)):
    "A green mark at the upper left, on grey."
    frame = np.full((*size, 3), 90, np.uint8)
    frame[4:20, 4:20] = (20, 220, 20)
    return [frame] * n


def turn(path, matrix):
    "Write into the header how the pixels are to be shown."
    data = path.read_bytes()
    upright = struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    at = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:at] + struct.pack(">9i", *matrix, 0, 0, 1 << 30) + data[at + 36 :])


def green(frame):
    "(row, column) of the middle of the green mark, as shares of the frame."
    rows, columns = np.nonzero(frame[..., 1].astype(int) > frame[..., 0].astype(int) + 60)
    return rows.mean() / frame.shape[0], columns.mean() / frame.shape[1]


# ---------------------------------------------------------------- turned


@pytest.mark.parametrize("degrees", sorted(TURNS))
def test_a_turned_video_stands_upright(tmp_path, degrees):
    path = tmp_path / "phone.mp4"
    write_video(path, corner(), 10)
    turn(path, TURNS[degrees])
    info, clip = probe(path), Clip.read(path)
    assert info.turned == degrees
    assert (info.height, info.width) == clip.size == ((96, 64) if degrees % 180 else (64, 96))
    low, right = green(clip.frames[0])
    assert (low > 0.5, right > 0.5) == (degrees in (180, 270), degrees in (90, 180))


def test_what_is_drawn_into_a_turned_video_stands_upright(tmp_path):
    from stvg_nb.ground import render_answer

    path, out = tmp_path / "phone.mp4", tmp_path / "answer.mp4"
    write_video(path, corner(), 10)
    turn(path, TURNS[90])
    record = dict(start_frame=0, end_frame=6, target_id=1, boxes={"0": [2, 2, 30, 30]})
    render_answer(path, out, record)
    assert probe(out).turned == 0 and Clip.read(out).size == (96, 64)


@pytest.mark.parametrize("which", ["case", 180, 270])
def test_a_turned_video_is_numbered_upright(tmp_path, which):
    path, out = CASES / "02_rotated_phone/phone_rot90.mp4", tmp_path / "out.mp4"
    if which != "case":
        path = tmp_path / "phone.mp4"
        write_video(path, corner(size=(160, 96)), 10)
        turn(path, TURNS[which])
    assert main(["prompt", str(path), "--output", str(out), *SMALL]) == 0
    size = (96, 160) if which == 270 else (160, 96)
    assert Clip.read(path).size == Clip.read(out).size == size
    assert MaskDatabase.open(tmp_path / "out.masks.json.gz").size == size
    for shown in (path, out):
        low, right = green(Clip.read(shown).frames[0])
        assert (low > 0.5, right > 0.5) == (which != "case", which == 180)


# ---------------------------------------------------------------- uneven


def uneven(path, steps, **how):
    "A video whose frames last as long as `steps` says; its brightness counts the frames."
    edges = np.r_[0, np.cumsum(steps)]
    frames = (np.full((32, 48, 3), 2 * i % 250, np.uint8) for i in range(len(steps)))
    write_video(path, frames, UnevenRate(edges), **how)
    return edges


SLOWING = [1 / 30] * 60 + [1 / 10] * 20  # as the case of a phone in the dark
HURRYING = [0.4] * 5 + [0.05] * 40
JUMPY = [0.1, 0.5] * 12


@pytest.mark.parametrize("steps", [SLOWING, HURRYING, JUMPY], ids=["slowing", "hurrying", "jumpy"])
def test_seconds_go_by_the_frames_own_times(tmp_path, steps):
    edges = uneven(tmp_path / "v.mp4", steps)
    info = probe(tmp_path / "v.mp4")
    assert info.uneven and np.allclose(info.fps.edges, edges, atol=1e-4)
    assert info.duration == pytest.approx(edges[-1], abs=1e-4)
    for first, stop in ((0, 3), (7, 20), (len(steps) - 1, len(steps))):
        said = Interval(edges[first], edges[stop])
        assert said.to_frames(info.fps) == Interval.frames(first, stop)
    told = sample_indices(len(steps), info.fps)
    at = np.arange(len(told)) * info.duration / len(told)
    assert np.abs(info.fps.edges[told] - at).max() <= max(steps) / 2 + 1e-4


def test_the_case_of_a_slowing_video():
    path = CASES / "03_vfr/vfr.mp4"
    with av.open(str(path)) as file:
        stamps = [f.time for f in file.decode(video=0)]
    info = probe(path)
    assert np.allclose(info.fps.edges[:-1], stamps, atol=1e-3)
    assert Interval(3.0, 3.9).to_frames(info.fps) == Interval.frames(70, 79)
    told = sample_indices(info.frame_count, info.fps)
    said = np.arange(len(told)) * info.duration / len(told)
    assert np.abs(np.array(stamps)[told] - said).max() < 0.3


def test_one_rule_for_prompts_answers_rewards_and_databases(tmp_path):
    from stvg_nb.policies import AnswerConfig, read_reply, sampled_frames, video_facts
    from stvg_nb.questions import parse
    from stvg_nb.rewards import as_target, make_target, r_viou, target_json

    path = tmp_path / "vfr.mp4"
    uneven(path, SLOWING)
    info = probe(path)
    db = MaskDatabase(48, 32, info.fps, 80, path, content_hash(path))
    db.add_object(1)
    mask = np.zeros((32, 48), bool)
    mask[4:20, 4:20] = True
    for frame in range(80):
        db.add(1, frame, mask)
    db.save(tmp_path / "vfr.masks.json.gz")
    db = open_database(tmp_path / "vfr.masks.json.gz", path)
    assert np.allclose(db.video["fps"].edges, info.fps.edges, atol=1e-5)

    sample = Sample("k", query="q", video=str(path), interval=Interval.frames(70, 79))
    seconds = true_seconds(sample, info.fps)
    assert (seconds.start, seconds.end) == pytest.approx((3.0, 3.9), abs=1e-3)
    assert true_frames(replace(sample, interval=seconds), info.fps) == sample.interval

    text = "<think>.</think><answer>Target ID: 1, Time range: 3.00 to 3.90</answer>"
    answer = read_reply(sample, text, video_facts(sample), AnswerConfig())
    assert answer.interval == Interval.frames(70, 79)
    json.dumps(answer.video)  # a rate with times is still a number on disk

    tube = Tube.dense(70, [[4, 4, 20, 20]] * 9)
    target = as_target(target_json(make_target(db, tube, 1)))
    assert r_viou(parse(text, "stvg"), target) == pytest.approx(1.0)
    shown = sampled_frames(video_facts(sample), (60, 80), SamplingConfig())
    assert shown.tolist() == [60, 65, 70, 75]  # every half second at ten frames a second


def test_a_window_of_an_uneven_video_counts_from_its_own_start(tmp_path):
    rate = UnevenRate(np.r_[0, np.cumsum(SLOWING)])
    sample = Sample("k", query="q", video="v.mp4", window=(60, 80))
    there = true_frames(replace(sample, interval=Interval(1.0, 1.5)), rate)
    assert there == Interval.frames(70, 75)
    back = true_seconds(replace(sample, interval=there), rate)
    assert (back.start, back.end) == pytest.approx((1.0, 1.5))


def test_an_answer_of_one_moment_is_one_frame_everywhere():
    from stvg_nb.policies import AnswerConfig, read_reply
    from stvg_nb.questions import parse
    from stvg_nb.rewards import Target, r_viou

    text = "<think>.</think><answer>Target ID: 1, Time range: 2.00 to 2.00</answer>"
    facts = dict(width=64, height=48, fps=10.0, frame_count=300)
    sample = Sample("k", query="q", video="v.mp4")
    assert read_reply(sample, text, facts, AnswerConfig()).interval == Interval.frames(20, 21)
    true = dict(frames=(20, 21), overlap={1: [1.0]})
    target = Target((1,), Interval(2.0, 2.1), 30.0, 10.0, **true)
    assert r_viou(parse(text, "stvg"), target) == 1.0


def test_written_videos_keep_the_stamps(tmp_path):
    from stvg_nb.ground import render_answer

    edges = uneven(tmp_path / "v.mp4", HURRYING)
    record = dict(start_frame=None, end_frame=None, target_id=None, boxes={})
    render_answer(tmp_path / "v.mp4", tmp_path / "out.mp4", record)
    assert np.allclose(probe(tmp_path / "out.mp4").fps.edges, edges, atol=1e-3)


def test_an_even_video_is_written_as_before(tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", corner(), 12.5)
    info = probe(tmp_path / "a.mp4")
    assert (info.fps, info.uneven, info.stated_fps, info.turned) == (12.5, False, None, 0)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_rate_that_the_header_makes_up(tmp_path):
    "A recording of 2 s whose header says 1000 frames a second."
    with av.open(str(tmp_path / "browser.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(21):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 9 * i, np.uint8), "rgb24")
            frame.pts, frame.time_base = 100 * i, stream.codec_context.time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    info = probe(tmp_path / "browser.mkv")
    assert info.fps == pytest.approx(10, rel=0.02) and info.duration == pytest.approx(2.1, rel=0.03)
    assert frame_of(1.0, info.fps) == 10


# ---------------------------------------------------------------- the right track


@pytest.mark.parametrize("cover_first", [True, False])
def test_a_picture_track_is_not_the_video(tmp_path, cover_first):
    with av.open(str(tmp_path / "song.mp4"), "w") as out:
        order = ("mjpeg", "libx264") if cover_first else ("libx264", "mjpeg")
        streams = {name: out.add_stream(name, rate=10) for name in order}
        for name, (width, height) in dict(mjpeg=(200, 160), libx264=(64, 48)).items():
            s = streams[name]
            s.width, s.height = width, height
            s.pix_fmt = "yuvj420p" if name == "mjpeg" else "yuv420p"
        for name, n in dict(mjpeg=1, libx264=15).items():
            s = streams[name]
            for i in range(n):
                picture = np.full((s.height, s.width, 3), 10 * i, np.uint8)
                out.mux(s.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            out.mux(s.encode())
    info = probe(tmp_path / "song.mp4")
    assert (info.width, info.height, info.frame_count) == (64, 48, 15)
    assert Clip.read(tmp_path / "song.mp4").size == (48, 64)


# ---------------------------------------------------------------- beyond the end, nothing there


@pytest.mark.parametrize("sizes", [((64, 48), (96, 64)), ((96, 64), (64, 48))])
def test_a_video_that_changes_its_size_is_refused_by_name(tmp_path, sizes, capsys):
    "A transport stream may be joined from parts of different sizes."
    path = tmp_path / "joined.mpg"
    with path.open("wb") as joined:
        for width, height in sizes:
            with av.open(str(tmp_path / "part.ts"), "w", format="mpegts") as out:
                stream = out.add_stream("libx264", rate=10)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                for t in range(8):
                    picture = np.full((height, width, 3), 20 * t, np.uint8)
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                out.mux(stream.encode())
            joined.write((tmp_path / "part.ts").read_bytes())
    (first, second), output = (f"{w} x {h}" for w, h in sizes), tmp_path / "o.mp4"
    assert main(["prompt", str(path), "--output", str(output), "--quiet"]) == 2
    told = capsys.readouterr().err
    assert f"joined.mpg: frame 8 is {second}, the first frame {first};" in told
    assert told.count("\n") == 1 and not output.exists()
    with pytest.raises(InputError, match="joined.mpg: frame 8"):
        list(iter_frames(path))


def test_a_window_beyond_the_video_is_set_aside_by_name(tmp_path):
    from stvg_nb.decoding import Policy
    from stvg_nb.toy_families import toy_family
    from stvg_nb.policies import AnswerConfig, answer_all

    row = dict(video=str(CASES / "08_window_past_video/m.mp4"), query="the man", task="vtg")
    rows = [row | dict(key="good"), row | dict(key="late", window=[0, 500])]
    rows.append(row | dict(key="gone", window=[30, 40]))
    quick = AnswerConfig(max_new_tokens=2, marks=False, sampling=SamplingConfig(max_frames=4))
    policy = Policy("toy", *toy_family("qwen2_5_vl"))
    header = answer_all(policy, rows, tmp_path / "answers.jsonl", quick, progress=False)
    assert (header["counts"]["answered"], header["counts"]["quarantined"]) == (1, 2)
    assert {a["key"] for a in header["quarantined"]} == {"late", "gone"}
    assert all("20 frames" in a["reason"] for a in header["quarantined"])


LATE = {"case": {}, "gone": dict(window=[30, 40]), "event": dict(window=None, start=5, end=6)}


@pytest.mark.parametrize("change", LATE.values(), ids=LATE)
def test_training_names_the_line_that_goes_beyond_the_video(tmp_path, change, capsys, monkeypatch):
    monkeypatch.chdir(shutil.copytree(CASES / "08_window_past_video", tmp_path / "in"))
    (row,) = read_jsonl("window.jsonl")
    late = {k: v for k, v in (row | change).items() if v is not None}
    good = {k: v for k, v in row.items() if k != "window"}
    write_jsonl("rows.jsonl", [late, good])
    how = ["--method", "sft", "--steps", "1", "--base", "embedded:base", "--output", "run"]
    assert main(["train", "--data", "rows.jsonl", *how, *SMALL]) == 2
    said = capsys.readouterr().err
    assert "sample 1: its " in said and ("20 frames" in said or "lasts 0.67 s" in said)
    assert said.count("\n") == 1 and not Path("run").exists()


def test_training_names_a_window_beyond_the_video(tmp_path):
    from stvg_nb.examples import clip_facts

    write_video(tmp_path / "m.mp4", corner(20), 10)
    sample = Sample("line 1", query="q", video=str(tmp_path / "m.mp4"), window=(0, 500))
    with pytest.raises(InputError, match="line 1: its window is frames 0 to 500, .*20 frames"):
        clip_facts(sample, None)
    late = replace(sample, window=None, interval=Interval(5.0, 6.0))
    with pytest.raises(InputError, match="line 1: its truth is 5 to 6 s, its clip lasts 2.00 s"):
        clip_facts(late, None)


def test_a_database_of_another_video_is_refused(tmp_path):
    for name, n in (("a", 6), ("b", 7)):
        write_video(tmp_path / f"{name}.mp4", corner(n), 10)
    db = MaskDatabase(96, 64, 10, 6, "a.mp4", content_hash(tmp_path / "a.mp4"))
    db.save(tmp_path / "a.masks.json.gz")
    assert len(open_database(tmp_path / "a.masks.json.gz", tmp_path / "a.mp4")) == 0
    with pytest.raises(InputError, match="made from another video than b.mp4"):
        open_database(tmp_path / "a.masks.json.gz", tmp_path / "b.mp4")


# ---------------------------------------------------------------- nothing is overwritten


@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--reuse"]])
def test_prompt_replaces_only_what_it_made(tmp_path, flags):
    write_video(tmp_path / "in.mp4", corner(), 10)
    write_video(tmp_path / "holiday.mp4", corner(3), 10)
    (tmp_path / "notes.masks.json.gz").write_text("my notes")
    os.mkfifo(tmp_path / "pipe")  # stands for a device
    for output, database in (("in.mp4", None), ("holiday.mp4", None), ("pipe", None)):
        refused(tmp_path, output, database, flags)
    refused(tmp_path, "new.mp4", "notes.masks.json.gz", flags)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "in.mp4")
    refused(tmp_path, "link.mp4", None, flags)
    (tmp_path / "report.identity.json").write_text("[1]")
    refused(tmp_path, "report.mp4", None, flags)


def refused(folder, output, database, flags):
    before = contents(folder)
    args = [str(folder / "in.mp4"), "--output", str(folder / output), *flags, "--quiet"]
    args += ["--database", str(folder / database)] if database else []
    assert main(["prompt", *args]) == 2
    assert contents(folder) == before


def contents(folder):
    return {
        p: p.read_bytes() if p.is_file() else stat.S_IFMT(p.stat().st_mode)
        for p in folder.iterdir()
    }


FOLDERS = dict(case=None, stated="25", above="12.5")  # what fps.txt says, in it or above it


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_of_frames_is_a_video(tmp_path, kind, capsys):
    folder, rate = tmp_path / "JPEGImages/clip", FOLDERS[kind]
    shutil.copytree(CASES / "20_folder_of_frames/frames", folder)
    if rate:
        (folder.parent if kind == "above" else folder).joinpath("fps.txt").write_text(rate)
    if kind == "stated":
        for i, path in enumerate(sorted(folder.glob("*.jpg"))):
            path.rename(folder / f"{100 + 5 * i:05d}.jpg")  # every fifth, as in MeViS
    info, clip = probe(folder, quiet=True), Clip.read(folder)
    assert (info.frame_count, len(clip), info.fps) == (20, 20, float(rate or 5))
    assert [i for i, _, _ in iter_frames(folder, 2, 5)] == [2, 3, 4]
    capsys.readouterr()
    assert main(["prompt", str(folder), "--output", str(tmp_path / "f.mp4"), *SMALL[:2]]) == 0
    asked = "states no frame rate, 5 a second are assumed; write the rate into fps.txt"
    assert (asked in capsys.readouterr().err) is (rate is None)
    db = MaskDatabase.open(tmp_path / "f.masks.json.gz")
    assert (db.video["fps"], db.video["frame_count"], len(db)) == (info.fps, 20, 1)
    assert probe(tmp_path / "f.mp4").frame_count == 20
    argv = ["ground", str(folder), "the man", "--database", str(tmp_path / "f.masks.json.gz")]
    assert main([*argv, "--model", "embedded:base", *SMALL]) == 0


def still(kind, folder):
    "A video in which nobody is: the case, a single frame, a folder of equal frames."
    if kind == "case":
        return CASES / "01_no_object/still.mp4"
    if kind == "one frame":
        write_video(folder / "one.mp4", corner(1), 10)
        return folder / "one.mp4"
    from PIL import Image

    (folder / "frames").mkdir()
    for i, frame in enumerate(corner(7)):
        Image.fromarray(frame).save(folder / "frames" / f"{i:05d}.png")
    return folder / "frames"


@pytest.mark.parametrize("kind", ["case", "one frame", "folder"])
def test_a_video_without_objects_is_numbered_and_asked(tmp_path, kind, capsys):
    video, out = str(still(kind, tmp_path)), str(tmp_path / "o.mp4")
    database = str(tmp_path / "o.masks.json.gz")
    assert main(["prompt", video, "--output", out, *SMALL]) == 0
    assert len(MaskDatabase.open(database)) == 0
    for task, given in (("stvg", []), ("rvos", []), ("stvg", ["--database", database])):
        asked = ["ground", video, "the man who waves", "--model", "embedded:base", "--task", task]
        capsys.readouterr()
        assert main([*asked, *given, *SMALL, "--json"]) == 0
        (result,) = json.loads(capsys.readouterr().out)["results"]
        record = result["prediction"]
        assert record["target_id"] is None and not record["ids"]
        assert not record.get("boxes") and not record.get("masks")


SEEN = ["Person", "cell phone", "dog"]
ASKED = {  # two of the case; then two more
    "dog, cell phone": {"dog", "cell phone"},
    "person": {"Person"},
    " CELL \t phone ,,DOG ": {"dog", "cell phone"},
    "Non-Person": {"dog", "cell phone"},
}


@pytest.mark.parametrize("classes, expected", ASKED.items(), ids=[*map(repr, ASKED)])
def test_classes_are_found_by_name_without_regard_to_case(classes, expected):
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 40, 40.0]])
    found = Detections(boxes, SEEN, np.array([0.9, 0.8, 0.7]))
    assert set(select(found, classes).labels) == expected


def test_prompt_replaces_what_it_made_itself(tmp_path):
    uneven(tmp_path / "in.mp4", JUMPY)
    args = [str(tmp_path / "in.mp4"), "--output", str(tmp_path / "out.mp4"), "--quiet"]
    assert main(["prompt", *args]) == 0
    first = contents(tmp_path)
    assert main(["prompt", *args]) == 2  # it exists
    assert main(["prompt", *args, "--overwrite"]) == 0
    assert contents(tmp_path) == first
    assert probe(tmp_path / "out.mp4").uneven  # the stamps are kept
    db = open_database(tmp_path / "out.masks.json.gz", tmp_path / "in.mp4")
    assert len(db.video["fps"].edges) == len(JUMPY) + 1 and len(db) == 0  # empty is a result


# ---------------------------------------------------------------- out again


@pytest.mark.parametrize("form", ["coco", "mevis", "labels"])
def test_masks_go_out_and_come_back(tmp_path, form):
    write_video(tmp_path / "v.mp4", corner(), 10)
    db = MaskDatabase(96, 64, 10, 6, "v.mp4", content_hash(tmp_path / "v.mp4"))
    y, x = np.mgrid[:64, :96]
    for id in (1, 2):
        db.add_object(id, "puppet")
        for frame in range(id, 6):
            db.add(id, frame, (x - 30 * id) ** 2 + (y - 5 * frame) ** 2 < 90)
    db.save(tmp_path / "v.masks.json.gz")
    there, back = tmp_path / ("v.json" if form == "coco" else "out"), tmp_path / "b.masks.json.gz"
    flags = ["--form", form, "--video", str(tmp_path / "v.mp4"), "--output"]
    assert main(["export", str(tmp_path / "v.masks.json.gz"), *flags, str(there)]) == 0
    assert main(["export", str(there), *flags, str(back)]) == 0
    again = open_database(back, tmp_path / "v.mp4")
    assert again.to_json()["masks"] == db.to_json()["masks"]
    assert again.video == db.video
    assert main(["export", str(tmp_path / "v.masks.json.gz"), *flags, str(there)]) == 2
    write_video(tmp_path / "w.mp4", corner(5), 10)
    other = ["--form", form, "--video", str(tmp_path / "w.mp4"), "--output"]
    assert main(["export", str(there), *other, str(tmp_path / "c.masks.json.gz")]) == 2


def test_a_data_set_leaves_out_a_window_beyond_the_video():
    from stvg_nb.dataset import LeftOut, _check_database

    db = MaskDatabase(96, 64, 10, 20)
    _check_database(Sample("k", window=(0, 20)), db, "v.mp4")
    with pytest.raises(LeftOut, match="beyond the video"):
        _check_database(Sample("k", window=(0, 500)), db, "v.mp4")
    with pytest.raises(LeftOut, match="beyond the video"):
        _check_database(Sample("k", tube=Tube.dense(15, [[4, 4, 20, 20]] * 9)), db, "v.mp4")
