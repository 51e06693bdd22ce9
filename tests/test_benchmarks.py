"Annotation formats: every trap, every refusal, the real files where they are at hand, and the doctor."

import copy
import gzip
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stvg_nb.core import (
    InputError,
    Interval,
    decode_mask,
    encode_mask,
    probe,
    repo_root,
    rle_runs,
    write_json,
    write_video,
)
from stvg_nb.foundations.benchmarks import (
    BENCHMARKS,
    LOADERS,
    describe,
    load,
    locate,
    video_key,
)
from stvg_nb.foundations.doctor import doctor, format_doctor
from stvg_nb.foundations.training_sets import TrainingSet, normal_query, training_set

DATA = repo_root() / "tests" / "data"
SHARED = (
    Path(os.environ.get("STVG_SHARED_DATA") or repo_root().parent / "shared" / "data")
    / "annotations"
)
real = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real annotation files are not at hand (STVG_SHARED_DATA)"
)

# ---- made-up records, one valid one per format -------------------------------------------------------------------------
BOXES = [[100, 50, 40, 120], [102, 50, 40, 120], [104, 51, 40, 120]]
V1 = dict(
    bbox=BOXES,
    st_frame=268,
    st_time=8.9,
    ed_time=9.0,
    img_num=600,
    caption="The man in green stands up.",
    width=640,
    height=360,
)
V2 = dict(
    bbox=BOXES,
    st_frame=268,
    st_time=8.9,
    ed_time=9.0,
    img_num=600,
    English="The man in green stands up.",
    img_size=[360, 640, 3],
)
VIDSTG = {
    "vid": "1001",
    "fps": 29.97,
    "frame_count": 596,
    "width": 640,
    "height": 360,
    "used_segment": {"begin_fid": 496, "end_fid": 595},
    "subject/objects": [{"tid": 0, "category": "adult"}, {"tid": 2, "category": "dog"}],
    "temporal_gt": {"begin_fid": 510, "end_fid": 596},
    "used_relation": {
        "subject_tid": 0,
        "object_tid": 2,
        "predicate": "hold",
        "begin_fid": 510,
        "end_fid": 596,
    },
    "captions": [
        {"description": "the adult in grey holds a dog.", "type": "person", "target_id": 0}
    ],
    "questions": [{"description": "what does the adult hold?", "type": "object", "target_id": 2}],
}
VIDOR = {
    "video_id": "1001",
    "video_path": "0001/1001.mp4",
    "frame_count": 596,
    "fps": 29.97,
    "width": 640,
    "height": 360,
    "trajectories": [
        [
            {
                "tid": i,
                "bbox": {"xmin": t % 90 + i, "ymin": 5, "xmax": t % 90 + 60, "ymax": 80},
                "generated": 0,
                "tracker": "none",
            }
            for i in (0, 2)
        ]
        for t in range(596)
    ],
}
ST = {
    "video_path": "clip_000.mp4",
    "conversations": [
        {"from": "human", "value": "When and where does she wave?"},
        {"from": "gpt", "value": "From <s> to <e>, <bboxes>"},
    ],
    "meta": {
        "width": 640,
        "height": 360,
        "split": [10, 200],
        "time_token": {"<s>": 20, "<e>": 22},
        "spatial_token": {"<bboxes>": {"20": [1, 2, 30, 40], "22": [3, 2, 30, 40]}},
    },
}
RLE = {"size": [8, 9], "counts": encode_mask(np.eye(8, 9))}
MEVIS = {
    "videos": {
        "v": {
            "frames": ["00000", "00001", "00002"],
            "expressions": {"0": {"exp": "the cat turns", "obj_id": [0], "anno_id": [7]}},
        }
    }
}
MASKS = {"7": [RLE, None, RLE]}
CHARADES = {
    "3MSZ0": {
        "duration": 30.5,
        "timestamps": [[24.3, 30.4]],
        "sentences": ["person turns a light on."],
    }
}
TVG = dict(
    path="./videos/a.avi",
    question="open the door",
    answer="3.0-9.5",
    start=5.0,
    end=25.0,
    duration=20.0,
    qsemtype="Human Pose",
)
OCR = dict(
    video_index=12,
    question="What does the sign say?",
    option=["STOP", "GO"],
    answer="A",
    eval_method="multiple_choice",
    task="text",
    task_type="recognition",
)
VALID = {
    "hcstvg": {"7_abc.mp4": V1},
    "vidstg": [VIDSTG],
    "st-align": [ST],
    "mevis": MEVIS,
    "charades-sta": CHARADES,
    "tvgbench": [TVG],
    "mme-videoocr": [OCR],
}


def put(folder, name, data):
    path = folder / name
    path.write_text(data) if isinstance(data, str) else write_json(path, data)
    return path


def edit(data, *steps):
    "A deep copy in which the last step replaces (or, with DELETE, removes) what the steps before it lead to."
    data, (*way, last, value) = copy.deepcopy(data), steps
    inner = data
    for step in way:
        inner = inner[step]
    if value is DELETE:
        del inner[last]
    else:
        inner[last] = value
    return data


DELETE = object()


def read_all(benchmark, path, **files):
    bench = load(benchmark, path, **files)
    for sample in bench:
        if files.get("masks"):
            bench.masks(sample)
    return bench


