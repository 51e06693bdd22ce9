"""`evaluate` on the fixtures: equal to the original scorers' outputs; bad and missing predictions."""

import copy
import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_nb.foundations.files import InputError
from stvg_nb.foundations.protocols import protocol_names
from stvg_nb.foundations.scoring import evaluate
from stvg_nb.foundations.spans import parse_span

DATA = Path(__file__).resolve().parent / "data"
EXACT = 1e-9
PROTOCOLS = protocol_names()


def read(*parts):
    return json.loads(DATA.joinpath(*parts).read_text())


def hcstvg_predictions(keep=None, linear=False):
    "The neutral form of the fixture's predictions; `keep`: key -> frames whose boxes are given."
    given = read("hcstvg", "predictions_all_frames_0based_xyxy.json")
    return [
        dict(
            key=k,
            start_frame=p["sted"][0],
            end_frame=p["sted"][1],
            interpolation="linear" if linear else "none",
            boxes={str(i): b for i, b in enumerate(p["boxes"]) if keep is None or i in keep[k]},
        )
        for k, p in given.items()
    ]


def old_names(scores):
    return {
        {"gt_viou": "siou"}.get(k, k): v
        for k, v in scores.items()
        if k in ("tiou", "viou", "gt_viou")
    }


def same(found, expected):
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=EXACT), name


# ---------------------------------------- equal to the originals


@pytest.mark.parametrize("annotations", ["v1_test.json", "val_v2.json"])
@pytest.mark.parametrize("protocol", ["clean", "official"])
def test_hcstvg_clean_and_official(annotations, protocol):
    expected, result = (
        read("hcstvg", f"expected_{protocol}.json"),
        evaluate(
            "hcstvg", protocol, DATA / "hcstvg" / annotations, hcstvg_predictions(), per_sample=True
        ),
    )
    same(result["metrics"], expected["metrics"])
    assert (
        set(result["per_sample"]) == set(expected["per_sample"])
        and result["n_scored"] == expected["n_scored"]
    )
    for key, scores in expected["per_sample"].items():
        same(result["per_sample"][key], scores)


@pytest.mark.parametrize("annotations", ["v1_test.json", "val_v2.json"])
@pytest.mark.parametrize(
    "name, protocol", [("tubedetr", "tubedetr"), ("stcat", "stcat"), ("cgstvg", "stcat")]
)
def test_hcstvg_literature_modes(annotations, name, protocol):
    expected = read("hcstvg", f"expected_{name}.json")
    keep = (
        None
        if name == "tubedetr"
        else {
            k: set(v["frames"] if isinstance(v, dict) else v) for k, v in _frames(expected).items()
        }
    )
    result = evaluate(
        "hcstvg",
        protocol,
        DATA / "hcstvg" / annotations,
        hcstvg_predictions(keep, linear=keep is not None),
        per_sample=True,
    )
    means = {
        "tiou": "m_tiou",
        "viou": "m_viou",
        "gt_viou": "m_siou",
        "viou@0.3": "viou@0.3",
        "viou@0.5": "viou@0.5",
        "gt_viou@0.3": "siou@0.3",
        "gt_viou@0.5": "siou@0.5",
    }
    same(result["metrics"], {means[k]: v for k, v in expected["sum"].items() if k in means})
    for key, scores in expected["per"].items():
        same(result["per_sample"][key], old_names(scores))


def _frames(expected):
    return (
        expected["frames"]
        if "frames" in expected
        else {k: v["frames"] for k, v in expected["per"].items()}
    )


@pytest.mark.parametrize("kind", ["text", "tubes"])
def test_st_align(kind):
    expected = read("st_align", f"expected_{kind}.json")
    result = evaluate(
        "st-align",
        None,
        DATA / "st_align/annotations.json",
        DATA / f"st_align/predictions_{kind}.json",
        per_sample=True,
    )
    same(result["metrics"], expected["metrics"])
    for key, scores in expected["per_sample"].items():
        same(
            result["per_sample"][key],
            {k: v for k, v in scores.items() if k in ("tiou", "siou", "viou")},
        )


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as z:
        for p in sorted(folder.rglob("*.png")):
            z.write(p, p.relative_to(folder))
    return path


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_mevis(form, tmp_path):
    expected, folder = read("mevis", "expected_eval_mevis.json"), DATA / "mevis/pred"
    result = evaluate(
        "mevis",
        None,
        DATA / "mevis/meta_expressions.json",
        folder if form == "folder" else zipped(folder, tmp_path / "p.zip"),
        masks=DATA / "mevis/mask_dict.json",
        per_sample=True,
    )
    for name, (j, f) in expected.items():
        same(result["per_sample"][name.replace("_", "#")], {"j": j, "f": f})
    j, f = np.mean(list(expected.values()), 0)
    same(result["metrics"], {"j": j, "f": f, "j_and_f": (j + f) / 2})


