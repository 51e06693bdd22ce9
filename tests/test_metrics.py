"""A second, deliberately naive implementation of every tube protocol and of J&F, compared with the fast ones on random and edge cases."""

import json, math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stvg_nb.foundations.files import InputError
from stvg_nb.foundations.geometry import Tube
from stvg_nb.foundations.masks import encode_mask
from stvg_nb.metrics import (
    PROTOCOLS,
    box_table,
    clip_frames,
    evaluate,
    format_result,
    frame_jf,
    metric_list,
    ocr_correct,
    parse_span,
    parse_tokens,
    rle_jf,
    sampled_frames,
    score_tubes,
    span_iou,
)

# ---------------------------------------------------------------------------- tubes, one frame at a time


def iou(a, b):
    area = lambda c: max(c[2] - c[0], 0) * max(c[3] - c[1], 0)
    if not area(a) or not area(b):
        return 0.0
    inter = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return inter / (area(a) + area(b) - inter)


def predicted_box(record, frame):
    "The box on a frame, by the record's own rule, or None."
    boxes = {int(k): v for k, v in record["boxes"].items()}
    if frame in boxes:
        return boxes[frame]
    before, after = [f for f in boxes if f < frame], [f for f in boxes if f > frame]
    if record["interpolation"] == "none" or not before or not after:
        return None
    f0, f1 = max(before), min(after)
    return [u + (v - u) * (frame - f0) / (f1 - f0) for u, v in zip(boxes[f0], boxes[f1])]


def overlap(truth, record, frame):
    box = predicted_box(record, frame)
    return iou(truth[frame], box) if box is not None and frame in truth else 0.0


def half_open(a, b, c, d):
    inter = max(min(b, d) - max(a, c), 0)
    return inter / (b - a + d - c - inter) if inter else 0.0