# ---- bad input: (benchmark, annotations, other file, words the message must hold) ------------------------------------------
H, V, S, M, C, T, O = (
    VALID[k]
    for k in ("hcstvg", "vidstg", "st-align", "mevis", "charades-sta", "tvgbench", "mme-videoocr")
)
k = "7_abc.mp4"
BAD = {
    "hc truncated": ("hcstvg", '{"7_abc.mp4": {"bbox": [[1, 2,', None, ["line 1"]),
    "hc empty file": ("hcstvg", "", None, ["not valid JSON"]),
    "hc no record": ("hcstvg", {}, None, ["no sample"]),
    "hc duplicate key": (
        "hcstvg",
        '{"a.mp4": "he runs", "a.mp4": "he sits"}',
        None,
        ["'a.mp4' occurs twice"],
    ),
    "hc list": ("hcstvg", [V1], None, ["a HC-STVG file is an object"]),
    "hc placeholder": (
        "hcstvg",
        edit(H, k, "bbox", [["x", "y", "w", "h"]]),
        None,
        [k, "field bbox", "box 0"],
    ),
    "hc three numbers": (
        "hcstvg",
        edit(H, k, "bbox", 1, [1, 2, 3]),
        None,
        [k, "field bbox", "box 1"],
    ),
    "hc five numbers": (
        "hcstvg",
        edit(H, k, "bbox", 1, [1, 2, 3, 4, 5]),
        None,
        [k, "field bbox", "box 1"],
    ),
    "hc box null": ("hcstvg", edit(H, k, "bbox", 2, None), None, [k, "field bbox", "box 2"]),
    "hc box of true": (
        "hcstvg",
        edit(H, k, "bbox", 2, [1, 2, 3, True]),
        None,
        [k, "field bbox", "box 2"],
    ),
    "hc NaN": (
        "hcstvg",
        json.dumps(edit(H, k, "bbox", 0, [1, 2, 3, 4])).replace("[1, 2, 3, 4]", "[1, 2, NaN, 4]"),
        None,
        ["NaN"],
    ),
    "hc infinity": ("hcstvg", json.dumps(H).replace("104", "1e999"), None, ["1e999"]),
    "hc no pixels": (
        "hcstvg",
        edit(H, k, "bbox", 2, [1, 2, 1e300, 4]),
        None,
        [k, "field bbox", "box 2"],
    ),
    "hc no box": ("hcstvg", edit(H, k, "bbox", []), None, [k, "field bbox", "at least one"]),
    "hc bbox text": ("hcstvg", edit(H, k, "bbox", "none"), None, [k, "field bbox", "a list"]),
    "hc bbox missing": ("hcstvg", edit(H, k, "bbox", DELETE), None, [k, "field bbox", "missing"]),
    "hc negative start": ("hcstvg", edit(H, k, "st_frame", -4), None, [k, "field st_frame"]),
    "hc half frame": ("hcstvg", edit(H, k, "st_frame", 12.5), None, [k, "field st_frame", "whole"]),
    "hc start text": ("hcstvg", edit(H, k, "st_frame", "268"), None, [k, "field st_frame"]),
    "hc start missing": (
        "hcstvg",
        edit(H, k, "st_frame", DELETE),
        None,
        [k, "field st_frame", "missing"],
    ),
    "hc no frames": ("hcstvg", edit(H, k, "img_num", 0), None, [k, "field img_num"]),
    "hc astronomic": ("hcstvg", edit(H, k, "img_num", 10**400), None, [k, "field img_num"]),
    "hc more boxes than frames": (
        "hcstvg",
        edit(H, k, "img_num", 2),
        None,
        [k, "field bbox", "img_num"],
    ),
    "hc tube far beyond": (
        "hcstvg",
        edit(H, k, "img_num", 268),
        None,
        [k, "field bbox", "frame 270"],
    ),
    "hc no caption": (
        "hcstvg",
        edit(H, k, "caption", DELETE),
        None,
        [k, "field caption", "English"],
    ),
    "hc caption number": ("hcstvg", edit(H, k, "caption", 3), None, [k, "field caption", "text"]),
    "hc no size": (
        "hcstvg",
        edit(edit(H, k, "width", DELETE), k, "height", DELETE),
        None,
        [k, "field width", "img_size"],
    ),
    "hc v2 size": ("hcstvg", {k: V2 | {"img_size": [360]}}, None, [k, "field img_size"]),
    "hc v2 size text": ("hcstvg", {k: V2 | {"img_size": "360x640"}}, None, [k, "field img_size"]),
    "hc text among records": (
        "hcstvg",
        {k: V1, "b.mp4": "he runs"},
        None,
        ["'b.mp4'", "needs an object"],
    ),
    "hc answer -1": ("hcstvg", edit(H, k, "answer_id", -1), None, [k, "field answer_id"]),
    "vid object": ("vidstg", VIDSTG, None, ["a VidSTG file is a list"]),
    "vid no vid": ("vidstg", edit(V, 0, "vid", DELETE), None, ["record 0", "field vid"]),
    "vid number": ("vidstg", edit(V, 0, "vid", 1001), None, ["record 0", "field vid", "text"]),
    "vid fps 0": ("vidstg", edit(V, 0, "fps", 0), None, ["1001#0#d0", "field fps"]),
    "vid no questions": (
        "vidstg",
        edit(V, 0, "questions", DELETE),
        None,
        ["record 0", "field questions"],
    ),
    "vid no description": (
        "vidstg",
        edit(V, 0, "captions", 0, "description", DELETE),
        None,
        ["field captions, item 0", "description"],
    ),
    "vid end beyond file": (
        "vidstg",
        edit(V, 0, "temporal_gt", "end_fid", 597),
        None,
        ["field temporal_gt, field end_fid", "exclusive"],
    ),
    "vid segment end exclusive": (
        "vidstg",
        edit(V, 0, "used_segment", "end_fid", 596),
        None,
        ["field used_segment, field end_fid", "inclusive"],
    ),
    "vid negative begin": (
        "vidstg",
        edit(V, 0, "temporal_gt", "begin_fid", -1),
        None,
        ["field temporal_gt, field begin_fid"],
    ),
    "vid reversed segment": (
        "vidstg",
        edit(V, 0, "used_segment", "end_fid", 400),
        None,
        ["field used_segment"],
    ),
    "vid unknown target": (
        "vidstg",
        edit(V, 0, "captions", 0, "target_id", 9),
        None,
        ["1001#0#d0", "field target_id", "9"],
    ),
    "vidor video missing": ("vidstg", V, {"2002": VIDOR}, ["boxes.json", "1001"]),
    "vidor list": ("vidstg", V, [VIDOR], ["boxes.json", "a VidOR file is an object"]),
    "vidor no trajectories": (
        "vidstg",
        V,
        {"1001": edit(VIDOR, "trajectories", DELETE)},
        ["boxes.json", "'1001'", "field trajectories"],
    ),
    "vidor box missing on a frame": (
        "vidstg",
        V,
        {"1001": edit(VIDOR, "trajectories", 520, [])},
        ["boxes.json", "field trajectories, frame 520", "object 0"],
    ),
    "vidor too short": (
        "vidstg",
        V,
        {"1001": edit(VIDOR, "trajectories", VIDOR["trajectories"][:590])},
        ["boxes.json", "frame 590"],
    ),
    "vidor no such object": (
        "vidstg",
        V,
        {"1001": edit(VIDOR, "trajectories", [[]] * 596)},
        ["boxes.json", "object 0", "no box at all"],
    ),
    "vidor box text": (
        "vidstg",
        V,
        {"1001": edit(VIDOR, "trajectories", 3, 0, "bbox", "xmin", "12")},
        ["boxes.json", "frame 3", "field xmin"],
    ),
    "vidor box null": (
        "vidstg",
        V,
        {"1001": edit(VIDOR, "trajectories", 3, 0, "bbox", None)},
        ["boxes.json", "frame 3", "field bbox"],
    ),
    "vidor corner missing": (
        "vidstg",
        V,
        {"1001": edit(VIDOR, "trajectories", 3, 0, "bbox", "ymax", DELETE)},
        ["boxes.json", "frame 3", "field ymax"],
    ),
    "vidor frame null": (
        "vidstg",
        V,
        {"1001": edit(VIDOR, "trajectories", 3, None)},
        ["boxes.json", "frame 3"],
    ),
    "vidor object twice": (
        "vidstg",
        V,
        {"1001": edit(VIDOR, "trajectories", 3, 1, "tid", 0)},
        ["boxes.json", "object 0 has two boxes on frame 3"],
    ),
    "st object": ("st-align", {"a": ST}, None, ["a ST-Align file is a list"]),
    "st no path": (
        "st-align",
        edit(S, 0, "video_path", DELETE),
        None,
        ["record '0'", "field video_path"],
    ),
    "st no query": (
        "st-align",
        edit(S, 0, "conversations", []),
        None,
        ["record '0'", "field conversations"],
    ),
    "st split reversed": (
        "st-align",
        edit(S, 0, "meta", "split", [200, 10]),
        None,
        ["record '0'", "field split"],
    ),
    "st split of one frame": (
        "st-align",
        edit(S, 0, "meta", "split", [10, 10]),
        None,
        ["record '0'", "field split"],
    ),
    "st no boxes": (
        "st-align",
        edit(S, 0, "meta", "spatial_token", "<bboxes>", DELETE),
        None,
        ["record '0'", "field <bboxes>", "missing"],
    ),
    "st box of three": (
        "st-align",
        edit(S, 0, "meta", "spatial_token", "<bboxes>", "22", [1, 2, 3]),
        None,
        ["record '0'", "field <bboxes>", "box 1"],
    ),
    "st frame key": (
        "st-align",
        edit(S, 0, "meta", "spatial_token", "<bboxes>", "-3", [1, 2, 3, 4]),
        None,
        ["record '0'", "field <bboxes>", "-3"],
    ),
    "st half a span": (
        "st-align",
        edit(S, 0, "meta", "time_token", "<e>", DELETE),
        None,
        ["record '0'", "field <e>"],
    ),
    "st width": ("st-align", edit(S, 0, "meta", "width", 0), None, ["record '0'", "field width"]),
    "mevis no videos": ("mevis", M["videos"], None, ["field videos", "missing"]),
    "mevis no frames": (
        "mevis",
        edit(M, "videos", "v", "frames", []),
        None,
        ["video 'v'", "field frames"],
    ),
    "mevis frame twice": (
        "mevis",
        edit(M, "videos", "v", "frames", ["0", "1", "0"]),
        None,
        ["video 'v'", "field frames", "twice"],
    ),
    "mevis no text": (
        "mevis",
        edit(M, "videos", "v", "expressions", "0", "exp", DELETE),
        None,
        ["video 'v'", "field exp"],
    ),
    "mevis anno text": (
        "mevis",
        edit(M, "videos", "v", "expressions", "0", "anno_id", ["7"]),
        MASKS,
        ["v#0", "field anno_id"],
    ),
    "mevis no target": (
        "mevis",
        edit(M, "videos", "v", "expressions", "0", "anno_id", []),
        MASKS,
        ["v#0", "field anno_id"],
    ),
    "mevis unknown anno": (
        "mevis",
        edit(M, "videos", "v", "expressions", "0", "anno_id", [7, 8]),
        MASKS,
        ["v#0", "annotation 8"],
    ),
    "mevis hidden labels": (
        "mevis",
        edit(M, "videos", "v", "expressions", "0", "anno_id", DELETE),
        MASKS,
        ["v#0", "anno_id", "missing"],
    ),
    "mevis mask count": ("mevis", M, {"7": [RLE]}, ["masks.json", "annotation 7", "3 masks"]),
    "mevis mask size": (
        "mevis",
        M,
        {"7": [RLE, None, RLE | {"size": [9, 8]}]},
        ["masks.json", "annotation 7, frame 2", "[9, 8]"],
    ),
    "mevis mask text": (
        "mevis",
        M,
        {"7": [RLE, "mask", None]},
        ["masks.json", "annotation 7, frame 1"],
    ),
    "mevis mask cut": (
        "mevis",
        M,
        {"7": [RLE, RLE | {"counts": RLE["counts"][:-2]}, None]},
        ["masks.json", "annotation 7, frame 1"],
    ),
    "mevis mask uncompressed": (
        "mevis",
        M,
        {"7": [RLE, RLE | {"counts": [0, 71]}, None]},
        ["masks.json", "annotation 7, frame 1"],
    ),
    "mevis all null": ("mevis", M, {"7": [None] * 3}, ["masks.json", "size"]),
    "charades list": ("charades-sta", [CHARADES], None, ["a Charades-STA file is an object"]),
    "charades no duration": (
        "charades-sta",
        edit(C, "3MSZ0", "duration", DELETE),
        None,
        ["3MSZ0", "field duration"],
    ),
    "charades duration 0": (
        "charades-sta",
        edit(C, "3MSZ0", "duration", 0),
        None,
        ["3MSZ0", "field duration"],
    ),
    "charades counts": (
        "charades-sta",
        edit(C, "3MSZ0", "sentences", ["a", "b"]),
        None,
        ["3MSZ0", "field timestamps"],
    ),
    "charades one time": (
        "charades-sta",
        edit(C, "3MSZ0", "timestamps", [[3]]),
        None,
        ["3MSZ0", "field timestamps, item 0"],
    ),
    "charades negative": (
        "charades-sta",
        edit(C, "3MSZ0", "timestamps", [[-1, 3]]),
        None,
        ["3MSZ0", "field timestamps, item 0"],
    ),
    "charades text time": (
        "charades-sta",
        edit(C, "3MSZ0", "timestamps", [["1", "3"]]),
        None,
        ["3MSZ0", "field timestamps, item 0"],
    ),
    "charades sentence": (
        "charades-sta",
        edit(C, "3MSZ0", "sentences", [None]),
        None,
        ["3MSZ0", "field sentences"],
    ),
    "charades txt no ##": (
        "charades-sta",
        "3MSZ0 1 2##fine\n3MSZ0 1.0 2.0 she sits\n",
        None,
        ["line 2"],
    ),
    "charades txt two words": ("charades-sta", "3MSZ0 1.0##she sits\n", None, ["line 1"]),
    "charades txt no number": ("charades-sta", "3MSZ0 one two##she sits\n", None, ["line 1"]),
    "charades txt infinite": ("charades-sta", "3MSZ0 1 inf##she sits\n", None, ["line 1"]),
    "charades txt NaN": ("charades-sta", "3MSZ0 nan 2##she sits\n", None, ["line 1"]),
    "tvg no path": ("tvgbench", edit(T, 0, "path", DELETE), None, ["record '0'", "field path"]),
    "tvg answer words": (
        "tvgbench",
        edit(T, 0, "answer", "3.0 to 9.5"),
        None,
        ["record '0'", "field answer"],
    ),
    "tvg answer negative": (
        "tvgbench",
        edit(T, 0, "answer", "-3-9"),
        None,
        ["record '0'", "field answer"],
    ),
    "tvg answer number": (
        "tvgbench",
        edit(T, 0, "answer", 3.0),
        None,
        ["record '0'", "field answer"],
    ),
    "tvg one number": (
        "tvgbench",
        edit(T, 0, "answer", "3.0"),
        None,
        ["record '0'", "field answer"],
    ),
    "tvg half a window": (
        "tvgbench",
        edit(T, 0, "end", None),
        None,
        ["record '0'", "field end", "both"],
    ),
    "tvg reversed window": ("tvgbench", edit(T, 0, "end", 2.0), None, ["record '0'", "field end"]),
    "tvg no duration": (
        "tvgbench",
        edit(T, 0, "duration", None),
        None,
        ["record '0'", "field duration"],
    ),
    "ocr no index": (
        "mme-videoocr",
        edit(O, 0, "video_index", None),
        None,
        ["record '0'", "field video_index"],
    ),
    "ocr method": (
        "mme-videoocr",
        edit(O, 0, "eval_method", "judge"),
        None,
        ["record '0'", "field eval_method"],
    ),
    "ocr no options": (
        "mme-videoocr",
        edit(O, 0, "option", []),
        None,
        ["record '0'", "field option"],
    ),
    "ocr options": (
        "mme-videoocr",
        edit(O, 0, "option", [1, 2]),
        None,
        ["record '0'", "field option"],
    ),
    "ocr answer": (
        "mme-videoocr",
        edit(O, 0, "answer", None),
        None,
        ["record '0'", "field answer"],
    ),
    "ocr task type": (
        "mme-videoocr",
        edit(O, 0, "task_type", DELETE),
        None,
        ["record '0'", "field task_type"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_names_file_and_field(case, tmp_path):
    benchmark, data, other, words = BAD[case]
    name = "bad.txt" if "txt" in case else "bad.json"
    if isinstance(data, str):
        put(tmp_path, name, data)
    else:
        (tmp_path / name).write_text(json.dumps(data))
    role = {"vidstg": "boxes", "mevis": "masks"}.get(benchmark)
    files = {role: put(tmp_path, f"{role}.json", other)} if other is not None else {}
    with pytest.raises(InputError) as error:
        read_all(benchmark, tmp_path / name, **files)
    message = str(error.value)
    assert "\n" not in message and len(message) < 600
    assert name in message or any(str(f) in message for f in files.values())
    for word in words:
        assert word in message, message


def test_there_are_enough_cases():
    assert len(BAD) >= 60


@pytest.mark.parametrize("name", VALID)
def test_the_valid_records_are_valid(name, tmp_path):
    bench = read_all(name, put(tmp_path, "good.json", VALID[name]))
    assert (
        bench.warnings == []
        and bench[0].benchmark == name
        and bench.keys()[0] in bench
        and bench[bench.keys()[0]].key == bench[0].key
    )
    packed = tmp_path / "good.json.gz"
    packed.write_bytes(gzip.compress((tmp_path / "good.json").read_bytes()))
    assert load(name, packed).keys() == bench.keys()


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "{}",
        "null",
        "3",
        '"x"',
        "[null]",
        "[[]]",
        '{"a": null}',
        '{"a": []}',
        '[{"a": 1}]',
        '{"videos": []}',
        '{"a": {"b": 1}}',
    ],
)
def test_nothing_but_input_errors_from_any_json(name, text, tmp_path):
    with pytest.raises(InputError, match="any.json"):
        read_all(name, put(tmp_path, "any.json", text))


JUNK = [
    None,
    True,
    -1,
    0,
    2.5,
    10**30,
    1e300,
    "",
    "x",
    [],
    [[]],
    [1, 2],
    {},
    {"a": 1},
    [None],
    "1-2",
    [{"tid": 0}],
]


def ways(value, way=()):
    "All paths into a JSON value; of a long list the first two items."
    if way:
        yield way
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:2])
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from ways(inner, (*way, key))