@pytest.mark.parametrize(
    "benchmark, name", [("charades-sta", "charades"), ("tvgbench", "tvgbench")]
)
@pytest.mark.parametrize("protocol", ["clean", "time-r1"])
def test_temporal(benchmark, name, protocol):
    expected = read("text", f"{name}_expected.json")
    answers = [
        dict(key=k, text=t) for k, t in _answers(read("text", f"{name}_predictions.json")).items()
    ]
    result = evaluate(
        benchmark, protocol, DATA / f"text/{name}_annotations.json", answers, per_sample=True
    )
    means = expected["metrics"][protocol]
    same(result["metrics"], means.get("nan_as_zero", means))
    for key, by_protocol in expected["per_sample"].items():
        mine, theirs = result["per_sample"][key], by_protocol[protocol]
        assert mine["span"] == (
            None if theirs["span"] is None else pytest.approx(theirs["span"])
        ) and mine["tiou"] == pytest.approx(theirs.get("tiou") or 0, abs=EXACT)


def _answers(predictions):
    records = (
        predictions.get("predictions", predictions)
        if isinstance(predictions, dict)
        else predictions
    )
    return records if isinstance(records, dict) else {r["key"]: r["text"] for r in records}


# ---------------------------------------- missing predictions and counts


def test_missing_predictions_zero_drop_error():
    given = hcstvg_predictions()[2:]
    zero, drop = (
        evaluate("hcstvg", "clean", DATA / "hcstvg/v1_test.json", given, missing=m, per_sample=True)
        for m in ("zero", "drop")
    )
    assert (zero["n_scored"], drop["n_scored"], zero["n_missing"]) == (6, 4, 2)
    assert zero["metrics"]["m_viou"] == pytest.approx(drop["metrics"]["m_viou"] * 4 / 6)
    assert (
        sum(v == {"missing": True} for v in zero["per_sample"].values())
        == sum(v == {"missing": True} for v in drop["per_sample"].values())
        == 2
    )
    with pytest.raises(InputError, match="2"):
        evaluate("hcstvg", "clean", DATA / "hcstvg/v1_test.json", given, missing="error")


def test_no_answer_counts_as_predicted():
    records = hcstvg_predictions()
    records[0] |= dict(start_frame=None, end_frame=None, boxes={})
    result = evaluate("hcstvg", "clean", DATA / "hcstvg/v1_test.json", records, missing="drop")
    assert (result["n_scored"], result["n_missing"]) == (6, 0)


@pytest.mark.parametrize("protocol", ["clean", "official"])
def test_a_perfect_prediction_scores_one(protocol):
    truth = read("hcstvg", "v1_test.json")
    perfect = [
        dict(
            key=k,
            start_frame=a["st_frame"] - 1,
            end_frame=a["st_frame"] - 1 + len(a["bbox"]),
            boxes={
                str(a["st_frame"] - 1 + i): [x, y, x + w, y + h]
                for i, (x, y, w, h) in enumerate(a["bbox"])
            },
        )
        for k, a in truth.items()
    ]
    metrics = evaluate("hcstvg", protocol, DATA / "hcstvg/v1_test.json", perfect)["metrics"]
    assert metrics["m_tiou"] == metrics["m_viou"] == metrics["viou@0.5"] == 1


def test_perfect_short_tube_under_each_convention(tmp_path):
    "Ten frames, predicted perfectly: what the conventions disagree about."
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps(
            {
                "a.mp4": dict(
                    bbox=[[0, 0, 10, 10]] * 10,
                    st_frame=101,
                    img_num=600,
                    width=64,
                    height=48,
                    caption="x",
                )
            }
        )
    )
    perfect = [
        dict(
            key="a.mp4",
            start_frame=100,
            end_frame=110,
            boxes={str(f): [0, 0, 10, 10] for f in range(100, 110)},
        )
    ]
    scores = {
        p: evaluate("hcstvg", p, path, perfect)["metrics"]["m_tiou"]
        for p in ("clean", "official", "stcat", "tubedetr")
    }
    assert scores == pytest.approx({"clean": 1, "official": 1, "stcat": 0.9, "tubedetr": 9 / 11})


# ---------------------------------------- bad predictions


def _set(**changes):
    return lambda records: records[1].update(changes)


