"""Properties of intervals, boxes, tubes and masks; faults in files and videos."""

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from stvg_nb import core
from stvg_nb.foundations.artefacts import Artefact, write_figure, write_table
from stvg_nb.foundations.files import (
    InputError,
    atomic_path,
    make_folder,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from stvg_nb.foundations.geometry import (
    Interval,
    Tube,
    box_area,
    box_giou,
    box_iou,
    box_overlap,
    xywh_to_xyxy,
    xyxy_to_xywh,
)
from stvg_nb.foundations.masks import (
    MaskDatabase,
    decode_mask,
    encode_mask,
    mask_box,
    mask_iou,
    mask_overlap,
    rle_boxes,
    rle_runs,
)
from stvg_nb.foundations.settings import load_profile
from stvg_nb.foundations.video import Clip, iter_frames, probe, sample_indices, write_video

number = st.floats(-1e4, 1e4, allow_nan=False)
box = st.lists(number, min_size=4, max_size=4)
proper = st.tuples(number, number, st.floats(0, 1e3), st.floats(0, 1e3)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
span = st.tuples(st.integers(0, 5000), st.integers(0, 5000))

# ---------------------------------------------------------------------------- intervals


@given(span, span)
def test_interval_iou_is_symmetric_bounded_and_equals_counting_frames(a, b):
    one, two = Interval.frames(*a), Interval.frames(*b)
    assert one.iou(two) == two.iou(one)
    frames_a, frames_b = set(range(*a)), set(range(*b))
    expected = len(frames_a & frames_b) / len(frames_a | frames_b) if frames_a and frames_b else 0
    assert one.iou(two) == expected


@given(
    st.integers(0, 10**6),
    st.integers(1, 10**5),
    st.sampled_from([1, 10, 12.5, 23.976, 24000 / 1001, 25, 29.97, 30000 / 1001, 59.94, 120]),
)
def test_frames_to_seconds_and_back_is_exact(start, length, fps):
    frames = Interval.frames(start, start + length)
    assert frames.to_seconds(fps).to_frames(fps) == frames


@given(st.floats(0, 1e4), st.floats(0, 1e3), st.floats(0.5, 240))
def test_seconds_to_frames_keep_at_least_one_frame(start, length, fps):
    assert Interval(start, start + length).to_frames(fps).length >= 1


def test_half_up_not_half_to_even():
    assert [core.frame_of(x, 1) for x in (0.5, 1.5, 2.5, 2.4999)] == [1, 2, 3, 2]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Interval(float("nan"), 1),
        lambda: Interval(0, float("inf")),
        lambda: Interval(0.5, 2, "frame"),
        lambda: Interval(0, 1, "ms"),
        lambda: Interval(0, 1).iou(Interval.frames(0, 1)),
        lambda: Interval(0, 1).hull(Interval.frames(0, 1)),
    ],
)
def test_bad_intervals_are_refused(build):
    with pytest.raises(InputError, match="^Interval: "):
        build()


# ---------------------------------------------------------------------------- boxes


@given(box, box)
def test_box_measures_are_symmetric_and_bounded(a, b):
    for measure in (box_iou, box_overlap, box_giou):
        assert measure(a, b) == measure(b, a)
    assert 0 <= box_iou(a, b) <= box_overlap(a, b) <= 1 + 1e-9
    assert -1 - 1e-9 <= box_giou(a, b) <= box_iou(a, b) + 1e-9


@given(proper, st.integers(-1000, 1000))
def test_a_box_equals_itself_wherever_it_lies(a, shift):
    area = box_area(a)
    if area > 1e-6:
        assert box_iou(a, a) == box_overlap(a, a) == 1
    b = np.round(a)
    assert box_iou(b + shift, b) == box_iou(b, b + shift)


@given(proper)
def test_corners_and_sizes_convert_back(a):
    np.testing.assert_allclose(xywh_to_xyxy(xyxy_to_xywh(a)), a, atol=1e-9)