SHORT = [
    edit(VIDSTG, "frame_count", 20)
    | {
        "used_segment": {"begin_fid": 2, "end_fid": 19},
        "temporal_gt": {"begin_fid": 5, "end_fid": 20},
    }
]
SHORT_BOXES = {"1001": VIDOR | {"frame_count": 20, "trajectories": VIDOR["trajectories"][:20]}}
FILES = {name: (name, data, None, None) for name, data in VALID.items()} | {
    "vidstg": ("vidstg", SHORT, "boxes", SHORT_BOXES),
    "mevis": ("mevis", MEVIS, "masks", MASKS),
}


@pytest.mark.parametrize("name", [*FILES, "vidor", "masks"])
def test_any_field_may_hold_anything(name, tmp_path, capfd):
    benchmark, data, role, other = FILES[{"vidor": "vidstg", "masks": "mevis"}.get(name, name)]
    paths, refused = (
        {"main": put(tmp_path, "main.json", data)}
        | ({role: put(tmp_path, "other.json", other)} if role else {}),
        0,
    )
    changed, original = ("main", data) if name in FILES else (role, other)
    for way in ways(original):
        for junk in JUNK:
            paths[changed] = put(tmp_path, "changed.json", json.dumps(edit(original, *way, junk)))
            try:
                read_all(benchmark, paths["main"], **({role: paths[role]} if role else {})).warnings
            except InputError as e:
                refused += 1
                assert "\n" not in str(e) and len(str(e)) < 600
    assert refused > 10 and capfd.readouterr() == ("", "")