def _box(value):
    return lambda records: records[1]["boxes"].update({"60": value})


KEY = hcstvg_predictions()[1]["key"]
BAD = {
    "unknown key": (_set(key="nobody.mp4"), "nobody.mp4", "key"),
    "twice": (lambda r: r.append(copy.deepcopy(r[1])), KEY, "twice"),
    "no key": (lambda r: r[1].pop("key"), "", "key"),
    "key is a number": (_set(key=7), "", "key"),
    "end before start": (_set(start_frame=50, end_frame=40), KEY, "end_frame"),
    "end equals start": (_set(start_frame=50, end_frame=50), KEY, "end_frame"),
    "negative start": (_set(start_frame=-1), KEY, "start_frame"),
    "start as text": (_set(start_frame="5"), KEY, "start_frame"),
    "start is half a frame": (_set(start_frame=5.5), KEY, "start_frame"),
    "start is true": (_set(start_frame=True), KEY, "start_frame"),
    "only the end is null": (_set(end_frame=None), KEY, "end_frame"),
    "box of three": (_box([1, 2, 3]), KEY, "boxes"),
    "box of five": (_box([1, 2, 3, 4, 5]), KEY, "boxes"),
    "box of text": (_box(["1", "2", "3", "4"]), KEY, "boxes"),
    "box with null": (_box([1, 2, None, 4]), KEY, "boxes"),
    "box with true": (_box([1, 2, True, 4]), KEY, "boxes"),
    "box is a dict": (_box({"x": 1}), KEY, "boxes"),
    "box is null": (_box(None), KEY, "boxes"),
    "box with NaN": (_box([1, 2, float("nan"), 4]), KEY, "boxes"),
    "box with infinity": (_box([1, 2, float("inf"), 4]), KEY, "boxes"),
    "boxes as list": (_set(boxes=[[1, 2, 3, 4]]), KEY, "boxes"),
    "boxes as text": (_set(boxes="none"), KEY, "boxes"),
    "negative frame key": (lambda r: r[1]["boxes"].update({"-3": [0, 0, 1, 1]}), KEY, "boxes"),
    "frame key is a word": (lambda r: r[1]["boxes"].update({"first": [0, 0, 1, 1]}), KEY, "boxes"),
    "frame key is half": (lambda r: r[1]["boxes"].update({"3.5": [0, 0, 1, 1]}), KEY, "boxes"),
    "frame key is huge": (lambda r: r[1]["boxes"].update({"9" * 25: [0, 0, 1, 1]}), KEY, "boxes"),
    "interpolation": (_set(interpolation="cubic"), KEY, "interpolation"),
    "seconds without fps": (
        lambda r: r.__setitem__(1, dict(key=KEY, start=1.0, end=2.0, boxes={})),
        KEY,
        "fps",
    ),
    "seconds reversed": (
        lambda r: r.__setitem__(1, dict(key=KEY, start=2.0, end=1.0, boxes={}, video={"fps": 30})),
        KEY,
        "end",
    ),
    "fps zero": (
        lambda r: r.__setitem__(1, dict(key=KEY, start=1.0, end=2.0, boxes={}, video={"fps": 0})),
        KEY,
        "fps",
    ),
    "mask of another size": (
        lambda r: r.__setitem__(
            1,
            dict(
                key=KEY,
                start_frame=1,
                end_frame=3,
                video={"width": 64, "height": 48},
                masks={"1": {"size": [48, 63], "counts": "0"}},
            ),
        ),
        KEY,
        "masks",
    ),
    "mask that does not decode": (
        lambda r: r.__setitem__(
            1,
            dict(
                key=KEY, start_frame=1, end_frame=3, masks={"1": {"size": [48, 64], "counts": "0"}}
            ),
        ),
        KEY,
        "masks",
    ),
    "mask without counts": (
        lambda r: r.__setitem__(
            1, dict(key=KEY, start_frame=1, end_frame=3, masks={"1": {"size": [48, 64]}})
        ),
        KEY,
        "masks",
    ),
    "target is text": (_set(target_id="two"), KEY, "target_id"),
    "record is a list": (lambda r: r.__setitem__(1, [1, 2]), "", ""),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("form", ["json", "jsonl", "jsonl.gz"])
def test_bad_predictions_name_file_record_and_field(name, form, tmp_path):
    change, record, field = BAD[name]
    records = hcstvg_predictions()
    change(records)
    path = tmp_path / f"p.{form}"
    head = {"schema": "stvg.predictions/1", "benchmark": "hcstvg"}
    text = (
        json.dumps(head | {"predictions": records})
        if form == "json"
        else "\n".join(map(json.dumps, [head, *records]))
    )
    path.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
    with pytest.raises(InputError) as e:
        evaluate("hcstvg", "clean", DATA / "hcstvg/v1_test.json", path)
    message = str(e.value)
    assert path.name in message and "\n" not in message
    if "NaN" not in message and "Infinity" not in message:
        assert record in message and field in message


@pytest.mark.parametrize(
    "content, why",
    [
        ('{"schema": "stvg.predictions/2", "predictions": []}', "schema"),
        ('{"schema": "stvg.predictions/1"}', "predictions"),
        ('{"schema": "stvg.predictions/1", "benchmark": "mevis", "predictions": []}', "benchmark"),
        ("[1, 2", "JSON"),
        ('"text"', "p.json"),
        ("", "p.json"),
    ],
)
def test_bad_prediction_files(content, why, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(InputError, match=why) as e:
        evaluate("hcstvg", "clean", DATA / "hcstvg/v1_test.json", path)
    assert "p.json" in str(e.value) and "\n" not in str(e.value)


def test_reversed_boxes_are_kept_with_a_warning_and_score_zero():
    records = hcstvg_predictions()
    records[1]["boxes"] = {k: [b[2], b[1], b[0], b[3]] for k, b in records[1]["boxes"].items()}
    result = evaluate("hcstvg", "clean", DATA / "hcstvg/v1_test.json", records, per_sample=True)
    assert result["per_sample"][KEY]["viou"] == 0 and any(
        w["key"] == KEY for w in result["warnings"]
    )


def test_frames_beyond_the_video_count_in_the_union():
    records = hcstvg_predictions()
    inside = evaluate("hcstvg", "clean", DATA / "hcstvg/v1_test.json", records, per_sample=True)[
        "per_sample"
    ][KEY]["tiou"]
    records[1]["end_frame"] += 5000
    assert (
        0
        < evaluate("hcstvg", "clean", DATA / "hcstvg/v1_test.json", records, per_sample=True)[
            "per_sample"
        ][KEY]["tiou"]
        < inside
    )


# ---------------------------------------- the text reader


@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(
            st.sampled_from(
                [
                    "<answer>",
                    "</answer>",
                    "</think>",
                    "5",
                    "11.5",
                    "1:02",
                    "-",
                    "to",
                    "and",
                    "until",
                    "s",
                    "seconds",
                    ",",
                    "[",
                    "]",
                    "(",
                    ")",
                    " ",
                    "–",
                    "x",
                    ".",
                ]
            ),
            max_size=30,
        ).map("".join),
    )
)
def test_no_text_raises(text):
    for mode in ("clean", "time-r1", "time-zero"):
        span = parse_span(text, mode)
        assert span is None or (len(span) == 2 and all(np.isfinite(x) and x >= 0 for x in span))