def five_fps(first, stop, rate):
    ids = [first]
    for f in range(first, stop):
        if int(ids[-1] * rate) < int(f * rate):
            ids.append(f)
    return [ids[j * len(ids) // 200] for j in range(200)] if len(ids) > 200 else ids


def hcstvg_truth(annotation, first):
    return {first + i: [x, y, x + w, y + h] for i, (x, y, w, h) in enumerate(annotation["bbox"])}


def naive_clean(annotation, record):
    begin = annotation["st_frame"] - 1
    end, truth, s, e = (
        begin + len(annotation["bbox"]),
        hcstvg_truth(annotation, begin),
        record["start_frame"],
        record["end_frame"],
    )
    shared = [f for f in range(begin, end) if s <= f < e]
    union = len(set(range(begin, end)) | set(range(s, e)))
    return dict(
        tiou=len(shared) / union, viou=sum(overlap(truth, record, f) for f in shared) / union
    )


def naive_official(annotation, record):
    first = annotation["st_frame"]
    truth, s, e = (
        hcstvg_truth(annotation, first),
        record["start_frame"] + 1,
        record["end_frame"],
    )  # 1-based, both ends inclusive
    hull = max(e, max(truth)) - min(s, first) + 1
    counted = [f for f in truth if s <= f <= e and predicted_box(record, f - 1) is not None]
    return dict(
        tiou=len(counted) / hull,
        viou=sum(iou(truth[f], predicted_box(record, f - 1)) for f in counted) / hull,
    )


def naive_tubedetr(annotation, record):
    begin = annotation["st_frame"]
    end, truth, s, e = (
        begin + len(annotation["bbox"]),
        hcstvg_truth(annotation, begin),
        record["start_frame"],
        record["end_frame"],
    )
    ids = five_fps(0, annotation["img_num"] - 1, 5 / (annotation["img_num"] / 20))
    inside, hull = (
        [f for f in ids if begin <= f < end],
        [f for f in ids if min(begin, s) <= f < max(end, e)],
    )
    both = [f for f in inside if s <= f < e]
    return dict(
        tiou=half_open(begin, end, s, e),
        viou=sum(overlap(truth, record, f) for f in both) / max(len(hull), 1),
        siou=sum(overlap(truth, record, f) for f in inside) / max(len(inside), 1),
    )


def naive_stcat(annotation, record):
    begin = annotation["st_frame"] - 1
    last, s, e = (
        min(begin + len(annotation["bbox"]) - 1, annotation["img_num"] - 1),
        record["start_frame"],
        record["end_frame"],
    )
    truth = {f: b for f, b in hcstvg_truth(annotation, begin).items() if f <= last}
    hull = max(max(last, e) - min(begin, s), 1)
    return dict(
        tiou=half_open(begin, last, s, e),
        viou=sum(overlap(truth, record, f) for f in range(max(begin, s), min(last, e))) / hull,
        siou=sum(overlap(truth, record, f) for f in truth) / len(truth),
    )


def naive_r1_code(annotation, record):
    begin = annotation["st_frame"] - 1
    end, s, e = begin + len(annotation["bbox"]), record["start_frame"], record["end_frame"]
    low, high, hull = max(begin, s), min(end, e), max(end, e) - min(begin, s)
    late = hcstvg_truth(annotation, annotation["st_frame"])
    total = sum(overlap(late, record, f) for f in range(low, high + 1)) if low < high else 0.0
    return dict(tiou=max(high - low, 0) / hull, viou=total / (hull + 1))


NAIVE = {
    "clean": naive_clean,
    "official": naive_official,
    "tubedetr": naive_tubedetr,
    "stcat": naive_stcat,
    "r1-code": naive_r1_code,
}


def random_box(rng):
    x, y, w, h = rng.uniform(0, 40), rng.uniform(0, 40), rng.uniform(5, 40), rng.uniform(5, 40)
    box = [x, y, x + w, y + h]
    if rng.random() < 0.03:
        box = [box[2], box[1], box[0], box[3]]  # reversed
    if rng.random() < 0.03:
        box = [x, y, x, y]  # no area
    return box


def random_case(rng):
    "An annotation and a prediction, with every edge that the protocols treat differently."
    frames = int(rng.choice([60, 100, 200, 497, 600]))
    n = int(rng.integers(1, min(50, frames)))
    first = int(rng.choice([0, frames - n, rng.integers(0, frames - n + 1)]))
    annotation = dict(
        st_frame=first + 1,
        img_num=frames,
        width=100,
        height=100,
        caption="x",
        bbox=[
            [b[0], b[1], max(b[2] - b[0], 0), b[3] - b[1]]
            for b in (random_box(rng) for _ in range(n))
        ],
    )
    ends = {
        "inside": lambda: (
            sorted(rng.choice(np.arange(first, first + n + 1), 2, replace=False))
            if n > 1
            else (first, first + 1)
        ),
        "same": lambda: (first, first + n),
        "touching": lambda: (first + n, first + n + int(rng.integers(1, 20))),
        "before": lambda: (max(first - 9, 0), max(first, 1)),
        "one frame": lambda: (first, first + 1),
        "late": lambda: (first + n // 2, first + n + int(rng.integers(1, 30))),
        "anywhere": lambda: sorted(rng.choice(frames + 20, 2, replace=False)),
        "all": lambda: (0, frames),
    }
    start, end = map(int, ends[rng.choice(list(ends))]())
    given_on = rng.choice(["interval", "truth", "all", "few", "none"])
    on = {
        "interval": range(start, end),
        "truth": range(first, first + n),
        "all": range(0, frames),
        "none": [],
        "few": sorted(set(rng.integers(0, frames, 12).tolist())),
    }[given_on]
    keep = rng.choice([1.0, 0.5, 0.1])
    boxes = {str(f): random_box(rng) for f in on if rng.random() < keep}
    return annotation, dict(
        start_frame=start,
        end_frame=end,
        boxes=boxes,
        interpolation=str(rng.choice(["none", "linear"])),
    )


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    rng = np.random.default_rng(11)
    annotations, records = {}, []
    for i in range(400):
        annotations[f"{i}.mp4"], record = random_case(rng)
        records.append(dict(key=f"{i}.mp4", **record))
    path = tmp_path_factory.mktemp("cases") / "a.json"
    path.write_text(json.dumps(annotations))
    return path, annotations, records


@pytest.mark.parametrize("protocol", PROTOCOLS["hcstvg"])
def test_hcstvg_protocols_equal_a_naive_second_implementation(cases, protocol):
    path, annotations, records = cases
    result = evaluate("hcstvg", protocol, path, records, per_sample=True)
    expected = {r["key"]: NAIVE[protocol](annotations[r["key"]], r) for r in records}
    for key, scores in expected.items():
        assert set(result["per_sample"][key]) == set(scores)
        for name, value in scores.items():
            assert result["per_sample"][key][name] == pytest.approx(value, abs=1e-12), (key, name)
    above = (lambda v, t: v >= t) if protocol == "r1-code" else (lambda v, t: v > t)
    for name, field, threshold, _ in metric_list("hcstvg", protocol):
        values = [
            s[field] if threshold is None else above(s[field], threshold) for s in expected.values()
        ]
        assert result["metrics"][name] == pytest.approx(sum(values) / 400, abs=1e-12)
    assert any(s["tiou"] == 0 for s in expected.values()) and any(
        s["viou"] > 0 for s in expected.values()
    )


def test_the_order_of_records_and_the_batch_do_not_matter(cases):
    path, _, records = cases
    one = evaluate("hcstvg", "stcat", path, records, per_sample=True)
    two = evaluate("hcstvg", "stcat", path, records[::-1], per_sample=True)
    assert one["metrics"] == two["metrics"] and one["per_sample"] == two["per_sample"]


# VidSTG ---------------------------------------------------------------------


def vidstg_case(rng, i):
    frames = int(rng.integers(60, 300))
    fps = float(rng.choice([29.97, 25, 10, 12]))
    first = int(rng.integers(0, 20))
    last = int(rng.integers(40, frames))
    begin = int(rng.integers(first, last - 5))
    end = int(rng.integers(begin + 1, last + 2))
    boxed = range(max(begin - 3, 0), min(end + int(rng.integers(0, 3)), frames))
    boxes = {
        f: [float(round(v)) for v in (b[0], b[1], b[0] + abs(b[2] - b[0]) + 1, b[3])]
        for f in boxed
        for b in [random_box(rng)]
    }
    record = {
        "vid": f"v{i}",
        "fps": fps,
        "frame_count": frames,
        "width": 100,
        "height": 100,
        "subject/objects": [{"tid": 4, "category": "adult"}],
        "used_segment": {"begin_fid": first, "end_fid": last},
        "temporal_gt": {"begin_fid": begin, "end_fid": end},
        "used_relation": {
            "subject_tid": 4,
            "object_tid": 4,
            "predicate": "near",
            "begin_fid": begin,
            "end_fid": end,
        },
        "captions": [{"description": "someone stands", "type": "person", "target_id": 4}],
        "questions": [{"description": "who stands?", "type": "person", "target_id": 4}],
    }
    vidor = {
        "video_id": f"v{i}",
        "frame_count": frames,
        "fps": fps,
        "width": 100,
        "height": 100,
        "trajectories": [
            [
                {
                    "tid": 4,
                    "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(int, boxes[f]))),
                    "generated": 0,
                    "tracker": "none",
                }
            ]
            if f in boxes
            else []
            for f in range(frames)
        ],
    }
    return record, vidor, boxes


def naive_vidstg(record, boxes, p, protocol):
    begin, end = record["temporal_gt"].values()
    first, last = record["used_segment"].values()
    s, e, truth = p["start_frame"], p["end_frame"], {f: boxes[f] for f in range(begin, end)}
    if protocol == "clean":
        union = len(set(range(begin, end)) | set(range(s, e)))
        return dict(
            tiou=half_open(begin, end, s, e),
            viou=sum(overlap(truth, p, f) for f in truth if s <= f < e) / union,
        )
    if protocol == "tubedetr":
        ids = five_fps(first, last, 5 / record["fps"])
        inside, hull = (
            [f for f in ids if begin <= f < end],
            [f for f in ids if min(begin, s) <= f < max(end, e)],
        )
        return dict(
            tiou=half_open(begin, end, s, e),
            viou=sum(overlap(truth, p, f) for f in inside if s <= f < e) / max(len(hull), 1),
            siou=sum(overlap(truth, p, f) for f in inside) / max(len(inside), 1),
        )
    stop = min(end, last)
    truth = {f: boxes[f] for f in range(begin, min(end, stop + 1))}
    if stop not in truth:
        truth[stop] = boxes.get(stop, truth[stop - 1])
    return dict(
        tiou=half_open(begin, stop, s, e),
        viou=sum(overlap(truth, p, f) for f in truth if s <= f < e and f < stop)
        / max(max(stop, e) - min(begin, s), 1),
        siou=sum(overlap(truth, p, f) for f in truth) / len(truth),
    )


@pytest.mark.parametrize("protocol", PROTOCOLS["vidstg"])
def test_vidstg_protocols_equal_a_naive_second_implementation(protocol, tmp_path):
    rng, sentences, vidor, tracks, predictions = np.random.default_rng(5), [], {}, [], []
    for i in range(60):
        record, vidor[f"v{i}"], boxes = vidstg_case(rng, i)
        sentences.append(record)
        tracks.append(boxes)
        for letter in "di":
            start, end = sorted(rng.choice(record["frame_count"] + 1, 2, replace=False).tolist())
            if rng.random() < 0.5:
                start, end = (
                    record["temporal_gt"]["begin_fid"],
                    record["temporal_gt"]["end_fid"] + int(rng.integers(0, 5)),
                )
            predictions.append(
                dict(
                    key=f"v{i}#{i}#{letter}0",
                    start_frame=start,
                    end_frame=end,
                    interpolation=str(rng.choice(["none", "linear"])),
                    boxes={
                        str(f): random_box(rng)
                        for f in range(record["frame_count"])
                        if rng.random() < 0.4
                    },
                )
            )
    (tmp_path / "s.json").write_text(json.dumps(sentences))
    (tmp_path / "b.json").write_text(json.dumps(vidor))
    result = evaluate(
        "vidstg",
        protocol,
        tmp_path / "s.json",
        predictions,
        boxes=tmp_path / "b.json",
        per_sample=True,
    )
    for k, p in enumerate(predictions):
        for name, value in naive_vidstg(sentences[k // 2], tracks[k // 2], p, protocol).items():
            assert result["per_sample"][p["key"]][name] == pytest.approx(value, abs=1e-12), (
                p["key"],
                name,
            )
    groups = result["groups"]
    assert {g: v["n"] for g, v in groups.items()} == {"declarative": 60, "interrogative": 60}
    for name, value in result["metrics"].items():
        assert value == pytest.approx(
            (groups["declarative"]["metrics"][name] + groups["interrogative"]["metrics"][name]) / 2,
            abs=1e-12,
        )


# ---------------------------------------------------------------------------- properties

tubes = st.builds(
    lambda start, boxes: Tube.dense(start, [[x, y, x + w, y + h] for x, y, w, h in boxes]),
    st.integers(0, 40),
    st.lists(
        st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2), min_size=1, max_size=25
    ),
)


@settings(max_examples=60, deadline=None)
@given(tubes, tubes, st.integers(0, 1000))
def test_viou_is_bounded_symmetric_and_does_not_depend_on_where_time_starts(g, p, shift):
    s, back = score_tubes([g], [p]), score_tubes([p], [g])
    assert 0 <= s["viou"][0] <= s["tiou"][0] <= 1
    assert (
        s["viou"][0] == pytest.approx(back["viou"][0], abs=1e-12)
        and s["tiou"][0] == back["tiou"][0]
    )
    later = [Tube(t.start + shift, t.end + shift, t.frames + shift, t.boxes) for t in (g, p)]
    assert score_tubes([later[0]], [later[1]])["viou"][0] == s["viou"][0]
    assert score_tubes([g], [g])["viou"][0] == 1
    assert s["tiou"][0] == pytest.approx(g.iou(p)[0], abs=1e-12) and s["viou"][0] == pytest.approx(
        g.iou(p)[1], abs=1e-12
    )


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_span_iou_is_a_fraction_and_symmetric_on_proper_spans(a, b, c, d):
    value, _ = span_iou((a, b), (c, d))
    assert 0 <= value <= 1
    if a < b and c < d:
        assert value == span_iou((c, d), (a, b))[0]
    if b <= a:
        assert value == 0


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 500),
    st.integers(1, 900),
    st.sampled_from([5.0, 10.0, 12.0, 23.98, 25.0, 29.97, 30.0, 60.0]),
)
def test_sampled_frames_equal_the_loop(first, n, fps):
    assert sampled_frames(first, first + n, fps).tolist() == five_fps(first, first + n, 5 / fps)


def test_long_texts_take_no_time():
    import time

    start = time.process_time()
    for text in (
        "9" * 100_000,
        "1 " * 50_000,
        "<answer>" * 20_000,
        "5 to " * 20_000,
        "[1," * 30_000,
        "1:" * 50_000,
        "5" + " " * 100_000,
    ):
        for mode in ("clean", "time-r1", "time-zero"):
            parse_span(text, mode)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "text, span",
    [
        ("7 and 9", (7, 9)),
        ("7 til 9", None),
        ("7 TO 9", None),
        ("<ANSWER>1 to 2</Answer> 3 to 4", (1, 2)),
        ("5 to 7: the man", None),
        ("5s–7secs", (5, 7)),
        ("(3.5 s , 9 sec)", (3.5, 9)),
        ("5 to 12.5.", (5, 12.5)),
        ("1:00:05 to 1:00:06.5", (3605, 3606.5)),
        ("at 3:7 to 9", None),
        ("x5 to 7", None),
        (".5 to 7", None),
        ("5 to 7 then 8 till", (5, 7)),
        ("", None),
        ("<answer>none</answer> 1 to 2", None),
        ("1 to 2 </think>", None),
        ("[1, 2, 3, 4]", None),
    ],
)
def test_more_clean_spans(text, span):
    assert parse_span(text) == span


# ---------------------------------------------------------------------------- temporal protocols


@pytest.fixture()
def charades(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(
        json.dumps(
            {
                "V": {
                    "duration": 30.0,
                    "timestamps": [[10, 20], [10, 20], [10, 20], [5, 5], [10, 20]],
                    "sentences": list("abcde"),
                }
            }
        )
    )
    return path, [
        dict(key="V#0", text="20 to 10"),
        dict(key="V#1", text="nothing"),
        dict(key="V#2", text="10 to 13"),
        dict(key="V#3", text="5 to 5"),
    ]


@pytest.mark.parametrize(
    "protocol, scored, mean, recall",
    [
        ("clean", 5, 0.3 / 5, 0.2),
        ("time-r1", 5, 0.3 / 5, 0),
        ("time-zero", 4, 0.3 / 4, 0.25),
        ("lmms-eval", 5, 1.3 / 5, 0.4),
    ],
)
def test_what_the_temporal_protocols_disagree_about(charades, protocol, scored, mean, recall):
    path, records = charades
    result = evaluate("charades-sta", protocol, path, records, per_sample=True)
    assert (result["n_samples"], result["n_scored"], result["n_missing"], result["n_unparsed"]) == (
        5,
        scored,
        1,
        1,
    )
    assert result["metrics"]["m_tiou"] == pytest.approx(mean) and result["metrics"][
        "r1@0.3"
    ] == pytest.approx(recall)
    assert result["per_sample"]["V#1"]["span"] is None and result["per_sample"]["V#4"] == {
        "missing": True
    }
    assert any("0/0" in w["message"] for w in result["warnings"] if w["key"] == "V#3")
    assert (
        evaluate("charades-sta", protocol, path, records, missing="drop")["n_scored"] == scored - 1
    )


def test_seconds_win_over_frames_and_over_text(charades):
    path, _ = charades
    both = dict(
        key="V#0", start=10, end=20, start_frame=0, end_frame=1, video={"fps": 10}, text="1 to 2"
    )
    assert evaluate("charades-sta", None, path, [both], per_sample=True)["per_sample"]["V#0"] == {
        "tiou": 1.0,
        "span": [10.0, 20.0],
    }
    frames = dict(key="V#0", start_frame=100, end_frame=200, video={"fps": 10})
    assert (
        evaluate("charades-sta", None, path, [frames], per_sample=True)["per_sample"]["V#0"]["tiou"]
        == 1
    )
    with pytest.raises(InputError, match="video.fps"):
        evaluate("charades-sta", None, path, [dict(key="V#0", start_frame=100, end_frame=200)])


def test_no_scored_sample_gives_null_not_nan(charades):
    result = evaluate("charades-sta", "clean", charades[0], [], missing="drop")
    assert (
        set(result["metrics"].values()) == {None}
        and json.dumps(result, allow_nan=False)
        and " - " in format_result(result)
    )


# ---------------------------------------------------------------------------- ST-Align and MME-VideoOCR


def test_svg_has_no_temporal_term(tmp_path):
    item = {
        "video_path": "v.mp4",
        "conversations": [
            {"from": "human", "value": "where is the man?"},
            {"from": "gpt", "value": "<bboxes>"},
        ],
        "meta": {
            "width": 99,
            "height": 99,
            "split": [0, 99],
            "spatial_token": {"<bboxes>": {"5": [0, 0, 10, 10], "6": [0, 0, 10, 10]}},
            "time_token": {},
        },
    }
    (tmp_path / "svg.json").write_text(json.dumps([item]))
    result = evaluate(
        "st-align",
        None,
        tmp_path / "svg.json",
        [dict(key="0", text="<TEMP-5>: [<WIDTH-0><HEIGHT-0><WIDTH-10><HEIGHT-10>]")],
        per_sample=True,
    )
    assert (
        result["per_sample"]["0"] == {"siou": 1, "viou": 0.5}
        and "m_tiou" not in result["metrics"]
        and result["metrics"]["m_viou"] == 0.5
    )


@given(st.text(max_size=200), st.integers(0, 50), st.integers(1, 300))
def test_no_token_text_raises(text, s, n):
    parse_tokens(text, (s, s + n), 640, 360)


def test_the_last_box_of_a_frame_wins_and_sampling_rounds_half_to_even():
    assert parse_tokens(
        "<TEMP-1>:[<WIDTH-1><HEIGHT-1><WIDTH-2><HEIGHT-2>] <TEMP-1>: [<WIDTH-3><HEIGHT-3><WIDTH-4><HEIGHT-4>]",
        (0, 99),
        99,
        99,
    )[1] == {1: [3, 3, 4, 4]}
    assert clip_frames((0, 33))[:4] == [0, 0, 1, 1] and len(clip_frames((7, 7 + 50))) == 100


def test_ocr_counts_its_own_denominators(tmp_path):
    item = lambda method, answer, kind, **more: dict(
        video_index="v",
        question="q",
        eval_method=method,
        answer=answer,
        task_type=kind,
        task=kind + "_1",
        option=["a", "b"],
        **more,
    )
    items = [
        item("containment_match", "Stop", "signs"),
        item("multiple_choice", "B", "signs"),
        item("gpt_assisted_scoring", "x", "translation"),
        item("containment_match", "go", "titles"),
    ]
    (tmp_path / "d.json").write_text(json.dumps(items))
    result = evaluate(
        "mme-videoocr",
        None,
        tmp_path / "d.json",
        [dict(key="0", text="it says STOP"), dict(key="1", text="A"), dict(key="3", text=None)],
    )
    assert (
        result["n_samples"],
        result["n_scored"],
        result["n_excluded"],
        result["n_missing"],
        result["n_unparsed"],
    ) == (4, 3, 1, 0, 1)
    assert result["metrics"]["accuracy"] == pytest.approx(1 / 3)
    assert {k: (v["n"], v["metrics"]["accuracy"]) for k, v in result["groups"].items()} == {
        "signs": (2, 0.5),
        "translation": (0, None),
        "titles": (1, 0),
    }
    assert not ocr_correct("STOP", "stop", "containment_match", "scrambled_recognition")


# ---------------------------------------------------------------------------- J&F


def dense_jf(pred, gt):
    "Pixel by pixel, from the definition."
    h, w = pred.shape

    def edge(m):
        out = np.zeros((h, w), bool)
        for y in range(h):
            for x in range(w):
                near = (
                    [(y, x + 1)] * (x + 1 < w)
                    + [(y + 1, x)] * (y + 1 < h)
                    + [(y + 1, x + 1)] * (y + 1 < h and x + 1 < w)
                )
                out[y, x] = any(m[q] != m[y, x] for q in near)
        return np.argwhere(out)

    r, p, g = math.ceil(0.008 * math.sqrt(h * h + w * w)), edge(pred), edge(gt)
    within = lambda a, b: np.mean([((b - q) ** 2).sum(1).min() <= r * r for q in a])
    union = (pred | gt).sum()
    J = (pred & gt).sum() / union if union else 1.0
    if not len(p) or not len(g):
        return J, float(len(p) == len(g))
    precision, recall = within(p, g), within(g, p)
    return J, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def masks(rng, h, w):
    kind = rng.integers(6)
    if kind < 2:
        return np.full((h, w), bool(kind))
    if kind < 4:
        return rng.random((h, w)) < (0.5 if kind == 2 else 0.02)
    y, x = np.sort(rng.integers(0, h + 1, 2)), np.sort(rng.integers(0, w + 1, 2))
    mask = np.zeros((h, w), bool)
    mask[y[0] : y[1], x[0] : x[1]] = True
    return mask


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 8), (6, 1), (2, 2), (5, 9), (24, 31), (60, 3), (3, 200), (40, 130)]
)
def test_jf_equals_the_definition_pixel_by_pixel(size):
    rng = np.random.default_rng(sum(size))
    for _ in range(12):
        p, g = masks(rng, *size), masks(rng, *size)
        assert frame_jf(p, g) == pytest.approx(dense_jf(p, g), abs=1e-15)