def test_wrong_arguments(tmp_path):
    path = put(tmp_path, "a.json", H)
    for call, word in (
        (lambda: load("hcstvg3", path), "unknown name"),
        (lambda: load("hcstvg", path, boxes=path), "only vidstg"),
        (lambda: load("hcstvg", path, masks=path), "only mevis"),
        (lambda: load("hcstvg", tmp_path / "none.json"), "no such file"),
        (lambda: load("hcstvg", path)["b.mp4"], "there is no sample"),
        (
            lambda: load("vidstg", put(tmp_path, "v.json", V), boxes=tmp_path / "none"),
            "no such VidOR",
        ),
        (
            lambda: load("mevis", put(tmp_path, "m.json", M), masks=tmp_path / "none"),
            "no such mask",
        ),
        (lambda: describe("none"), "unknown name"),
        (lambda: locate("hcstvg", tmp_path, "v3"), "no split"),
    ):
        with pytest.raises(InputError, match=word):
            call()


# ---- traps -----------------------------------------------------------------------------------------------------------------
def one(name, data, tmp_path, **files):
    return read_all(name, put(tmp_path, "one.json", data), **files)


def test_hcstvg_counts_from_one_and_states_no_rate(tmp_path):
    s = one("hcstvg", {k: V1 | {"img_num": 480, "st_time": 11.1}}, tmp_path)[0]
    assert s.interval == Interval.frames(267, 270) and s.fps == 24.0 and s.frame_count == 480
    assert s.tube.frames.tolist() == [267, 268, 269] and s.tube.boxes[0].tolist() == [
        100,
        50,
        140,
        170,
    ]


def test_hcstvg_v2_size_is_height_first(tmp_path):
    s = one("hcstvg", {k: V2}, tmp_path)[0]
    assert (s.width, s.height, s.query) == (640, 360, "The man in green stands up.")
    both = one(
        "hcstvg",
        {k: V2 | {"width": 640, "height": 360, "ed_frame": 270, "caption": "old"}},
        tmp_path,
    )
    assert (both[0].width, both[0].query, both.warnings) == (640, "The man in green stands up.", [])


def test_hcstvg_last_frame_rounded_up_is_kept(tmp_path):
    bench = one("hcstvg", {k: V1 | {"st_frame": 599, "st_time": 19.95}}, tmp_path)
    assert bench[0].interval == Interval.frames(598, 601) and [
        w["kind"] for w in bench.warnings
    ] == ["tube-beyond"]


def test_hcstvg_odd_but_kept(tmp_path):
    bench = one(
        "hcstvg",
        {
            "a.mp4": V1 | {"bbox": [[-3, 0, 10, 10]]},
            "b.mp4": V1 | {"bbox": [[5, 5, 0, 10]]},
            "c.mp4": V1 | {"st_frame": 0, "st_time": 0},
            "d.mkv": V1 | {"caption": " "},
        },
        tmp_path,
    )
    assert {w["key"]: w["kind"] for w in bench.warnings} == {
        "a.mp4": "box-outside",
        "b.mp4": "box-empty",
        "c.mp4": "st_frame",
        "d.mkv": "query-empty",
    }
    assert bench["a.mp4"].tube.boxes.tolist() == [[-3, 0, 7, 10]] and bench["c.mp4"].tube.start == 0


def test_hcstvg_query_file_has_no_truth(tmp_path):
    s = one("hcstvg", {"3_x.mkv": "The man waves."}, tmp_path)["3_x.mkv"]
    assert (s.query, s.video, s.tube, s.interval, s.fps) == (
        "The man waves.",
        "3_x.mkv",
        None,
        None,
        None,
    )


def test_hcstvg_layouts_agree_on_the_fixture():
    first, second = (
        load("hcstvg", DATA / "hcstvg" / "v1_test.json"),
        load("hcstvg", DATA / "hcstvg" / "val_v2.json"),
    )
    raw = json.loads((DATA / "hcstvg" / "v1_test.json").read_text())
    assert first.keys() == second.keys() == list(raw) and not first.warnings and not second.warnings
    for a, b in zip(first, second):
        assert (a.width, a.height, a.fps, a.interval) == (
            b.width,
            b.height,
            b.fps,
            b.interval,
        ) and (a.tube.boxes == b.tube.boxes).all()
        x, y, w, h = raw[a.key]["bbox"][-1]
        assert (
            a.tube.at([a.interval.end - 1])[0].tolist() == [[x, y, x + w, y + h]]
            and a.fps == raw[a.key]["img_num"] / 20
        )


def test_labels_of_records_are_read(tmp_path):
    s = one("hcstvg", {k: V1 | {"answer_id": 3, "query_type": "action"}}, tmp_path)[0]
    assert (s.answer_id, s.query_type) == (3, "action")
    s = one(
        "vidstg",
        edit(
            edit(V, 0, "captions", 0, "answer_id", 2), 0, "captions", 0, "query_type", "relational"
        ),
        tmp_path,
    )
    assert (s[0].answer_id, s[0].query_type, s[1].answer_id) == (2, "relational", None)


def test_vidstg_ends_mean_two_things(tmp_path):
    bench = one("vidstg", V, tmp_path)
    assert bench.keys() == ["1001#0#d0", "1001#0#i0"] and [s.group for s in bench] == [
        "declarative",
        "interrogative",
    ]
    s = bench[0]
    assert s.interval == Interval.frames(510, 596) and s.window == (496, 596) and s.tube is None
    assert s.extra["temporal_gt"] == (510, 596) and s.extra["used_segment"] == (496, 595)


def test_vidstg_boxes_from_folder_and_file(tmp_path):
    (tmp_path / "nested" / "0001").mkdir(parents=True)
    (tmp_path / "flat").mkdir()
    for path in ("nested/0001/1001.json", "flat/1001.json"):
        put(tmp_path, path, VIDOR)
    samples = [
        one("vidstg", V, tmp_path, boxes=b)[1]
        for b in (
            tmp_path / "nested",
            tmp_path / "flat",
            put(tmp_path, "vidor.json", {"1001": VIDOR}),
        )
    ]
    for s in samples:
        assert (
            s.tube.frames.tolist() == list(range(510, 596))
            and s.video == "0001/1001.mp4"
            and s.extra["category"] == "dog"
        )
        assert (
            s.tube.boxes[3].tolist() == [513 % 90 + 2, 5, 513 % 90 + 60, 80]
            and s.extra["end_box"].tolist() == s.tube.boxes[-1].tolist()
        )
    put(tmp_path, "nested/1001.json", VIDOR)
    with pytest.raises(InputError, match="second VidOR file"):
        one("vidstg", V, tmp_path, boxes=tmp_path / "nested")


