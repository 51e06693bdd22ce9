"""Numbering videos: many at once, interrupted, broken; marks in pixels; what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stvg_nb import prompting
from stvg_nb.foundations.detections import Detections, exact_detections, select
from stvg_nb.foundations.files import InputError, read_json
from stvg_nb.foundations.identity import identity_report
from stvg_nb.foundations.mark_drawing import draw_marks, mark_place, visible_marks
from stvg_nb.foundations.masks import MaskDatabase, mask_box
from stvg_nb.foundations.prompting_config import variant
from stvg_nb.foundations.video import probe, write_video
from stvg_nb.prompting import (
    build_database,
    choose_detector,
    key_frames,
    list_videos,
    prompt_many,
    prompt_video,
)
from stvg_nb.theatre import puppets_detector
from stvg_nb.theatre.clips import write_clip
from stvg_nb.theatre.puppets_detector import shipped_detector
from stvg_nb.theatre.scenes import render
from stvg_nb.theatre.staging import Options
from stvg_nb.theatre.stories import make_script
from stvg_nb.theatre.truth import truth


def stvg(*argv, cwd=None):
    command = [str(Path(sys.executable).with_name("stvg")), *map(str, argv)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"YOLO_OFFLINE": "true"},
        stdin=subprocess.DEVNULL,
    )


def moving_square(path, frames=30, speed=4):
    "A light square that crosses a dark, noisy scene."
    rng, back = (
        np.random.default_rng(0),
        np.random.default_rng(1).integers(20, 60, (90, 160, 3)).astype(np.uint8),
    )

    def each():
        for f in range(frames):
            frame = back + rng.integers(0, 4, back.shape).astype(np.uint8)
            frame[30:60, 5 + speed * f : 25 + speed * f] = (220, 180, 60)
            yield frame

    write_video(path, each(), 10)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    "A Puppets clip of 10 seconds with its exact masks."
    path = tmp_path_factory.mktemp("clip") / "puppets.mp4"
    script = make_script("val", "stage", 3, Options(duration=10.0))
    return path, truth(script, write_clip(path, script))["masks"]


@pytest.fixture
def folder(tmp_path):
    "Three good videos and two broken ones."
    (tmp_path / "in").mkdir()
    for i in range(3):
        moving_square(tmp_path / "in" / f"good{i}.mp4", 30 + i)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"this is no video")
    (tmp_path / "in" / "cut.mp4").write_bytes((tmp_path / "in" / "good0.mp4").read_bytes()[:700])
    return tmp_path


# many videos ------------------------------------------------------------------------------------


def test_broken_videos_are_set_aside_and_the_others_done(folder):
    r = stvg("prompt", folder / "in", "--output", folder / "out", "--json")
    result = json.loads(r.stdout)
    assert r.returncode == 3 and [Path(v["video"]).name for v in result["videos"]] == [
        "good0.mp4",
        "good1.mp4",
        "good2.mp4",
    ]
    assert {Path(q["video"]).name: q["reason"] for q in result["quarantined"]}.keys() == {
        "broken.mp4",
        "cut.mp4",
    }
    assert all(
        "not a video" in q["reason"] or "no frame" in q["reason"] for q in result["quarantined"]
    )
    assert all(
        Path(v["output"]).is_file() and Path(v["database"]).is_file() for v in result["videos"]
    )
    assert (
        "broken.mp4" in stvg("prompt", folder / "in", "--output", folder / "out").stdout
    )  # also in the text for people


def test_an_interrupted_run_goes_on_and_keeps_what_was_finished(folder):
    for name in ("broken", "cut"):
        (folder / "in" / f"{name}.mp4").unlink()
    command = [
        str(Path(sys.executable).with_name("stvg")),
        "prompt",
        str(folder / "in"),
        "--output",
        str(folder / "out"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = folder / "out" / "good0.prompt.json"
    while not first.is_file() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stamp = {
        p.name: p.stat().st_mtime_ns
        for p in (first, folder / "out" / "good0.mp4", folder / "out" / "good0.masks.json.gz")
    }
    config = prompting.load_config()  # what the command takes
    assert prompt_many(list_videos(folder / "in"), folder / "out", config)["quarantined"] == []
    assert stamp == {
        name: (folder / "out" / name).stat().st_mtime_ns for name in stamp
    }  # not touched again
    whole = prompt_many(list_videos(folder / "in"), folder / "whole", config)
    for v in whole["videos"]:
        name = Path(v["database"]).name
        assert (folder / "whole" / name).read_bytes() == (folder / "out" / name).read_bytes()
    assert not list(folder.rglob("*.tmp"))


def test_two_videos_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="different names"):
        prompt_many([tmp_path / "a/x.mp4", tmp_path / "b/x.avi"], tmp_path)


def test_a_list_of_videos(folder):
    (folder / "some.txt").write_text("in/good1.mp4 # the second\n\n")
    assert [p.name for p in list_videos(folder / "some.txt")] == ["good1.mp4"]
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="names no videos"):
        list_videos(folder / "empty")
    with pytest.raises(InputError, match="no such list"):
        list_videos(folder / "gone.txt")


# one video --------------------------------------------------------------------------------------


def test_reuse_takes_a_fitting_database_and_refuses_another(folder):
    video, out = folder / "in" / "good0.mp4", folder / "n.mp4"
    first = stvg("prompt", video, "--output", out, "--json")
    made = json.loads(first.stdout)
    before = Path(made["database"]).read_bytes()
    marks = stvg(
        "prompt",
        video,
        "--output",
        out,
        "--reuse",
        "--overwrite",
        "--set",
        "prompting.mark_size=40",
        "--json",
    )  # marks are drawn when they are read
    assert (
        first.returncode == marks.returncode == 0
        and json.loads(marks.stdout)["config_hash"] == made["config_hash"]
    )
    other = stvg(
        "prompt",
        video,
        "--output",
        out,
        "--reuse",
        "--overwrite",
        "--set",
        "prompting.backward=false",
    )
    assert (
        other.returncode == 2
        and "another video or configuration" in other.stderr
        and other.stderr.count("\n") <= 3
    )
    moved = stvg("prompt", folder / "in" / "good1.mp4", "--output", out, "--reuse", "--overwrite")
    assert moved.returncode == 2 and Path(made["database"]).read_bytes() == before
    assert stvg("prompt", video, "--output", out).returncode == 2  # exists, no --overwrite
    assert stvg("prompt", folder / "gone.mp4").returncode == 2


def test_the_same_video_gives_the_same_bytes(folder):
    runs = [
        prompt_video(
            folder / "in" / "good0.mp4", folder / f"{n}.mp4", folder / f"{n}.masks.json.gz"
        )
        for n in "ab"
    ]
    a, b = (Path(r["database"]) for r in runs)
    assert (
        a.read_bytes() == b.read_bytes()
        and (folder / "a.mp4").read_bytes() == (folder / "b.mp4").read_bytes()
    )
    db = MaskDatabase.open(a)
    assert (
        len(db) == 1
        and len(db.frames_of(1)) == 30
        and db.tube(1).boxes[20] == pytest.approx([85, 30, 105, 60], abs=2)
    )


@pytest.mark.parametrize("count", [0, 120])
def test_no_objects_and_many(tmp_path, count):
    path, size = moving_square(tmp_path / "v.mp4", 4), (90, 160)
    boxes = np.array(
        [
            [10 * (i % 15) + 2, 10 * (i // 15) + 2, 10 * (i % 15) + 9, 10 * (i // 15) + 9]
            for i in range(count)
        ],
        float,
    ).reshape(-1, 4)
    masks = [np.zeros(size, bool) for _ in boxes]
    for m, (x1, y1, x2, y2) in zip(masks, boxes.astype(int)):
        m[y1:y2, x1:x2] = True
    result = prompt_video(
        path,
        tmp_path / "out.mp4",
        detections={0: Detections(boxes, ["dot"] * count, np.ones(count), masks)},
    )
    db = MaskDatabase.open(result["database"])
    assert (
        result["n_objects"] == count == len(db)
        and result["n_frames"] == 4
        and probe(tmp_path / "out.mp4").frame_count == 4
    )
    assert db.ids == list(range(1, count + 1)) and identity_report(db)["n_objects"] == count
    if count:
        assert len(visible_marks(db, [0])[0]) == 120


def test_frames_without_objects_stay_empty(tmp_path):
    path = tmp_path / "v.mp4"
    write_video(
        path, (np.full((90, 160, 3), 40 if f < 15 else 40, np.uint8) for f in range(31)), 10
    )
    db, _ = build_database(path, variant(detector="motion"))
    assert len(db) == 0 and visible_marks(db, range(31)) == {f: set() for f in range(31)}


def test_variants_number_a_puppets_clip(clip):
    path, truth = clip
    seen = exact_detections(truth, key_frames(100, 15), labels=["puppet"])
    dbs = {
        name: build_database(path, variant(name, classes="all"), detections=dict(seen))[0]
        for name in ("paper", "release")
    }
    for id in dbs["release"].ids:  # a label map: masks exclude each other
        for other in dbs["release"].ids:
            if other > id:
                assert not any(
                    (dbs["release"].mask(id, f) & dbs["release"].mask(other, f)).any()
                    for f in set(dbs["release"].frames_of(id))
                    & set(dbs["release"].frames_of(other))
                )
    late = [i for i in dbs["release"].ids if dbs["release"].info(i)["source"] == "new"]
    assert all(
        min(frames) % 15 == 0 for i in late if (frames := dbs["release"].frames_of(i))
    )  # no backward pass


def test_a_class_that_no_detector_knows_is_refused_in_one_line(folder):
    video, out = folder / "in" / "good0.mp4", folder / "n.mp4"
    r = stvg("prompt", video, "--output", out, "--set", "prompting.classes=Movign, person")
    assert r.returncode == 2 and r.stderr.count("\n") == 1 and not out.exists()
    assert "motion has no class 'Movign' (nearest: moving), 'person'" in r.stderr
    r = stvg("prompt", video, "--output", out, "--set", "prompting.classes= MOVING,")
    assert r.returncode == 0 and out.exists()


@pytest.mark.parametrize("offline", ["true", "false"])
def test_weights_that_are_not_there_are_not_looked_for(folder, offline, monkeypatch):
    monkeypatch.setenv("YOLO_OFFLINE", offline)
    monkeypatch.setitem(sys.modules, "ultralytics", None)  # it is not even imported
    config = variant(detector="yolo", detector_weights="yolo12x.pt")
    with pytest.raises(InputError, match="yolo12x.pt: no such weights file"):
        choose_detector(config, probe(folder / "in" / "good0.mp4"))


def test_a_zero_shot_model_runs_no_code_of_its_own(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "config.json").write_text(
        json.dumps(dict(model_type="mine", auto_map={"AutoConfig": "code.Config"}))
    )
    (tmp_path / "code.py").write_text(f"open({str(marker)!r}, 'w').close()")
    with pytest.raises(InputError, match="zero-shot"):
        choose_detector(variant(detector="zero-shot", detector_weights=str(tmp_path)), None)
    assert not marker.exists()


# detectors --------------------------------------------------------------------------------------


def test_auto_says_what_it_takes_and_why(clip, folder):
    detector, sentence = choose_detector(variant(), probe(clip[0]))
    assert "puppets-yolo12n" in sentence and "Puppets clip" in sentence
    found = detector([next(render(make_script("test", "street", 0)))[0]])[0]
    assert set(found.labels) == {"puppet"} and len(found)
    _, sentence = choose_detector(variant(), probe(folder / "in" / "good0.mp4"))
    assert "motion" in sentence and "no detector weights" in sentence
    with pytest.raises(InputError, match="detector_weights"):
        choose_detector(variant(detector="yolo"), probe(clip[0]))


def test_a_tampered_detector_is_not_opened(tmp_path, monkeypatch):
    shutil.copytree(puppets_detector.package_dir() / "weights", tmp_path / "weights")
    monkeypatch.setattr(puppets_detector, "package_dir", lambda: tmp_path)
    assert shipped_detector().size == 320
    path = tmp_path / "weights" / "puppets-yolo12n.pt"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    monkeypatch.setitem(sys.modules, "ultralytics", None)  # it is not even imported
    with pytest.raises(InputError, match="SHA-256"):
        shipped_detector()
    path.unlink()
    with pytest.raises(InputError, match="not among the package's weights"):
        shipped_detector()


def test_the_shipped_detector_is_what_its_note_says():
    folder = puppets_detector.package_dir() / "weights"
    note = read_json(folder / "puppets-yolo12n.json")
    assert (
        (folder / "puppets-yolo12n.pt").stat().st_size < 7e6
        and note["licence"] == "AGPL-3.0"
        and note["image_size"] == 320
    )
    assert (
        "GNU AFFERO GENERAL PUBLIC LICENSE" in (folder / "puppets-yolo12n.LICENSE.txt").read_text()
    )
    assert (
        note["scores"]["test"]["map50"] > 0.9
        and b"/work" not in (folder / "puppets-yolo12n.pt").read_bytes()
    )


# marks, in pixels -------------------------------------------------------------------------------


def painted(id, size=20, kind="number", shape=(252, 336), place=None, **more):
    "Box of the pixels that a mark changes on a black frame."
    mask = np.zeros(shape, bool)
    y, x = place or (shape[0] // 2, shape[1] // 2)
    mask[y, x] = True
    return mask_box(
        draw_marks(
            np.zeros((*shape, 3), np.uint8),
            {id: mask},
            variant(mark_size=size, mark_type=kind, **more),
        ).any(-1)
    )


@pytest.mark.parametrize("size", [10, 20, 30, 40])
def test_size_in_pixels(size):
    for kind, id in (
        ("number", 8),
        ("upper", 2),
        ("mix", 8),
        ("mix", 12),
    ):  # fonts differ between OpenCV versions: 16 or 18 px at size 20
        x1, y1, x2, y2 = painted(id, size, kind)
        assert 0.65 * size <= y2 - y1 <= size and x2 - x1 <= size, (kind, id)
    lower = painted(1, size, "lower")
    assert 0.4 * size < lower[3] - lower[1] <= size  # an a is lower than an A
    large, small = painted(8, size, shape=(504, 672)), painted(8, size)
    assert large[3] - large[1] == pytest.approx(
        2 * (small[3] - small[1]), abs=5
    )  # grows with the frame


def test_marks_sit_in_the_middle():
    for id in (1, 8, 23):
        x1, y1, x2, y2 = painted(id)
        assert abs((x1 + x2) / 2 - 168) <= 4 and abs((y1 + y2) / 2 - 126) <= 4


def test_a_centroid_outside_the_mask_moves_onto_it():
    horseshoe = np.zeros((100, 100), bool)
    horseshoe[10:90, 10:90] = True
    horseshoe[10:70, 30:70] = False
    x, y = mark_place(horseshoe)
    assert horseshoe[round(y), round(x)]
    halves = np.zeros((40, 100), bool)
    halves[:, :10] = halves[:, -10:] = True
    x, y = mark_place(halves)
    assert halves[round(y), round(x)]
    assert mark_place(halves, "midrow") == (49.5, 19)  # the release's rule may miss the object


def test_nothing_to_draw_changes_nothing():
    frame = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    assert (draw_marks(frame, {}) == frame).all() and (
        draw_marks(frame, {3: np.zeros((60, 80), bool)}) == frame
    ).all()
    before = frame.copy()
    draw_marks(frame, {3: np.ones((60, 80), bool)})
    assert (frame == before).all()


def test_duplicates_and_classes():
    found = Detections(
        np.array([[0, 0, 10, 10], [0, 0, 10, 10], [40, 0, 50, 10]], float),
        ["person", "cat", "person"],
        np.array([0.4, 0.9, 0.3]),
    )
    assert select(found).labels == ["cat", "person"] and select(found, "person").boxes.tolist() == [
        [0, 0, 10, 10],
        [40, 0, 50, 10],
    ]
    assert (
        len(select(found, confidence=0.95)) == 0
        and len(select(found, "cat,dog", duplicate_iou=1.0)) == 1
    )
