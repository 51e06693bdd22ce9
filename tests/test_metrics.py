"""A second, deliberately naive implementation of every tube protocol and of J&F, compared with the fast ones on random and edge cases."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_nb.foundations.boundaries import frame_jf, rle_jf
from stvg_nb.foundations.files import InputError
from stvg_nb.foundations.geometry import Tube
from stvg_nb.foundations.masks import encode_mask, rle_runs
from stvg_nb.foundations.predictions import box_table
from stvg_nb.foundations.protocols import PROTOCOLS, ScoringProtocol, protocol_names
from stvg_nb.foundations.scoring import evaluate, format_result
from stvg_nb.foundations.spans import READINGS, parse_span, span_iou
from stvg_nb.foundations.text_answers import clip_frames, ocr_correct, parse_tokens
from stvg_nb.foundations.tube_scores import sampled_frames, score_tubes

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


@pytest.mark.parametrize("protocol", protocol_names("hcstvg"))
def test_hcstvg_protocols_equal_a_naive_second_implementation(cases, protocol):
    path, annotations, records = cases
    result = evaluate("hcstvg", protocol, path, records, per_sample=True)
    expected = {r["key"]: NAIVE[protocol](annotations[r["key"]], r) for r in records}
    for key, scores in expected.items():
        assert set(result["per_sample"][key]) == set(scores)
        for name, value in scores.items():
            assert result["per_sample"][key][name] == pytest.approx(value, abs=1e-12), (key, name)
    above = (lambda v, t: v >= t) if protocol == "r1-code" else (lambda v, t: v > t)
    for name, field, threshold, _ in PROTOCOLS["hcstvg", protocol].metrics():
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


@pytest.mark.parametrize("protocol", protocol_names("vidstg"))
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


LONG = {  # text -> what `clean` reads; a reader that steps back would take hours with these
    "9" * 100_000: None,
    "1 " * 50_000: None,
    "1," * 50_000: None,
    "<answer>" * 20_000: None,
    "5 to " * 20_000: (5, 5),
    "[1," * 30_000: None,
    "1:" * 50_000: None,
    "5" + " " * 100_000: None,
    "1 minute " * 10_000: None,
    "5 minutes and " * 10_000: (300, 300),
    "1 hour" + " " * 100_000: None,
    "1 minutes" + " " * 50_000 + "5" + " " * 50_000: None,
    "starts at " * 10_000: None,
    "starts at 5 " * 10_000: None,
    "ends at 5 " * 10_000: None,
    "starts" + " " * 100_000: None,
    "{" * 100_000: None,
    '{"start": 5,' * 10_000: None,
    '"start":' * 30_000: None,
    "<5" * 30_000: None,
    "<5>" * 30_000: (5, 5),
}


@pytest.mark.parametrize("text", LONG, ids=lambda text: text[:12])
def test_long_texts_are_read_in_one_pass(text):
    assert parse_span(text) == LONG[text]
    for mode in READINGS:
        parse_span(text, mode)


@given(st.text(alphabet=st.sampled_from("0123456789.,:- <>[](){}\"'stardemiuno/"), max_size=120))
def test_no_text_raises_and_a_span_is_two_finite_numbers(text):
    for mode in READINGS:
        span = parse_span(text, mode)
        assert span is None or (len(span) == 2 and all(map(math.isfinite, span)))


def spoken(t, form):
    "One moment in the words of a model."
    if form == "clock":
        return f"{int(t // 60)}:{int(t % 60):02d}"
    if form == "minutes":
        return f"{int(t // 60)} minutes {t % 60:g} seconds"
    return {"plain": f"{t:g}", "unit": f"{t:g} Seconds", "comma": f"{t:.1f}".replace(".", ",")}[
        form
    ]


FRAMES = {
    "joined": "it happens from {} TO {}, I think",
    "json": 'here: {{"event": "x", "start_time": "{}", "end": "{}"}}',
    "json with time": "{{'start': {}, 'end_time': {} }}",
    "sentence": "The man starts at {} and, after a while, ends at {}.",
    "begins": "It begins at about {}\nand he finally stops at {}",
    "angle": "<{}> to <{}>",
    "answer": "<think>1 to 2</think><answer>{} - {}</answer>",
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("form", ["plain", "unit", "comma", "clock", "minutes"])
@given(st.integers(0, 5000), st.integers(0, 5000))
@settings(max_examples=25, deadline=None)
def test_every_form_of_a_moment_in_every_form_of_a_span(frame, form, a, b):
    a, b = (x if form == "clock" else x / 2 for x in (a, b))
    said = FRAMES[frame].format(spoken(a, form), spoken(b, form))
    assert parse_span(said) == pytest.approx((a, b)), said


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("number", ["1,234", "2,0,5", "12,345.6", "1,23.4"])
def test_a_comma_that_nobody_can_read_is_never_a_wrong_number(frame, number):
    for said in (FRAMES[frame].format(number, "9.5"), FRAMES[frame].format("1.5", number)):
        assert parse_span(said) is None, said


def test_the_forms_are_tried_in_order():
    json, sentence, angle, minutes = (
        '{"start": 3, "end": 4}',
        "starts at 5, ends at 6",
        "<7> to <8>",
        "1 minute to 2 minutes",
    )
    assert parse_span(f"{minutes} {angle} {sentence} {json} 1 to 2") == (1, 2)
    assert parse_span(f"{minutes} {angle} {sentence} {json}") == (3, 4)
    assert parse_span(f"{minutes} {angle} {sentence}") == (5, 6)
    assert parse_span(f"{minutes} {angle}") == (7, 8)
    assert parse_span(minutes) == (60, 120)


def test_the_case_of_three_answers(tmp_path):
    "Answers in the forms of current models; all three were unparsed once."
    case = Path(__file__).parent / "data" / "cases" / "17_answers"
    files = case / "charades_sta_test.txt", case / "c_text.jsonl"
    result = evaluate("charades-sta", "clean", *files, per_sample=True)
    assert result["n_unparsed"] == 0
    spans = {key: part["span"] for key, part in result["per_sample"].items()}
    assert spans == {"AAAAA#0": [2, 9.5], "BBBBB#0": [0, 5.2], "CCCCC#0": [8, 13]}
    for protocol in ("time-r1", "time-zero", "lmms-eval"):
        assert evaluate("charades-sta", protocol, *files)["n_unparsed"] == 3


@pytest.mark.parametrize(
    "text, span",
    [
        ("7 and 9", (7, 9)),
        ("7 til 9", None),
        ("7 TO 9", (7, 9)),
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
    from stvg_nb.foundations.benchmarks import load

    for benchmark, path, n, best in (
        ("tvgbench", annotations / "tvgbench" / "tvgbench.json", 800, 789),
        ("charades-sta", annotations / "charades_sta" / "charades_test.json", 3720, 3720),
    ):
        oracle = [
            dict(key=s.key, start=s.interval.start, end=s.interval.end)
            for s in load(benchmark, path)
        ]
        for protocol in protocol_names(benchmark):
            result = evaluate(benchmark, protocol, path, oracle)
            assert (
                result["n_scored"] == n
                and result["metrics"]["m_tiou"] == pytest.approx(best / n)
                and result["metrics"]["r1@0.7"] == pytest.approx(best / n)
            )
            assert sum("0/0" in w["message"] for w in result["warnings"]) == n - best


# ---------------------------------------------------------------------------- bad records set aside


def tube_record(**change):
    box = dict(bbox=[[5, 5, 20, 20]] * 6, st_frame=3, img_num=200, width=64, height=48)
    return box | dict(caption="he waves") | change


def right(key, **change):
    boxes = {str(f): [5, 5, 25, 25] for f in range(2, 8)}
    return dict(key=key, start_frame=2, end_frame=8, boxes=boxes) | change


def refused_or_aside(arguments, key, name, **files):
    "Refused by default; with skip_bad the record is named and the others score as before."
    with pytest.raises(InputError, match=name):
        evaluate(*arguments, **files)
    result = evaluate(*arguments, **files, skip_bad=True, per_sample=True)
    assert result["n_bad"] == len(result["bad"]) == 1 and result["bad"][0]["key"] == key
    assert name in result["bad"][0]["where"] and result["bad"][0]["reason"]
    text = format_result(result)
    assert "bad 1" in text and result["bad"][0]["where"] in text
    return result


def test_a_tube_past_its_clip_under_a_protocol_that_never_reads_it(tmp_path):
    records = {"a.mp4": tube_record(), "b.mp4": tube_record(img_num=3)}
    (tmp_path / "a.json").write_text(json.dumps(records))
    arguments = ("hcstvg", "official", tmp_path / "a.json", [right("a.mp4"), right("b.mp4")])
    result = refused_or_aside(arguments, "b.mp4", "b.mp4")
    assert (result["n_samples"], result["n_scored"], result["metrics"]["m_viou"]) == (1, 1, 1)


def test_a_vidor_frame_without_a_box_under_stcat(tmp_path):
    record, vidor, _ = vidstg_case(np.random.default_rng(1), 0)
    gap = json.loads(json.dumps(vidor))
    gap["video_id"], gap["trajectories"][record["temporal_gt"]["begin_fid"]] = "v1", []
    (tmp_path / "s.json").write_text(json.dumps([record, record | {"vid": "v1", "questions": []}]))
    (tmp_path / "b.json").write_text(json.dumps({"v0": vidor, "v1": gap}))
    answers = [dict(key=f"v0#0#{k}0", start_frame=1, end_frame=9, boxes={}) for k in "di"]
    arguments = ("vidstg", "stcat", tmp_path / "s.json", answers)
    result = refused_or_aside(arguments, "v1#1#d0", "b.json", boxes=tmp_path / "b.json")
    assert (result["n_samples"], result["n_scored"]) == (2, 2)


def mevis_files(tmp_path, **expressions):
    mask = np.zeros((8, 9), bool)
    mask[2:5, 3:6] = True
    code = {"size": [8, 9], "counts": encode_mask(mask)}
    said = {"0": {"exp": "the cat", "anno_id": [7]}} | expressions
    videos = {"v": {"frames": ["0", "1"], "expressions": said}}
    (tmp_path / "e.json").write_text(json.dumps({"videos": videos}))
    (tmp_path / "m.json").write_text(json.dumps({"7": [code, None]}))
    return code


def test_an_expression_without_a_target(tmp_path):
    code = mevis_files(tmp_path, **{"1": {"exp": "nothing fits", "anno_id": [], "obj_id": []}})
    answers = [dict(key=f"v#{i}", masks={"0": code}) for i in (0, 1)]
    arguments = ("mevis", None, tmp_path / "e.json", answers)
    result = refused_or_aside(arguments, "v#1", "v#1", masks=tmp_path / "m.json")
    assert (result["n_samples"], result["metrics"]["j_and_f"]) == (1, 1)


def test_bad_predictions_score_zero_and_are_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({f"{i}.mp4": tube_record() for i in range(4)}))
    odd = [right("1.mp4", boxes={"3": [1, 2]}), right("2.mp4", start_frame=9)]
    answers = [right("0.mp4"), *odd, right("3.mp4", seconds=3), {"no": "key"}, 7, right("x.mp4")]
    result = evaluate("hcstvg", None, tmp_path / "a.json", answers, skip_bad=True, per_sample=True)
    assert (result["n_samples"], result["n_scored"], result["n_unparsed"]) == (4, 4, 2)
    assert result["metrics"]["m_viou"] == 0.5 and result["n_bad"] == 5
    assert [r["key"] for r in result["bad"]] == ["2.mp4", None, None, "x.mp4", "1.mp4"]
    with pytest.raises(InputError, match="no such sample"):
        evaluate("hcstvg", None, tmp_path / "a.json", [right("x.mp4")], skip_bad=True)


def test_without_skip_bad_the_result_says_nothing_about_bad_records(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a.mp4": tube_record()}))
    files = ("hcstvg", None, tmp_path / "a.json", [right("a.mp4")])
    strict, lenient = evaluate(*files), evaluate(*files, skip_bad=True)
    assert not {"n_bad", "bad"} & set(strict) and (lenient.pop("n_bad"), lenient.pop("bad")) == (
        0,
        [],
    )
    assert strict == lenient


# ---------------------------------------------------------------------------- run lengths as a list


def test_the_case_of_uncompressed_masks():
    case = Path(__file__).parent / "data" / "cases" / "18_uncompressed_rle"
    for masks in ("mv_masks.json", "mv_masks_unc.json"):
        for answers in ("m_ok.jsonl", "m_unc.jsonl"):
            result = evaluate("mevis", None, case / "mv.json", case / answers, masks=case / masks)
            assert result["metrics"] == {"j": 1, "f": 1, "j_and_f": 1}


def test_run_lengths_as_a_list_give_the_boxes_of_a_tube(tmp_path):
    mask = np.zeros((48, 64), bool)
    mask[5:25, 5:25] = True
    packed = encode_mask(mask)
    (tmp_path / "a.json").write_text(json.dumps({"a.mp4": tube_record()}))
    for counts in (packed, rle_runs(packed).tolist()):
        masks = {str(f): {"size": [48, 64], "counts": counts} for f in range(2, 8)}
        record = dict(key="a.mp4", start_frame=2, end_frame=8, masks=masks)
        assert evaluate("hcstvg", None, tmp_path / "a.json", [record])["metrics"]["m_viou"] == 1


# ---------------------------------------------------------------------------- the table of protocols


def test_a_protocol_of_ones_own(tmp_path):
    class Longer(ScoringProtocol):
        fields = ("longer",)

        def score(self, sample, prediction, note):
            if prediction.seconds is None:
                return None
            start, end = prediction.seconds
            return dict(longer=float(end - start > sample.interval.length))

    times = {"A": dict(duration=9, timestamps=[[1, 3]] * 3, sentences=["a", "b", "c"])}
    (tmp_path / "c.json").write_text(json.dumps(times))
    answers = [dict(key="A#0", start=1, end=9), dict(key="A#1", start=1, end=2), dict(key="A#2")]
    PROTOCOLS["charades-sta", "longer"] = Longer()
    try:
        result = evaluate("charades-sta", "longer", tmp_path / "c.json", answers)
    finally:
        del PROTOCOLS["charades-sta", "longer"]
    assert result["metrics"] == {"m_longer": pytest.approx(1 / 3)} and result["n_unparsed"] == 1
    with pytest.raises(InputError, match="has no protocol 'longer'"):
        evaluate("charades-sta", "longer", tmp_path / "c.json", answers)