def test_vidstg_box_after_the_end(tmp_path):
    data = edit(V, 0, "temporal_gt", "end_fid", 550)
    s = one("vidstg", data, tmp_path, boxes=put(tmp_path, "b.json", {"1001": VIDOR}))[0]
    assert s.tube.frames[-1] == 549 and s.extra["end_box"].tolist() == [
        550 % 90,
        5,
        550 % 90 + 60,
        80,
    ]
    s = one(
        "vidstg",
        data,
        tmp_path,
        boxes=put(tmp_path, "b.json", {"1001": edit(VIDOR, "trajectories", 550, [])}),
    )[0]
    assert s.extra["end_box"] is None


def test_vidstg_odd_but_kept(tmp_path):
    bench = one(
        "vidstg",
        [
            edit(VIDSTG, "temporal_gt", {"begin_fid": 550, "end_fid": 540}),
            edit(VIDSTG, "temporal_gt", "begin_fid", 400),
        ],
        tmp_path,
        boxes=put(tmp_path, "b.json", {"1001": VIDOR | {"width": 320}}),
    )
    assert Counter(w["kind"] for w in bench.warnings) == {
        "interval-empty": 2,
        "interval-outside": 2,
        "vidor": 4,
    }
    assert len(bench[0].tube.frames) == 0


def test_vidor_objects_need_not_be_contiguous(tmp_path):
    record = copy.deepcopy(VIDOR)
    for t in range(0, 500):
        record["trajectories"][t] = []
    for t in range(500, 596):
        record["trajectories"][t][1]["tid"] = 41
    data = edit(edit(V, 0, "subject/objects", 1, "tid", 41), 0, "questions", 0, "target_id", 41)
    assert (
        one("vidstg", data, tmp_path, boxes=put(tmp_path, "b.json", {"1001": record}))[
            1
        ].tube.frames[0]
        == 510
    )


def test_vidor_memory_is_bounded(tmp_path):
    from stvg_nb.foundations.vidstg import VidorBoxes

    boxes = VidorBoxes(put(tmp_path, "b.json", {str(i): VIDOR for i in range(5)}), keep=2)
    for i in (0, 1, 2, 0, 4):
        boxes.video(str(i))
    assert list(boxes._cache) == ["0", "4"]


def test_st_align_ends_are_inclusive(tmp_path):
    s = one("st-align", S, tmp_path)[0]
    assert (s.task, s.interval, s.window, s.extra["span"], s.extra["split"]) == (
        "stvg",
        Interval.frames(20, 23),
        (10, 201),
        (20, 22),
        (10, 200),
    )
    assert s.extra["boxes"] == {
        20: [1, 2, 31, 42],
        22: [3, 2, 33, 42],
    } and s.tube.frames.tolist() == [20, 22]


def test_st_align_spatial_items_have_no_interval(tmp_path):
    for item in (
        edit(ST, "meta", "time_token", DELETE),
        edit(ST, "meta", "time_token", {}),
        edit(ST, "conversations", 0, "value", "From <s> to <e>, where is she?"),
    ):
        s = one("st-align", [item], tmp_path)[0]
        assert (s.task, s.interval, s.extra["span"], s.tube.interval) == (
            "svg",
            None,
            None,
            Interval.frames(10, 201),
        )
    assert s.query == "{0.053,0.063}, where is she?"
    assert load("st-align", put(tmp_path, "svg.json", S), split="svg")[0].task == "svg"


def test_st_align_takes_two_thousand_items(tmp_path):
    bench = one("st-align", [ST] * 2001, tmp_path)
    assert (
        len(bench) == 2000
        and bench.warnings[0]["kind"] == "beyond-2000"
        and bench.warnings[0]["key"] is None
    )


def test_st_align_fixture():
    bench = load("st-align", DATA / "st_align" / "annotations.json")
    raw = json.loads((DATA / "st_align" / "annotations.json").read_text())
    assert len(bench) == 8 and not [w for w in bench.warnings if w["kind"] != "box-outside"]
    for s, item in zip(bench, raw):
        first, last = item["meta"]["time_token"].values()
        assert s.interval == Interval.frames(first, last + 1) and len(s.tube.frames) == len(
            item["meta"]["spatial_token"]["<bboxes>"]
        )


def test_mevis_union_by_position(tmp_path):
    data = edit(M, "videos", "v", "expressions", "0", "anno_id", [7, 8])
    other = np.zeros((8, 9), bool)
    other[2:5, 3] = True
    masks = put(
        tmp_path,
        "masks.json",
        MASKS | {"8": [{"size": [8, 9], "counts": encode_mask(other)}, None, None]},
    )
    bench = one("mevis", data, tmp_path, masks=masks)
    got, s = bench.masks(bench[0]), bench[0]
    assert (s.width, s.height, s.frame_count, s.video) == (9, 8, 3, "v") and [
        len(x) for x in bench.rles(s)
    ] == [2, 0, 1]
    assert (
        (got[0] == (np.eye(8, 9).astype(bool) | other)).all()
        and not got[1].any()
        and got[2].sum() == 8
    )


def test_mevis_order_of_frames_is_kept(tmp_path):
    bench = one("mevis", edit(M, "videos", "v", "frames", ["2", "0", "1"]), tmp_path)
    assert bench[0].extra["frames"] == ["2", "0", "1"] and [w["kind"] for w in bench.warnings] == [
        "frames-unsorted"
    ]


def test_mevis_invisible_object_takes_the_size_of_the_others(tmp_path):
    data = edit(M, "videos", "v", "expressions", "1", {"exp": "the dog", "anno_id": [8]})
    bench = one(
        "mevis", data, tmp_path, masks=put(tmp_path, "masks.json", MASKS | {"8": [None] * 3})
    )
    assert [m.shape for m in bench.masks(bench["v#1"])] == [(8, 9)] * 3 and not np.any(
        bench.masks(bench["v#1"])
    )


def test_mevis_fixture_masks():
    files = DATA / "mevis"
    bench, codes = (
        load("mevis", files / "meta_expressions.json", masks=files / "mask_dict.json"),
        json.loads((files / "mask_dict.json").read_text()),
    )
    assert len(bench) == 6 and not bench.warnings
    for s in bench:
        for t, mask in enumerate(bench.masks(s)):
            parts = [codes[str(i)][t] for i in s.extra["anno_id"]]
            assert (
                mask
                == (
                    sum(
                        (decode_mask(p["counts"], 48, 64).astype(int) for p in parts if p),
                        np.zeros((48, 64), int),
                    )
                    > 0
                )
            ).all()


def test_charades_text_and_json_agree(tmp_path):
    text = put(
        tmp_path,
        "charades_sta_test.txt",
        "A 1.5 3##she sits\nB 2 5.0##he runs## away\nA 9 4##she leaves\n",
    )
    plain = load("charades-sta", text)
    assert (
        plain.keys() == ["A#0", "B#0", "A#1"]
        and plain["B#0"].query == "he runs## away"
        and plain[0].extra["duration"] is None
    )
    put(tmp_path, "Charades_v1_test.csv", "id,subject,length\nA,x,5.5\nB,x,4.25\n")
    bench = load("charades-sta", text)
    again = one(
        "charades-sta",
        {
            "A": {
                "video_duration": 5.5,
                "timestamps": [[1.5, 3], [9, 4]],
                "sentences": ["she sits", "she leaves"],
            },
            "B": {"duration": 4.25, "timestamps": [[2, 5.0]], "sentences": ["he runs## away"]},
        },
        tmp_path,
    )
    for s in again:
        assert (bench[s.key].interval, bench[s.key].query, bench[s.key].extra["duration"]) == (
            s.interval,
            s.query,
            s.extra["duration"],
        )
    assert (
        Counter(w["kind"] for w in bench.warnings)
        == Counter(w["kind"] for w in again.warnings)
        == {"interval-beyond": 1, "interval-reversed": 1}
    )
    assert again["A#1"].interval == Interval(9, 4)
    put(tmp_path, "Charades_v1_test.csv", "id,length\nA,long\n")
    with pytest.raises(InputError, match="Charades_v1_test.csv"):
        load("charades-sta", text)