@given(
    st.integers(0, 9999),
    st.integers(0, 9999),
    st.sampled_from([" to ", "to", " and ", "-", " – ", "—", " until ", " till "]),
    st.sampled_from(["", "s", " sec", " seconds"]),
)
def test_clean_reads_what_it_says(a, b, joint, unit):
    if joint in ("to",) and unit == "":
        return  # "5to6" needs no space either, but "5sto6" reads the unit first
    assert parse_span(f"<think>1 to 2</think><answer>{a}{unit}{joint}{b}{unit}</answer>") == (a, b)


@pytest.mark.parametrize(
    "text, span",
    [
        ("from 5 to 6, no: 7 to 9", (7, 9)),
        ("1:05 to 1:10.5", (65, 70.5)),
        ("[3, 8]", (3, 8)),
        ("3, 8", None),
        ("9 to 4", (9, 4)),
        ("v2 to 5", None),
        ("5 to 11h", None),
        ("<answer>1 to 2</answer> 3 to 4 <answer>5 to 6</answer>", (5, 6)),
        ("<think>1 to 2</think> 3 to 4", (3, 4)),
        ("at 12.", None),
        ("12. to 13.", (12, 13)),
    ],
)
def test_clean_examples(text, span):
    assert parse_span(text) == span


def test_protocols_of_each_benchmark():
    assert (
        PROTOCOLS["hcstvg"][0]
        == PROTOCOLS["vidstg"][0]
        == PROTOCOLS["charades-sta"][0]
        == PROTOCOLS["tvgbench"][0]
        == "clean"
    )
    for benchmark in PROTOCOLS:
        with pytest.raises(InputError, match="no protocol"):
            evaluate(benchmark, "nothing", DATA / "hcstvg/v1_test.json", [])