@given(st.lists(box, min_size=1, max_size=6), st.lists(box, min_size=1, max_size=6))
def test_broadcasting_equals_pairs(a, b):
    matrix = box_iou(np.array(a)[:, None], np.array(b)[None])
    assert matrix.tolist() == [[float(box_iou(x, y)) for y in b] for x in a]


# ---------------------------------------------------------------------------- tubes


@given(
    st.integers(0, 30),
    st.integers(1, 20),
    st.integers(0, 30),
    st.integers(1, 20),
    st.integers(0, 2**31),
)
def test_viou_equals_a_loop_over_frames(s1, n1, s2, n2, seed):
    rng = np.random.default_rng(seed)
    a = Tube.dense(s1, np.sort(rng.integers(0, 20, (n1, 2, 2)), 1).reshape(n1, 4))
    b = Tube.dense(s2, np.sort(rng.integers(0, 20, (n2, 2, 2)), 1).reshape(n2, 4))
    shared = set(range(s1, s1 + n1)) & set(range(s2, s2 + n2))
    total = sum(float(box_iou(a.boxes[t - s1], b.boxes[t - s2])) for t in sorted(shared))
    hull = max(s1 + n1, s2 + n2) - min(s1, s2)
    tiou, viou = a.iou(b)
    assert viou == pytest.approx(total / hull if shared else 0, abs=1e-12) and viou <= tiou + 1e-12


def test_interpolation_is_linear_and_keeps_given_boxes():
    tube = Tube.from_dict({3: [0, 0, 10, 10], 7: [4, 8, 14, 18]})
    dense = tube.interpolate()
    assert (
        dense.frames.tolist() == [3, 4, 5, 6, 7]
        and dense.at([5])[0].tolist() == [[2, 4, 12, 14]]
        and dense.at([3, 7])[0].tolist() == tube.boxes.tolist()
    )


@pytest.mark.parametrize(
    "boxes, why",
    [
        ({"a": [0, 0, 1, 1]}, "whole numbers"),
        ({"-2": [0, 0, 1, 1]}, "negative"),
        ({"1": [0, 0, 1]}, "four finite"),
        ({"1": [0, 0, 1, "2"]}, "four finite"),
        ({"1": [0, 0, 1, float("nan")]}, "four finite"),
        ({"1": None}, "four finite"),
        ({"1": [0, 0, 1, 1], "01": [0, 0, 1, 1]}, "two boxes"),
        ({"1": [0, 0, 1, True]}, "four finite"),
        ({"1": {"x": 1}}, "four finite"),
    ],
)
def test_bad_tubes_are_refused(boxes, why):
    with pytest.raises(InputError, match=why) as e:
        Tube.from_dict(boxes, where="p.json, record k, field boxes")
    assert str(e.value).startswith("p.json, record k, field boxes: ") and "\n" not in str(e.value)


# ---------------------------------------------------------------------------- masks


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
def test_masks_survive_encoding(h, w, share, seed):
    m = np.random.default_rng(seed).random((h, w)) < share
    counts = encode_mask(m)
    assert (decode_mask(counts, h, w) == m).all() and rle_runs(counts).sum() == h * w
    assert counts == coco.encode(np.asfortranarray(m.astype(np.uint8)))["counts"].decode()
    if m.any():
        assert rle_boxes([counts], h, w)[0].tolist() == mask_box(m).tolist()
    else:
        assert mask_box(m) is None and box_area(rle_boxes([counts], h, w)[0]) == 0


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**31))
def test_mask_measures_agree_with_boxes_on_boxes(h, w, seed):
    rng = np.random.default_rng(seed)

    def rectangle():
        (x1, x2), (y1, y2) = np.sort(rng.integers(0, w + 1, 2)), np.sort(rng.integers(0, h + 1, 2))
        m = np.zeros((h, w), bool)
        m[y1:y2, x1:x2] = True
        return m, [x1, y1, x2, y2]

    (m, a), (n, b) = rectangle(), rectangle()
    assert mask_iou(m, n) == pytest.approx(float(box_iou(a, b))) and mask_overlap(
        m, n
    ) == pytest.approx(float(box_overlap(a, b)))