@pytest.mark.parametrize("size", [(480, 854), (1080, 1920), (1500, 40), (30, 2400), (4320, 7680)])
def test_small_objects_in_large_frames_use_the_radius_of_the_frame(size):
    "The crop is smaller than the radius, the distance close to it."
    h, w = size
    r = math.ceil(0.008 * math.sqrt(h * h + w * w))
    a = np.zeros(size, bool)
    a[10:14, 15:20] = True
    for dy, dx in (
        (0, r),
        (r, 0),
        (0, r + 1),
        (int(r * 0.7), int(r * 0.7)),
        (int(r * 0.8), int(r * 0.8)),
        (3, r - 1),
    ):
        if 14 + dy > h or 20 + dx > w:
            continue
        b = np.roll(a, (dy, dx), (0, 1))
        crop = np.s_[: 40 + 2 * r, : 40 + 2 * r]
        assert frame_jf(a, b)[1] == pytest.approx(dilated_f(a[crop], b[crop], r), abs=1e-15), (
            dy,
            dx,
        )


def dilated_f(p, g, r):
    disk = (np.add.outer(np.arange(-r, r + 1) ** 2, np.arange(-r, r + 1) ** 2) <= r * r).astype(
        np.uint8
    )

    def edge(m):
        out = np.zeros(m.shape, np.uint8)
        out[:, :-1] |= m[:, :-1] ^ m[:, 1:]
        out[:-1] |= m[:-1] ^ m[1:]
        out[:-1, :-1] |= m[:-1, :-1] ^ m[1:, 1:]
        return out

    p, g = edge(p), edge(g)
    precision, recall = ((a & cv2.dilate(b, disk)).sum() / a.sum() for a, b in ((p, g), (g, p)))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_jf_is_symmetric_and_one_on_itself(h, w, seed):
    rng = np.random.default_rng(seed)
    p, g = masks(rng, h, w), masks(rng, h, w)
    assert frame_jf(p, p) == (1, 1)
    assert (
        frame_jf(p, g) == frame_jf(g, p) and 0 <= min(frame_jf(p, g)) and max(frame_jf(p, g)) <= 1
    )