def test_tvgbench_window_and_odd_answers(tmp_path):
    bench = one(
        "tvgbench",
        [
            TVG,
            TVG | {"start": None, "end": None, "answer": "9.0-9.0"},
            TVG | {"answer": "13.399999999999999-28.1", "bins": {"dataset": "egonlq"}},
        ],
        tmp_path,
    )
    assert [s.window for s in bench] == [(5.0, 25.0), None, (5.0, 25.0)] and bench[
        0
    ].interval == Interval(3.0, 9.5)  # relative to the window
    assert [w["kind"] for w in bench.warnings] == ["interval-empty", "interval-beyond"]
    assert bench[0].video == "videos/a.avi" and bench[2].extra["dataset_name"] == "egonlq"


def test_ocr_items_of_the_judge_are_flagged(tmp_path):
    bench = one(
        "mme-videoocr",
        [
            OCR,
            OCR | {"eval_method": "gpt_assisted_scoring"},
            OCR | {"eval_method": "containment_match", "answer": 42, "option": None},
        ],
        tmp_path,
    )
    assert [s.extra["scored"] for s in bench] == [True, False, True] and [
        w["kind"] for w in bench.warnings
    ] == ["not-scored", "answer"]
    assert (
        bench[2].extra["answer"] == "42"
        and bench[0].video == "12.mp4"
        and bench[0].group == "recognition"
    )


# ---- real files ------------------------------------------------------------------------------------------------------------
@real
def test_real_vidstg():
    bench = load("vidstg", SHARED / "vidstg" / "val_annotations.json")
    assert (
        Counter(s.group for s in bench) == {"declarative": 3996, "interrogative": 4960}
        and bench.warnings == []
        and len(set(s.video for s in bench)) == 602
    )
    by_record = {s.key.split("#")[1]: s for s in bench}
    assert (
        sum(s.extra["temporal_gt"][1] == s.extra["used_segment"][1] + 1 for s in by_record.values())
        == 744
    )
    assert all(s.interval.end <= s.window[1] <= s.frame_count for s in bench)
    assert training_set({"val": bench}, {}).counts == [
        {"source": "val", "samples": 8956, "repeated": 215, "kept": 8741}
    ]


@real
def test_real_hcstvg_queries_and_placeholder():
    bench = load("hcstvg", SHARED / "hcstvg" / "query_v2.json")
    assert (
        len(bench) == len({video_key(k) for k in bench.keys()}) == 2931
        and Counter(Path(k).suffix for k in bench.keys()) == {".mp4": 1797, ".mkv": 1134}
        and bench.warnings == []
    )
    with pytest.raises(
        InputError, match="README_example_v1.json.*55_vfjywN5CN0Y.mp4.*field bbox.*'x'"
    ):
        load("hcstvg", SHARED / "hcstvg" / "README_example_v1.json")[0]


@real
def test_real_temporal_files():
    charades = load("charades-sta", SHARED / "charades_sta" / "charades_test.json")
    assert (
        len(charades) == 3720
        and len({s.video for s in charades}) == 1334
        and Counter(w["kind"] for w in charades.warnings) == {"interval-beyond": 562}
    )
    assert max(s.interval.end - s.extra["duration"] for s in charades) < 1.51
    tvg = load("tvgbench", SHARED / "tvgbench" / "tvgbench.json")
    assert (
        len(tvg) == 800
        and len({s.video for s in tvg}) == 462
        and sum(s.window is not None for s in tvg) == 252
        and len({s.group for s in tvg}) == 11
    )
    assert Counter(w["kind"] for w in tvg.warnings) == {"interval-empty": 11, "interval-beyond": 27}
    assert {s.extra["dataset_name"] for s in tvg if s.interval.is_empty} == {"egonlq"}
    assert Counter(s.extra["dataset_name"] for s in tvg) == {
        "tacos": 168,
        "anet": 168,
        "egonlq": 168,
        "hirest": 158,
        "charades": 138,
    }


@real
def test_real_expressions_without_labels():
    bench = load("mevis", SHARED / "rvos_refytvos" / "meta_expressions.json")
    assert (
        len(bench) == 2096
        and len({s.video for s in bench}) == 507
        and bench.warnings == []
        and "anno_id" not in bench[0].extra
    )
    with pytest.raises(InputError, match="masks are needed"):
        bench.masks(bench[0])


# ---- Puppets in the real lay-outs --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layout", ["hcstvg", "vidstg", "mevis"])
def test_puppets_are_read_like_the_real_thing(layout, tmp_path):
    clips = pytest.importorskip("stvg_nb.theatre.clips")
    clips.write_split(tmp_path, "test", "stage", 2, layout=layout, progress=False)
    bench = load(**locate(layout, tmp_path, "test"))
    assert len({s.video for s in bench}) == 2 and not [
        w for w in bench.warnings if w["kind"] != "box-outside"
    ]
    if layout == "mevis":
        assert max(len(s.extra["anno_id"]) for s in bench) > 1
        for s in bench:
            assert np.shape(bench.masks(s)) == (s.frame_count, s.height, s.width) and np.any(
                bench.masks(s)
            )
    else:
        for s in bench:
            info = probe(bench.video_path(s))
            assert (info.frame_count, info.width, info.height) == (
                s.frame_count,
                s.width,
                s.height,
            ) and info.fps == pytest.approx(s.fps)
            assert (
                s.tube.frames.tolist() == list(range(s.interval.start, s.interval.end))
                and s.interval.end <= info.frame_count
            )
            assert layout != "hcstvg" or info.duration == pytest.approx(20)
    files = locate(layout, tmp_path, "test")
    files.pop("split")
    found = doctor(**files, quiet=True)
    kinds_found = {p["kind"] for p in found["missing"] + found["notes"]}
    assert kinds_found <= {"box-outside", "repeated-query"}


# ---- training set ------------------------------------------------------------------------------------------------------------
def test_training_set_counts_what_it_removes(tmp_path):
    files = {
        "v1 train": {"1_a.mp4": V1, "2_b.mp4": V1, "3_c.mp4": V1},
        "v2 train": {
            "1_A.mkv": V2 | {"English": "the man in  GREEN stands up ."},
            "1_a .mp4": V2 | {"English": "He waves."},
            "4_d.mp4": V2,
            "5_e.mp4": V2,
        },
        "v1 test": {"2_b.mkv": V1},
        "v2 val": {"4_D.MP4": V2},
        "v2 test": {"3_c.mkv": "She waits."},
    }
    b = {n: load("hcstvg", put(tmp_path, f"{n}.json", d)) for n, d in files.items()}
    train = training_set(
        {n: b[n] for n in ("v1 train", "v2 train")},
        {n: b[n] for n in ("v1 test", "v2 val", "v2 test")},
    )
    assert (
        [s.key for s in train] == ["1_a.mp4", "1_a .mp4", "5_e.mp4"]
        and isinstance(train, TrainingSet)
        and [s.key for s in train[1:]] == ["1_a .mp4", "5_e.mp4"]
    )
    assert train.counts == [
        {
            "source": "v1 train",
            "samples": 3,
            "in v1 test": 1,
            "in v2 val": 0,
            "in v2 test": 1,
            "repeated": 0,
            "kept": 1,
        },
        {
            "source": "v2 train",
            "samples": 4,
            "in v1 test": 0,
            "in v2 val": 1,
            "in v2 test": 0,
            "repeated": 1,
            "kept": 2,
        },
    ]