@given(st.text(max_size=40), st.integers(1, 50), st.integers(1, 50))
def test_any_text_as_counts_is_a_mask_or_a_clear_error(text, h, w):
    try:
        assert decode_mask(text, h, w).shape == (h, w)
    except InputError as e:
        assert "counts" in str(e) and "\n" not in str(e)


@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 2**31), st.data())
def test_damaged_counts_never_reach_the_decoder(h, w, seed, data):
    counts = encode_mask(np.random.default_rng(seed).random((h, w)) < 0.4)
    at = data.draw(st.integers(0, len(counts) - 1))
    letter = chr(data.draw(st.integers(33, 126)))
    for damaged in (counts[:at], counts[:at] + letter + counts[at + 1 :], counts + letter):
        try:
            decode_mask(damaged, h, w)
        except InputError:
            pass


# ---------------------------------------------------------------------------- the database file


def database():
    db = MaskDatabase(20, 10, 10.0, 30, name="/somewhere/clip.mp4", config={"detector": "exact"})
    for i in (1, 2, 10):
        db.add_object(i, "person", 0.5)
        for t in range(0, 30, 3):
            db.add(i, t, np.arange(200).reshape(10, 20) % (i + 2) == 0)
    return db


def change(path, value):  # a function that sets one place of the file's content
    def apply(data):
        *way, last = path
        for key in way:
            data = data[key]
        if value is None:
            del data[last]
        else:
            data[last] = value

    return apply


BAD_DATABASES = {
    "other schema": (change(["schema"], "stvg.masks/9"), "schema is 'stvg.masks/9'"),
    "no schema": (change(["schema"], None), "schema is None"),
    "no video": (change(["video"], None), "'video' is missing"),
    "no width": (change(["video", "width"], None), "'width' is missing"),
    "width as text": (change(["video", "width"], "20"), "wrong type str"),
    "no frames at all": (change(["video", "frame_count"], 0), "above 0"),
    "negative height": (change(["video", "height"], -1), "above 0"),
    "frames missing": (change(["frames"], None), "'frames' is missing"),
    "stop beyond the video": (change(["frames", "stop"], 31), "does not fit"),
    "step zero": (change(["frames", "step"], 0), "does not fit"),
    "no objects": (change(["objects"], None), "'objects' is missing"),
    "object zero": (change(["objects", "0"], {"label": "x"}), "start at 1"),
    "object with a name": (change(["objects", "dog"], {"label": "x"}), "not a whole number"),
    "mask of an unknown object": (change(["masks", "7"], {}), "not listed"),
    "frame beyond": (change(["masks", "1", "30"], "0"), "outside the processed"),
    "frame with a name": (change(["masks", "1", "x"], "0"), "not a whole number"),
    "counts as list": (change(["masks", "1", "0"], [1, 2]), "counts string"),
    "config changed": (change(["config", "detector"], "other"), "config_hash"),
    "no config": (change(["config"], None), "'config' is missing"),
    "masks as list": (change(["masks"], []), "wrong type list"),
}


@pytest.mark.parametrize("name", BAD_DATABASES)
def test_bad_databases_are_refused(name, tmp_path):
    apply, why = BAD_DATABASES[name]
    data = json.loads(json.dumps(database().to_json()))
    apply(data)
    path = tmp_path / "clip.masks.json.gz"
    write_json(path, data)
    with pytest.raises(InputError) as e:
        MaskDatabase.open(path)
    assert why in str(e.value) and str(path) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "counts, why",
    [
        ("", "empty"),
        ("0", "decode to"),
        ("P7", "decode to"),
        ("\u20ac", "characters"),
        ("oooooooooo", "cut short"),
    ],
)
def test_bad_masks_are_found_when_read(counts, why, tmp_path):
    data = database().to_json()
    data["masks"]["2"]["6"] = counts
    path = tmp_path / "clip.masks.json.gz"
    write_json(path, data)
    db = MaskDatabase.open(path)
    assert db.mask(2, 3) is not None
    for read in (lambda: db.mask(2, 6), lambda: db.tube(2), lambda: db.at(6)):
        with pytest.raises(InputError, match="object 2, frame 6") as e:
            read()
        assert why in str(e.value)