def test_a_view_that_is_not_contiguous_and_numbers_instead_of_booleans():
    rng = np.random.default_rng(0)
    p, g = rng.random((2, 30, 44)) < 0.4
    assert frame_jf(p.T, g.T) == frame_jf(np.ascontiguousarray(p.T), np.ascontiguousarray(g.T))
    assert frame_jf(p.astype(np.uint8) * 255, g.astype(int)) == frame_jf(p, g)
    with pytest.raises(InputError, match="sizes differ"):
        frame_jf(p, g[:-1])
    assert rle_jf([[encode_mask(p)]], [[encode_mask(g)]], 30, 44) == frame_jf(p, g)


# ---------------------------------------------------------------------------- boxes and the printed form


@pytest.mark.parametrize(
    "boxes",
    [
        {"1": [1, 2, 3]},
        {"1": [1, 2, 3], "2": [1, 2, 3, 4, 5]},
        {"1": [0, 0, False, 4]},
        {"1": [0, 0, "3", 4]},
        {"1": None},
        {"1": [1, 2, 3, 10**400]},
        {"": [1, 2, 3, 4]},
        {"": [1, 2, 3, 4], "5 6": [1, 2, 3, 4]},
        {"+5": [1, 2, 3, 4]},
        {" 5": [1, 2, 3, 4]},
        {"5_0": [1, 2, 3, 4]},
        {"٣": [1, 2, 3, 4]},
        {"99999999999999999999": [1, 2, 3, 4]},
        {"1": [1, 2, [3], 4]},
    ],
)
def test_box_tables_refuse_everything_else(boxes):
    with pytest.raises(InputError, match="p.json, record 'a', field boxes"):
        box_table(boxes, "p.json, record 'a', field boxes")