def test_training_set_takes_every_vidstg_sentence_of_other_videos(tmp_path):
    train = load(
        "vidstg",
        put(
            tmp_path,
            "t.json",
            [
                VIDSTG,
                VIDSTG | {"vid": "7"},
                VIDSTG | {"vid": "7"},
                edit(VIDSTG, "vid", "7") | {"used_segment": {"begin_fid": 500, "end_fid": 595}},
            ],
        ),
    )
    held = load("vidstg", put(tmp_path, "h.json", [VIDSTG]))
    merged = training_set({"vidstg": train}, {"val": held})
    assert [s.key for s in merged] == ["7#1#d0", "7#1#i0", "7#3#d0", "7#3#i0"] and merged.removed[
        "vidstg"
    ] == {"in val": 2, "repeated": 2}


@pytest.mark.parametrize("name", ["55_x.mp4", "55_X.MKV", " 55_x .mp4", "a/b/55_x.mkv.mp4", "55_x"])
def test_video_key(name):
    assert video_key(name) == "55_x"


def test_normal_query():
    assert (
        normal_query("  The  man waves .")
        == normal_query("the man waves")
        != normal_query("the man waves?")
    )


# ---- registry and doctor -----------------------------------------------------------------------------------------------------
def test_every_loader_is_described(capsys):
    assert set(BENCHMARKS) == set(LOADERS)
    for name, info in BENCHMARKS.items():
        text = describe(name)
        assert info.terms in text and "https://" in text and capsys.readouterr().out.strip() == text
    assert (
        "no licence stated" in BENCHMARKS["vidstg"].terms
        and "no licence stated" in BENCHMARKS["hcstvg"].terms
    )


def test_locate_finds_the_layouts(tmp_path):
    (tmp_path / "vidor" / "validation").mkdir(parents=True)
    (tmp_path / "valid_u" / "JPEGImages").mkdir(parents=True)
    put(tmp_path, "test_annotations.json", V)
    put(tmp_path, "valid_u/meta_expressions.json", M)
    put(tmp_path, "valid_u/mask_dict.json", MASKS)
    found = locate("vidstg", tmp_path, "test")
    assert (
        found["boxes"] == tmp_path / "vidor" / "validation"
        and found["annotations"].name == "test_annotations.json"
        and found["videos"] == tmp_path / "videos"
    )
    assert (
        load(**locate("mevis", tmp_path, "valid_u")).masks
        and locate("mevis", tmp_path, "valid_u")["masks"].name == "mask_dict.json"
    )
    with pytest.raises(InputError, match="val_annotations.json"):
        locate("vidstg", tmp_path, "val")


def kinds(result):
    return Counter(p["kind"] for p in result["missing"])


def frames(n, h=36, w=64):
    return (np.full((h, w, 3), 9 * t % 255, np.uint8) for t in range(n))


TINY = dict(
    bbox=[[4, 4, 8, 8]] * 10, st_frame=21, img_num=40, caption="She waves.", width=64, height=36
)


def test_doctor_finds_nothing_in_good_data(tmp_path):
    write_video(tmp_path / "1_ok.mp4", frames(40), 2)
    result = doctor(
        benchmark="hcstvg",
        annotations=put(tmp_path, "a.json", {"1_ok.mkv": TINY}),
        videos=tmp_path,
        quiet=True,
    )
    assert (
        result["missing"] == []
        and result["schema"] == "stvg.doctor/1"
        and format_doctor(result).startswith("nothing missing")
    )


def test_doctor_lists_everything(tmp_path, capfd):
    clips = tmp_path / "clips"
    clips.mkdir()
    records = {
        "1_ok.mp4": TINY,
        "2_gone.mp4": TINY,
        "3_text.mp4": TINY,
        "4_short.mp4": TINY,
        "5_big.mp4": TINY | {"bbox": [[60, 4, 8, 8]] * 10},
        "6_fast.mp4": TINY,
        "7_empty.mp4": TINY,
        "8_bad.mp4": TINY | {"bbox": [[1, 2]]},
        "9_late.mp4": TINY | {"st_frame": 32},
        "1_OK.mkv": TINY,
    }
    for name, n, size, fps in (
        ("1_ok", 40, (36, 64), 2),
        ("4_short", 25, (36, 64), 2),
        ("5_big", 40, (72, 128), 2),
        ("6_fast", 40, (36, 64), 3),
        ("8_bad", 40, (36, 64), 2),
        ("9_late", 41, (36, 64), 2),
    ):
        write_video(clips / f"{name}.mp4", frames(n, *size), fps)
    (clips / "3_text.mp4").write_text("this is no video")
    (clips / "7_empty.mp4").write_bytes(b"")
    result = doctor(
        benchmark="hcstvg",
        annotations=put(tmp_path, "a.json", records),
        videos=clips,
        train=put(tmp_path, "t.json", {"1_ok.mp4": TINY, "new.mp4": TINY}),
        quiet=True,
    )
    assert kinds(result) == {
        "video-missing": 1,
        "video-undecodable": 2,
        "frame-count": 1,
        "tube-beyond": 2,
        "video-size": 1,
        "box-outside": 1,
        "frame-rate": 1,
        "record": 1,
        "duplicate-key": 1,
        "leak": 1,
    }
    assert all(
        set(p) == {"kind", "name", "remedy"} and p["remedy"] and "\n" not in p["remedy"]
        for p in result["missing"]
    )
    assert (
        len(format_doctor(result).splitlines()) == len(result["missing"]) + 1
        and capfd.readouterr().err == ""
    )
    assert (
        kinds(
            doctor(
                benchmark="hcstvg",
                annotations=tmp_path / "a.json",
                videos=clips,
                decode=False,
                quiet=True,
            )
        )["video-undecodable"]
        == 1
    )