def test_database_bytes_depend_on_content_only(tmp_path):
    one, two = tmp_path / "a.masks.json.gz", tmp_path / "b.masks.json.gz"
    database().save(one)
    time.sleep(1.1)
    MaskDatabase.open(one).save(two)
    assert one.read_bytes() == two.read_bytes()
    text = gzip.decompress(one.read_bytes()).decode()
    assert (
        list(json.loads(text)["masks"]) == ["1", "2", "10"]
        and ", " not in text
        and "/somewhere" not in text
    )


def content(db):
    "What a database holds: masks as code by object and frame, facts by object."
    masks = {i: {f: db.counts(i, f) for f in db.frames_of(i)} for i in db.ids}
    return masks, {i: db.info(i) for i in db.ids}


steps = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "clear", "merge", "rename"]))
    .flatmap(lambda t: st.tuples(st.just(t[0]), st.integers(1, 4), st.integers(1, 4)))
    .flatmap(lambda t: st.tuples(st.just(t), st.integers(0, 5), st.integers(0, 2**31))),
    max_size=25,
)


def apply_to_dictionary(masks, step, id, other, frame, code):
    "The same change on a plain dictionary; None where it is not allowed."
    if step == "rename":
        return None if id not in masks or other in masks else masks | {other: masks.pop(id)}
    if id not in masks or (step == "merge" and (other not in masks or other == id)):
        return None
    if step == "add":
        masks[id][frame] = code
    if step == "remove":
        masks[id].pop(frame, None)
    if step == "clear":
        del masks[id]
    if step == "merge":
        masks[id] = masks.pop(other) | masks[id]
    return masks


@given(steps)
def test_changes_of_a_database_equal_changes_of_a_dictionary(steps):
    db = MaskDatabase(4, 3, 10.0, 6)
    for i in (1, 2, 3):
        db.add_object(i)
    model = {1: {}, 2: {}, 3: {}}
    for (step, id, other), frame, seed in steps:
        m = np.random.default_rng(seed).random((3, 4)) < 0.5
        m[0, 0] = True
        call = dict(
            add=lambda: db.add(id, frame, m),
            remove=lambda: db.remove(id, frame),
            clear=lambda: db.remove(id),
            merge=lambda: db.merge(id, other),
            rename=lambda: db.rename(id, other),
        )[step]
        changed = apply_to_dictionary(dict(model), step, id, other, frame, encode_mask(m))
        if changed is None:
            with pytest.raises(InputError):
                call()
        else:
            call()
            model = changed
        assert content(db)[0] == model
        assert db.frames_of() == sorted({f for by_frame in model.values() for f in by_frame})
        assert all(db.ids_at(f) == sorted(i for i in model if f in model[i]) for f in range(6))


def test_an_empty_database_is_a_result(tmp_path):
    db = MaskDatabase(20, 10, 10.0, 30)
    assert db and len(db) == 0 and db.ids == [] and db.frames_of() == []
    db.save(tmp_path / "empty.masks.json.gz")
    again = MaskDatabase.open(tmp_path / "empty.masks.json.gz")
    assert again and len(again) == 0 and again.at(0) == {}


def test_merging_keeps_the_mask_of_the_number_that_stays():
    db = database()
    first, second = db.counts(1, 3), db.counts(2, 0)
    db.remove(1, 0)
    db.merge(1, 2)
    assert db.ids == [1, 10] and db.info(1) == dict(label="person", score=0.5, source="stitched")
    assert (db.counts(1, 3), db.counts(1, 0)) == (first, second)


def test_a_replaced_mask_is_checked_again():
    db = database()
    good = db.counts(1, 0)
    for change in (
        lambda: db.add(1, 0, good[:-1]),
        lambda: (db.remove(1, 0), db.add(1, 0, good[:-1])),
        lambda: (db.remove(1), db.add_object(1), db.add(1, 0, good[:-1])),
        lambda: (db.rename(1, 5), db.add_object(1), db.add(1, 0, good[:-1])),
    ):
        change()
        with pytest.raises(InputError, match="object 1, frame 0"):
            db.mask(1, 0)