def test_box_tables_keep_numbers_exactly():
    frames, boxes = box_table({"3": [0.1, -2, 1e300, 4], "1": [0, 1, 0, 1]}, "p")
    assert frames.tolist() == [1, 3] and boxes.tolist() == [[0, 1, 0, 1], [0.1, -2, 1e300, 4]]


def test_absurd_but_finite_boxes_score_zero_without_nan(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps(
            {
                "a.mp4": dict(
                    bbox=[[0, 0, 9, 9]] * 4, st_frame=1, img_num=100, width=9, height=9, caption="x"
                )
            }
        )
    )
    result = evaluate(
        "hcstvg",
        None,
        tmp_path / "a.json",
        [
            dict(
                key="a.mp4",
                start_frame=0,
                end_frame=4,
                boxes={str(f): [-1e300, -1e300, 1e300, 1e300] for f in range(4)},
            )
        ],
    )
    assert json.dumps(result, allow_nan=False) and result["metrics"]["m_viou"] == 0


def test_every_number_is_printed_beside_its_protocol(cases):
    path, _, records = cases
    result = evaluate("hcstvg", "stcat", path, records[:390], missing="drop")
    lines = format_result(result).splitlines()
    for name in result["metrics"]:
        assert (
            sum(line.split()[0] == name and "hcstvg stcat" in line for line in lines if line) == 1
        )
    text = "\n".join(lines)
    assert (
        "missing 10" in text
        and "scored 390" in text
        and f"warnings {len(result['warnings'])}" in text
        and result["files"]["annotations"] in text
    )