def test_doctor_names_a_header_that_promises_too_much(tmp_path):
    rng = np.random.default_rng(0)
    write_video(
        tmp_path / "1_cut.mp4", (rng.integers(0, 255, (36, 64, 3), np.uint8) for _ in range(40)), 2
    )
    whole = (tmp_path / "1_cut.mp4").read_bytes()
    (tmp_path / "1_cut.mp4").write_bytes(whole[: len(whole) * 3 // 5])
    found = doctor(
        benchmark="hcstvg",
        annotations=put(tmp_path, "a.json", {"1_cut.mp4": TINY}),
        videos=tmp_path,
        quiet=True,
    )
    assert (
        {"video-header", "frame-count", "tube-beyond"}
        >= set(kinds(found))
        >= {"video-header", "frame-count"}
    )
    assert "announces 40 frames" in next(
        p["remedy"] for p in found["missing"] if p["kind"] == "video-header"
    )


def test_doctor_vidstg(tmp_path):
    small = edit(edit(edit(V, 0, "width", 64), 0, "height", 36), 0, "fps", 10)
    write_video(tmp_path / "videos" / "0001" / "1001.mp4", frames(596), 10)
    boxes = put(tmp_path, "b.json", {"1001": edit(VIDOR, "trajectories", 520, [])})
    found = doctor(
        benchmark="vidstg",
        annotations=put(tmp_path, "a.json", small),
        boxes=boxes,
        videos=tmp_path / "videos",
        quiet=True,
    )
    assert kinds(found) == {"record": 2} and "frame 520" in found["missing"][0]["name"]
    found = doctor(
        benchmark="vidstg",
        annotations=put(tmp_path, "a.json", edit(small, 0, "frame_count", 700)),
        videos=tmp_path / "videos",
        quiet=True,
    )
    assert kinds(found) == {"frame-count": 1}


def test_doctor_mevis_frames(tmp_path):
    from PIL import Image

    (tmp_path / "JPEGImages" / "v").mkdir(parents=True)
    for name, size in (("00000", (9, 8)), ("00001", (9, 8))):
        Image.new("RGB", size).save(tmp_path / "JPEGImages" / "v" / f"{name}.jpg")
    files = dict(
        annotations=put(tmp_path, "a.json", M),
        masks=put(tmp_path, "m.json", MASKS),
        videos=tmp_path,
        quiet=True,
    )
    assert kinds(doctor(benchmark="mevis", **files)) == {"frames-missing": 1}
    (tmp_path / "JPEGImages" / "v" / "00002.jpg").write_bytes(b"no picture")
    Image.new("RGB", (5, 5)).save(tmp_path / "JPEGImages" / "v" / "00001.jpg")
    assert kinds(doctor(benchmark="mevis", **files)) == {"frame-undecodable": 1, "video-size": 1}
    assert kinds(doctor(benchmark="mevis", decode=False, **files)) == {}
    put(tmp_path, "m.json", {"7": [RLE, RLE | {"counts": RLE["counts"][:-2]}, None]})
    assert kinds(doctor(benchmark="mevis", **files))["record"] == 1


def test_doctor_temporal_notes_are_not_problems(tmp_path):
    write_video(tmp_path / "videos" / "a.avi.mp4", frames(100), 5)
    found = doctor(
        benchmark="tvgbench",
        annotations=put(tmp_path, "a.json", [TVG | {"answer": "9.0-9.0"}, TVG, TVG]),
        videos=tmp_path / "videos",
        quiet=True,
    )
    assert kinds(found) == {"window-beyond": 1} and [n["kind"] for n in found["notes"]] == [
        "interval-empty",
        "repeated-query",
    ]


def test_doctor_files_and_options(tmp_path):
    for name, text, kind in (
        ("cut.json", '{"a": [', "annotations"),
        ("twice.json", '{"a": "x", "a": "y"}', "duplicate-key"),
        ("none.json", None, "annotations"),
    ):
        if text:
            put(tmp_path, name, text)
        assert kinds(doctor(benchmark="hcstvg", annotations=tmp_path / name, quiet=True)) == {
            kind: 1
        }
    for bad in (
        dict(benchmark="x", annotations="y"),
        dict(annotations="y"),
        dict(benchmark="hcstvg"),
        dict(profile="none"),
    ):
        with pytest.raises(InputError):
            doctor(**bad, quiet=True)


def test_doctor_of_a_profile(tmp_path):
    assert doctor(profile="smoke", quiet=True)["missing"] == []
    over = {"data.benchmark": "hcstvg", "data.root": str(tmp_path), "data.split": "v1-test"}
    assert kinds(doctor(profile="a100", overrides=over, quiet=True)) == {"annotations": 1}
    (tmp_path / "annotations").mkdir()
    put(tmp_path, "annotations/v1_test.json", {"1_ok.mp4": TINY})
    put(tmp_path, "annotations/train_v2.json", {"1_OK.mkv": TINY})
    assert kinds(doctor(profile="a100", overrides=over, quiet=True)) == {"videos": 1, "leak": 1}
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "1_ok.mp4", frames(40), 2)
    assert kinds(doctor(profile="a100", overrides=over, quiet=True)) == {"leak": 1}
    assert kinds(doctor(profile="a100", overrides={"data.root": None}, quiet=True)) == {"data": 1}


def test_doctor_without_a_folder_of_videos_looks_at_records_only(tmp_path):
    path = put(tmp_path, "a.json", {"1_ok.mp4": TINY})
    assert doctor(benchmark="hcstvg", annotations=path, quiet=True)["missing"] == []
    found = doctor(benchmark="hcstvg", annotations=path, videos=tmp_path, quiet=True)
    assert [p["kind"] for p in found["missing"]] == ["video-missing"]


# ---- bad records set aside ---------------------------------------------------------------------------------------------------
SHAPES = [None, 7, "text", [], {}, [1, 2], {"other": 1}]


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("shape", SHAPES, ids=map(str, SHAPES))
def test_records_of_another_shape_are_set_aside_by_name(name, shape, tmp_path):
    good = VALID[name]
    if name == "mevis":
        odd = {"videos": good["videos"] | {"odd": shape}}
    elif isinstance(good, dict):
        odd = good | {"odd.mp4": shape}
    else:
        odd = good + [shape]
    path = put(tmp_path, "odd.json", odd)
    with pytest.raises(InputError):
        read_all(name, path)
    bench = load(name, path, skip_bad=True)
    whole = load(name, put(tmp_path, "good.json", good))
    assert bench.keys() == whole.keys() and [s.query for s in bench] == [s.query for s in whole]
    assert len(bench.bad) == 1 and "odd" in bench.bad[0]["where"] and bench.bad[0]["reason"]
    found = doctor(benchmark=name, annotations=path, quiet=True, skip_bad=True)
    assert found["n_bad"] == 1 and found["missing"] == []
    assert found["bad"][0]["name"] == bench.bad[0]["where"]
    assert doctor(benchmark=name, annotations=path, quiet=True)["missing"]


@pytest.mark.parametrize("case", [c for c in BAD if BAD[c][1] not in ("", {})])
def test_what_is_refused_is_the_same_with_skip_bad_or_set_aside(case, tmp_path):
    "Alone in its file a bad record leaves nothing, and its own reason is the error."
    benchmark, data, other, words = BAD[case]
    name = "bad.txt" if "txt" in case else "bad.json"
    put(tmp_path, name, data) if isinstance(data, str) else (tmp_path / name).write_text(
        json.dumps(data)
    )
    role = {"vidstg": "boxes", "mevis": "masks"}.get(benchmark)
    files = {role: put(tmp_path, f"{role}.json", other)} if other is not None else {}
    try:
        bench = load(benchmark, tmp_path / name, **files, skip_bad=True)
    except InputError as error:
        message = str(error)
    else:
        message = " ".join(f"{r['where']}: {r['reason']}" for r in bench.bad)
        assert len(bench) and bench.bad and not set(bench.keys()) & {r["key"] for r in bench.bad}
    assert all(word in message for word in words), message


def test_keys_do_not_move_when_a_record_is_set_aside(tmp_path):
    bench = load("vidstg", put(tmp_path, "v.json", [7, VIDSTG]), skip_bad=True)
    assert bench.keys() == ["1001#1#d0", "1001#1#i0"]
    bench = load("tvgbench", put(tmp_path, "t.json", [TVG, {}, TVG]), skip_bad=True)
    assert bench.keys() == ["0", "2"] and bench["2"].key == "2" and len(bench.warnings) == 0
    text = put(tmp_path, "c.txt", "A 1 2##she sits\nA x 2##odd\nA 3 4##she leaves\n")
    assert load("charades-sta", text, skip_bad=True).keys() == ["A#0", "A#2"]


# ---- run lengths as a list ---------------------------------------------------------------------------------------------------
def listed(codes):
    "The same masks with run lengths in place of compressed text."
    return {
        i: [c and c | {"counts": rle_runs(c["counts"]).tolist()} for c in t]
        for i, t in codes.items()
    }


def test_run_lengths_as_a_list_are_read_as_truth(tmp_path):
    one = read_all("mevis", put(tmp_path, "m.json", M), masks=put(tmp_path, "a.json", MASKS))
    two = read_all("mevis", tmp_path / "m.json", masks=put(tmp_path, "b.json", listed(MASKS)))
    assert one.rles(one[0]) == two.rles(two[0])
    found = doctor(
        benchmark="mevis", annotations=tmp_path / "m.json", masks=tmp_path / "b.json", quiet=True
    )
    assert found["missing"] == []


@pytest.mark.parametrize(
    "counts", [[72, 1], [71], [-1, 73], [1.5, 70.5], ["72"], [True, 71], [[72]]]
)
def test_lists_that_are_no_run_lengths_are_refused(counts, tmp_path):
    masks = put(tmp_path, "b.json", {"7": [RLE, {"size": [8, 9], "counts": counts}, None]})
    with pytest.raises(InputError, match="annotation 7, frame 1: counts as a list are run lengths"):
        read_all("mevis", put(tmp_path, "m.json", M), masks=masks)