def test_damaged_masks_are_found_after_merge_and_rename():
    db = database()
    db.add(2, 1, db.counts(2, 0)[:-1])
    db.merge(1, 2)
    db.rename(1, 3)
    assert db.mask(3, 0) is not None
    with pytest.raises(InputError, match="object 3, frame 1"):
        db.rle(3, 1)


def test_a_copy_is_independent():
    db = database()
    other = db.copy()
    assert other.to_json() == db.to_json()
    other.remove(1, 0)
    other.merge(2, 10)
    assert db.is_seen(1, 0) and db.ids == [1, 2, 10] and db.info(2)["source"] == "first"


def test_ids_are_never_reused():
    db = database()
    with pytest.raises(InputError, match="used twice"):
        db.add_object(2)
    with pytest.raises(InputError, match="whole number"):
        db.add_object(0)
    with pytest.raises(InputError, match="not announced"):
        db.add(3, 0, np.ones((10, 20), bool))
    with pytest.raises(InputError, match="outside"):
        db.add(1, 30, np.ones((10, 20), bool))
    with pytest.raises(InputError, match="shape"):
        db.add(1, 0, np.ones((20, 10), bool))


# ---------------------------------------------------------------------------- files

BAD_JSON = {
    "empty": (b"", "line 1"),
    "cut": (b'{"a": [1,\n2', "line 2"),
    "nan": (b'{"a": NaN}', "NaN"),
    "infinity": (b"[-Infinity]", "Infinity"),
    "huge": (b"[1e400]", "too large"),
    "twice": (b'{"a": 1, "a": 1}', "twice"),
    "inner twice": (b'{"a": {"b": 1, "b": 2}}', "twice"),
    "latin": (b'{"a": "\xe9"}', "UTF-8"),
    "two values": (b"{} {}", "line 1"),
    "trailing comma": (b'{"a": 1,}', "line 1"),
    "deep": (b"[" * 100_000, "JSON"),
}


@pytest.mark.parametrize("name", BAD_JSON)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_json_names_file_and_reason(name, packed, tmp_path):
    content, why = BAD_JSON[name]
    path = tmp_path / ("x.json.gz" if packed else "x.json")
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    with pytest.raises(InputError) as e:
        read_json(path)
    assert str(path) in str(e.value) and why in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain text",
        gzip.compress(b'{"a": 1}', mtime=0)[:-6],
        gzip.compress(b"{}", mtime=0)[:12],
    ],
)
def test_damaged_gzip_is_refused(content, tmp_path):
    path = tmp_path / "x.json.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="gzip|JSON"):
        read_json(path)


BREAKS = ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\n", "\r\n")


@pytest.mark.parametrize("packed", [False, True])
def test_line_breaks_inside_a_string_survive_json_lines(packed, tmp_path):
    path = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    values = [{"query": f"one{b}two"} for b in BREAKS] + ["".join(BREAKS)]
    write_jsonl(path, values)
    assert read_jsonl(path) == values