# ---------------------------------------------------------------------------- MeViS submissions and the real annotation files


def copy_mevis(tmp_path, change):
    import shutil
    from pathlib import Path

    data = Path(__file__).resolve().parent / "data" / "mevis"
    shutil.copytree(data / "pred", tmp_path / "pred")
    change(tmp_path / "pred")
    return evaluate(
        "mevis",
        None,
        data / "meta_expressions.json",
        tmp_path / "pred",
        masks=data / "mask_dict.json",
        per_sample=True,
    )


def test_mevis_missing_expression_and_missing_frame(tmp_path):
    import shutil

    def change(root):
        shutil.rmtree(root / "vid0001" / "1")
        (root / "vid0000" / "0" / "00002.png").unlink()

    result = copy_mevis(tmp_path, change)
    assert (result["n_samples"], result["n_scored"], result["n_missing"]) == (6, 6, 1) and result[
        "per_sample"
    ]["vid0001#1"] == {"missing": True}
    assert result["per_sample"]["vid0000#0"] == {
        "j": 0.8,
        "f": 1,
    }  # these masks fill the frame: no boundary, like an empty mask
    assert [w["key"] for w in result["warnings"]] == ["vid0000#0"]


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda root: (root / "vid0000" / "0" / "00009.png").write_bytes(
                (root / "vid0000" / "0" / "00000.png").read_bytes()
            ),
            "vid0000#0.*00009",
        ),
        (
            lambda root: (root / "vid0000" / "0" / "00001.png").write_bytes(b"no picture"),
            "vid0000#0.*00001.*no picture",
        ),
        (
            lambda root: (root / "vid0000" / "0" / "00001.png").write_bytes(b""),
            "vid0000#0.*00001.*no picture",
        ),
        (
            lambda root: cv2.imwrite(
                str(root / "vid0000" / "0" / "00001.png"), np.zeros((64, 48), np.uint8)
            ),
            "vid0000#0.*00001.*64 x 48",
        ),
        (lambda root: (root / "vid0000").rename(root / "other"), "other#0.*no such sample"),
        (lambda root: (root / "x.png").write_bytes(b""), "x.png.*tree"),
    ],
)
def test_mevis_trees_that_do_not_fit(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as e:
        copy_mevis(tmp_path, change)
    assert "\n" not in str(e.value) and "pred" in str(e.value)


def test_value_one_is_foreground(tmp_path):
    def change(root):
        for path in root.rglob("*.png"):
            mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(path), (mask > 0).astype(np.uint8))

    assert copy_mevis(tmp_path, change)["per_sample"]["vid0000#0"] == {"j": 1, "f": 1}


def test_repeating_the_truth_scores_what_the_real_files_allow(annotations):
    "TVGBench has 11 truths without length, Charades-STA's test file none that is reversed."
    from stvg_nb.benchmarks import load

    for benchmark, path, n, best in (
        ("tvgbench", annotations / "tvgbench" / "tvgbench.json", 800, 789),
        ("charades-sta", annotations / "charades_sta" / "charades_test.json", 3720, 3720),
    ):
        oracle = [
            dict(key=s.key, start=s.interval.start, end=s.interval.end)
            for s in load(benchmark, path)
        ]
        for protocol in PROTOCOLS[benchmark]:
            result = evaluate(benchmark, protocol, path, oracle)
            assert (
                result["n_scored"] == n
                and result["metrics"]["m_tiou"] == pytest.approx(best / n)
                and result["metrics"]["r1@0.7"] == pytest.approx(best / n)
            )
            assert sum("0/0" in w["message"] for w in result["warnings"]) == n - best