@given(st.lists(st.text(), max_size=5))
def test_any_text_survives_json_lines(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "any-text.jsonl"
    write_jsonl(path, texts)
    assert read_jsonl(path) == texts


def test_json_lines_of_other_systems(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    path.write_bytes(b'{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(InputError, match="line 2"):
        read_jsonl(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(InputError, match="folder"):
        read_json(tmp_path)


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


WAYS = {
    "folder in the way": ("folder", "a folder of this name is in the way; remove it"),
    "parent is a file": ("file/x.json", "a file is in the way where a folder is needed"),
    "grandparent is a file": ("file/a/b/x.json", "a file is in the way where a folder is needed"),
    "name too long": ("x" * 300 + ".json", "the name is too long; choose a shorter one"),
    "folder's name too long": ("x" * 300 + "/x.json", "the name is too long"),
    "nul": ("a\0b.json", "is no file name"),
    "nul in the folder": ("a\0b/x.json", "is no file name"),
    "half a character": ("\ud800.json", "is no file name"),
}


@pytest.mark.parametrize("kind", WAYS)
def test_what_cannot_be_written_says_so_before_the_work_begins(kind, tmp_path):
    name, why = WAYS[kind]
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    worked = []

    def work():
        with atomic_path(tmp_path / name) as temporary:
            worked.append(temporary)

    for attempt in (work, lambda: write_json(tmp_path / name, {})):
        with pytest.raises(InputError) as e:
            attempt()
        assert why in str(e.value) and str(tmp_path) in str(e.value)
        assert str(e.value).isprintable()
    assert not worked
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_the_part_that_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as e:
        make_folder(tmp_path / "file" / "a" / "b")
    assert e.value.where == str(tmp_path / "file")


@pytest.mark.parametrize(
    "number, why",
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota"),
        (errno.EROFS, "read-only"),
    ],
)
def test_a_disk_that_fills_up_leaves_the_old_file(number, why, tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    with pytest.raises(InputError, match=why) as e:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError(number, os.strerror(number))
    assert str(path) in str(e.value) and "\n" not in str(e.value)
    assert read_json(path) == {"old": 1} and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_real_full_disk(tmp_path):
    "/dev/full takes no byte: the error of the system call, not one made up."
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with pytest.raises(InputError, match="the disk is full"):
        with atomic_path(tmp_path / "x.bin"), open("/dev/full", "wb", buffering=0) as f:
            f.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_permission(tmp_path):
    if os.geteuid() == 0:
        with pytest.raises(InputError, match="no permission"):
            with atomic_path(tmp_path / "x.json") as temporary:
                raise PermissionError(errno.EACCES, "Permission denied", str(temporary))
        return
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        write_json(tmp_path / "x.json", {})
    tmp_path.chmod(0o700)


def test_errors_of_other_files_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError):
        with atomic_path(tmp_path / "x.json"):
            open(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * 250 + ".json")
    write_json(path, [1])
    assert read_json(path) == [1]


# ---------------------------------------------------------------------------- artefacts


def test_an_artefact_made_again_has_the_same_bytes(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setenv("STVG_FIGURES", str(tmp_path))
    row = dict(label="a", kind="measured", metrics={"m": 0.5, "m low": 0.4, "m high": 0.6})

    def make(seconds):
        write_table(Artefact("x-table", "tiny", "A table.", rows=[row], seconds=seconds))
        figure, ax = plt.subplots()
        ax.plot([0, 1])
        write_figure(Artefact("x-figure", "tiny", "A figure.", seconds=seconds), figure)
        plt.close(figure)
        return {p.name: p.read_bytes() for p in sorted(tmp_path.iterdir())}

    first = make(1.0)
    assert list(first) == [
        "x-figure.png",
        "x-figure.provenance.json",
        "x-table.csv",
        "x-table.md",
        "x-table.provenance.json",
    ]
    time.sleep(1.1)
    assert make(2.0) == first


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    code = f"from stvg_nb.core import atomic_path; import time\nwith atomic_path({str(path)!r}) as p: p.write_text('half'); print('now', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert read_json(path) == {"old": 1}


# ---------------------------------------------------------------------------- profiles


@pytest.mark.parametrize(
    "text, why",
    [
        ("data: {benchmarks: x}", "unknown setting 'benchmarks'"),
        ("colour: red", "unknown setting 'colour'"),
        ("seed: one", "'seed' is 'one'"),
        ("seed: true", "'seed' is True"),
        ("data: 3", "needs settings"),
        ("inherits: nobody", "no such profile"),
        ("a: [1", "not valid YAML"),
        ("- a", "needs settings"),
        ("sampling: {rate: fast}", "'rate' is 'fast'"),
        ("data: {limit: 1.5}", "'limit' is 1.5"),
    ],
)
def test_bad_profiles_are_refused_by_name(text, why, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as e:
        load_profile(str(path))
    assert why in str(e.value) and "\n" not in str(e.value)


def test_profiles_that_inherit_in_a_circle(tmp_path):
    (tmp_path / "a.yaml").write_text(f"inherits: {tmp_path / 'b.yaml'}")
    (tmp_path / "b.yaml").write_text(f"inherits: {tmp_path / 'a.yaml'}")
    with pytest.raises(InputError, match="circle"):
        load_profile(str(tmp_path / "a.yaml"))


def test_all_profiles_load_and_smoke_is_the_default_under_test(monkeypatch):
    names = {"smoke", "tiny", "one-gpu", "one-gpu-apache", "a100", "a100-dry", "o1"}
    assert set(core.profiles()) == names
    for name in core.profiles():
        assert load_profile(name).name == name
    monkeypatch.delenv("STVG_PROFILE", raising=False)
    monkeypatch.delenv("IN_TEST", raising=False)
    assert core.default_profile() == "tiny"
    monkeypatch.setenv("IN_TEST", "1")
    assert core.default_profile() == "smoke"
    monkeypatch.setenv("STVG_PROFILE", "a100")
    assert core.default_profile() == "a100"


# ---------------------------------------------------------------------------- video


def test_a_header_that_lies_is_read_to_its_real_end(opencv_data, capsys):
    info = probe(opencv_data / "tree.avi")
    assert (info.frame_count, info.header_frames) == (68, 444)
    assert "444" in (err := capsys.readouterr().err) and "68" in err and err.count("\n") == 1
    clip = Clip.read(opencv_data / "tree.avi")
    assert len(clip) == 68 and "68 decode" in capsys.readouterr().err


def test_real_video(opencv_data):
    info = probe(opencv_data / "vtest.avi")
    assert (info.width, info.height, info.fps, info.frame_count) == (768, 576, 10.0, 795)
    clip = Clip.read(opencv_data / "vtest.avi", 100, 110)
    assert clip.frames.shape == (10, 576, 768, 3) and np.allclose(
        clip.times, np.arange(100, 110) / 10
    )


def test_a_truncated_video_is_read_as_far_as_it_goes(opencv_data, tmp_path, capsys):
    whole = (opencv_data / "vtest.avi").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(whole[: len(whole) // 2])
    info = probe(path)
    assert 300 < info.frame_count < 450 and "using" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [b"", b"no video at all" * 50, b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 200]
)
def test_a_file_that_is_no_video(content, tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    for read in (probe, Clip.read, lambda p: next(iter_frames(p))):
        with pytest.raises(InputError) as e:
            read(path)
        assert str(path) in str(e.value) and "\n" not in str(e.value)


def test_times_come_from_the_file(tmp_path):
    write_video(
        tmp_path / "x.mp4",
        (np.full((32, 48, 3), 10 * t, np.uint8) for t in range(20)),
        30000 / 1001,
    )
    clip = Clip.read(tmp_path / "x.mp4")
    assert np.allclose(clip.times, np.arange(20) * 1001 / 30000, atol=1e-6) and probe(
        tmp_path / "x.mp4"
    ).fps == pytest.approx(30000 / 1001)


def test_iteration_keeps_one_frame(tmp_path):
    "Peak memory of an iteration does not grow with the video."
    code = """import sys, numpy as np; from stvg_nb.core import iter_frames, write_video
from stvg_nb.foundations.files import peak_bytes
path, n = sys.argv[1], int(sys.argv[2])
write_video(path, (np.full((720, 960, 3), t % 250, np.uint8) for t in range(n)), 10, preset='ultrafast'); sum(1 for _ in iter_frames(path)); print(peak_bytes())"""
    short, long = (
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(tmp_path / "x.mp4"), n],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for n in ("40", "240")
    )
    assert long - short < 60 << 20  # bytes; 200 more frames would be 395 MiB


@given(st.integers(1, 20_000), st.floats(1, 120), st.sampled_from(["linspace", "exact"]))
def test_sampled_frames_exist_ascend_and_are_even(n, fps, mode):
    index = sample_indices(n, fps, mode=mode)
    assert (
        len(index) % 2 == 0
        and 2 <= len(index) <= 768
        and (np.diff(index) >= 0).all()
        and index[0] == 0
        and index[-1] < n
    )


@pytest.mark.parametrize("path", ["", "nodots", "stvg_nb.core.nothing", "no_such_package.x"])
def test_dotted_paths_that_lead_nowhere(path):
    with pytest.raises(InputError, match="cannot be found"):
        core.resolve(path)
