"""The gallery on other benchmarks' files, on random intervals, and what stands behind a figure."""

import ast
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_nb import gallery
from stvg_nb.explorer import SHOWN, Explorer, Frames, open_collection
from stvg_nb.foundations.detections import Detections, no_detections
from stvg_nb.foundations.files import InputError, read_json, write_json
from stvg_nb.foundations.geometry import Tube
from stvg_nb.foundations.masks import MaskDatabase, encode_mask
from stvg_nb.foundations.predictions import read_record
from stvg_nb.foundations.scoring import evaluate
from stvg_nb.foundations.settings import load_profile
from stvg_nb.foundations.video import write_video
from stvg_nb.gallery import Overlay, Strip, TimelineBar, film, moments, scores_of, strip, tube_of
from stvg_nb.theatre.clips import write_clip, write_split
from stvg_nb.theatre.staging import Options
from stvg_nb.theatre.stories import make_script
from stvg_nb.theatre.truth import full_boxes, truth


def chapter():
    "What the gallery's notebook defines and does not export: its figures' functions and classes."
    kept, names = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom), dict(vars(gallery))
    for c in read_json(ROOT / "nbs/09_gallery.ipynb")["cells"]:
        source = "".join(c["source"])
        if c["cell_type"] != "code" or source.startswith("#|"):
            continue
        for node in ast.parse(source).body:
            constant = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()
            if isinstance(node, kept) or constant:
                exec(compile(ast.Module([node], []), "09_gallery", "exec"), names)
    return SimpleNamespace(**names), names


C, NAMES = chapter()

SHORT = Options(duration=8.0)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    "A short clip whose database is exact."
    script = make_script("test", "stage", 0, SHORT)
    video = tmp_path_factory.mktemp("gallery") / "videos" / f"{script.name}.mp4"
    facts = truth(script, write_clip(video, script))
    facts["masks"].save(video.parent.parent / "masks" / f"{script.name}.masks.json.gz")
    return C.PuppetExample(
        video.name,
        script.query,
        video,
        (script.height, script.width),
        float(script.fps),
        script.frames,
        facts["masks"],
        Tube.dense(script.start, np.round(full_boxes(facts["tube"]), 2)),
        kind=script.type,
        script=script,
        facts=facts,
    )


# ------------------------------------------------------------------------- frames and sheets


@given(
    st.lists(st.integers(0, 400), unique=True, min_size=1, max_size=60),
    st.integers(3, 8),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=3),
)
def test_moments_are_candidates_in_order_and_as_many_as_asked_for(frames, k, spans):
    frames = sorted(frames)
    found = moments(frames, k, spans, 401)
    assert found == sorted(set(found)) and set(found) <= set(frames) and len(found) <= k
    real = [s for s in spans if s[1] > s[0]]
    a, b = (min(s[0] for s in real), max(s[1] for s in real)) if real else (0, 401)
    if any(a <= f < b for f in frames):
        assert any(a <= f < b for f in found)


@settings(max_examples=8)
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(0, 4),
    st.text("abc “”", max_size=150),
)
def test_nothing_on_a_sheet_overlaps(n, columns, k, bars, title):
    import matplotlib.pyplot as plt

    grey = np.full((24, 32, 3), 128, np.uint8)
    one = Strip(
        title,
        (24, 32),
        list(range(k)),
        [grey] * k,
        [[Overlay("red", (3, 3, 20, 20))]] * k,
        10.0,
        [TimelineBar("row", "red", [(1, 2)])] * bars,
        "tIoU 0.00",
    )
    fig = film([one] * n, columns)
    places = [ax.get_position() for ax in fig.axes]
    plt.close(fig)
    assert len(places) == n * (k + (bars > 0))
    assert all(
        p.x0 > -1e-6 and p.y0 > -1e-6 and p.x1 < 1 + 1e-6 and p.y1 < 1 + 1e-6 for p in places
    )
    assert not any(a.overlaps(b) for i, a in enumerate(places) for b in places[i + 1 :])


@given(st.text(st.sampled_from("$\\\\{}^_ a1<&") | st.characters(codec="utf-8"), max_size=60))
def test_text_of_others_is_never_a_formula(text):
    import matplotlib.pyplot as plt

    drawn = plt.figtext(0, 0, gallery.literal(text))
    assert drawn._preprocess_math(drawn.get_text()) == (text, False)
    plt.close("all")


@pytest.mark.parametrize("text", [r"$\frac{$", "from $5 to $9", r"\$ and $ $"])
def test_every_text_of_a_sheet_may_hold_dollars(text):
    import matplotlib.pyplot as plt

    grey, box = np.full((24, 32, 3), 128, np.uint8), Overlay("red", (3, 3, 20, 20), text=text)
    bar = TimelineBar(text, "red", [(1, 9)], (text,))
    shown = Strip(text, (24, 32), [1], [grey], [[box]], 10.0, [bar], text, text)
    fig = film([shown], beside=1.0, heading=text, width=12)
    fig.canvas.draw()
    texts = [t for t in fig.findobj(plt.Text) if "$" in t.get_text() and t.get_visible()]
    assert len(texts) == 7  # heading, title, right, beside, box, label and text of the bar
    assert {t._preprocess_math(t.get_text()) for t in texts} == {(text, False)}
    plt.close(fig)


@pytest.mark.parametrize("module", ["gallery", "explorer"])
def test_what_is_exported_knows_no_puppets(module):
    source = (ROOT / "stvg_nb" / f"{module}.py").read_text()
    assert not re.search("puppet|embedded|theatre", source, re.I)


@given(st.text(max_size=300))
def test_any_answer_can_be_printed(text):
    assert all(c.isprintable() or c == "\n" for c in C.printed(text, 30))


# ------------------------------------------------------------------------------------- cases


def test_a_head_camera_keeps_play_and_truth_together():
    script = make_script("test", "stage", 3, SHORT)
    moved = C.head_camera(script)
    views = np.array([v[1:] for v in moved.views])
    assert (views[:, 0] == 1.3).all()
    assert (views[:, 1:] <= 0).all() and (
        views[:, 1:] >= -0.3 * np.array([script.width, script.height]) - 1
    ).all()  # never beyond the edge of the scene
    before, after = truth(script, masks=False), truth(moved, masks=False)
    frame = next(f for f in before["tube"].frames if f in after["tube"].frames)
    assert before["interval"] == after["interval"]
    assert not np.allclose(before["tube"].at([frame])[0], after["tube"].at([frame])[0])


def test_a_renamed_detector_changes_names_only():
    found = Detections(
        np.array([[1.0, 2, 3, 4], [5, 6, 7, 8], [1, 1, 2, 2]]),
        ["puppet"] * 3,
        np.array([0.9, 0.8, 0.7]),
    )
    plain = SimpleNamespace(name="d", __call__=None)
    wrong = C.Renamed(lambda frames: [found, no_detections()], ["bird", "fish"])
    a, b = wrong(["frame", "frame"])
    assert (
        a.labels == ["bird", "fish", "bird"]
        and (a.boxes == found.boxes).all()
        and (a.scores == found.scores).all()
        and found.labels == ["puppet"] * 3
    )
    assert (
        len(b) == 0
        and not hasattr(wrong, "prepare")
        and C.Renamed(plain, ["x"]).name == "d called x"
    )


def test_a_strip_shows_what_was_answered_where_it_was_answered(case):
    profile = load_profile("smoke")
    record = dict(
        key=case.key,
        start_frame=case.truth.start,
        end_frame=case.truth.end,
        boxes=case.truth.to_dict(),
        target_id=case.facts["answer_id"],
    )
    shown = strip(case, record, profile)
    inside = [case.truth.start / case.fps <= t < case.truth.end / case.fps for t in shown.times]
    assert any(inside) and not all(inside)
    assert [sum(t.colour == gallery.ANSWER for t in things) for things in shown.overlays] == [
        int(i) for i in inside
    ]
    assert shown.right == "tIoU 1.00, vIoU 1.00" and shown.bars[0].spans == shown.bars[1].spans
    nothing = strip(case, dict(key=case.key, start_frame=None, end_frame=None), profile)
    assert nothing.right == "tIoU 0.00, vIoU 0.00" and nothing.bars[1].spans == []


# --------------------------------------------------------------------------------- artefacts


def test_kept_predictions_score_as_the_figure_says(case, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setenv("STVG_FIGURES", str(tmp_path))
    monkeypatch.setitem(
        NAMES, "cached_policy", lambda name, device: SimpleNamespace(fingerprint="sha256:0")
    )
    record = dict(
        key=case.key,
        start_frame=case.truth.start + 4,
        end_frame=case.truth.end + 3,
        boxes=case.truth.to_dict(),
        ids=[],
    )
    asked = C.Answerer("base, numbers", "/some/where/checkpoint")
    path = C.publish(
        "r1-figure08", plt.figure(), "One clip.", load_profile("smoke"), [(asked, case, record)]
    )
    plt.close("all")
    note = json.loads((tmp_path / "r1-figure08.provenance.json").read_text())
    folder = tmp_path / "predictions"
    result = evaluate(
        "hcstvg",
        "clean",
        folder / "r1-figure08.zip::annotations.json",
        folder / "r1-figure08.zip::base-numbers--seed0.jsonl",
    )
    (row,) = note["rows"]
    assert path.is_file() and row["label"] == f"base, numbers: {case.key}" and row["n"] == 1
    assert result["metrics"]["m_tiou"] == pytest.approx(row["metrics"]["tiou"]) and result[
        "metrics"
    ]["m_viou"] == pytest.approx(row["metrics"]["viou"], abs=1e-3)
    assert 0 < row["metrics"]["viou"] < 1
    assert note["models"] == [
        dict(name="checkpoint", revision="sha256:0", trained_here=False)
    ] and "/some/where" not in json.dumps(note)
    assert note["data"][0]["synthetic"] and "Procedural data" in note["caption"]


def test_times_alone_are_kept_so_that_they_score_as_the_figure_says(case, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setenv("STVG_FIGURES", str(tmp_path))
    monkeypatch.setitem(
        NAMES, "cached_policy", lambda name, device: SimpleNamespace(fingerprint="sha256:0")
    )
    when, record = (
        replace(case, task="vtg"),
        dict(
            key=case.key,
            start_frame=case.truth.start + 4,
            end_frame=case.truth.end + 3,
            boxes={},
            ids=[],
        ),
    )
    C.publish(
        "r1-figure11",
        plt.figure(),
        "One clip.",
        load_profile("smoke"),
        [(C.Answerer("base, plain frames", "b", plain=True), when, record)],
    )
    plt.close("all")
    (row,) = json.loads((tmp_path / "r1-figure11.provenance.json").read_text())["rows"]
    folder = tmp_path / "predictions"
    result = evaluate(
        "hcstvg",
        "clean",
        folder / "r1-figure11.zip::annotations.json",
        folder / "r1-figure11.zip::base-plain-frames--seed0.jsonl",
    )
    assert list(row["metrics"]) == ["tiou"] and 0 < row["metrics"]["tiou"] < 1
    assert result["metrics"]["m_tiou"] == pytest.approx(row["metrics"]["tiou"])
    assert C.interval_error(when, record) == "start 0.4 s late, end 0.3 s late"


def test_policies_on_plain_frames_get_no_database(case):
    assert "database" not in C.question_of(
        case, C.Answerer("a, plain frames", "b", plain=True).marks
    ) and "database" in C.question_of(case, C.Answerer("a, numbers", "b").marks)


# -------------------------------------------------------------- what is said about everybody


def test_reasoning_is_read_as_it_is_taught():
    from stvg_nb.theatre.facts import (
        action_tracks,
        clip_questions,
        clothes_of,
        presence_tracks,
        trace_facts,
    )
    from stvg_nb.theatre.scripts import Dice
    from stvg_nb.theatre.traces import trace_text
    from stvg_nb.theatre.vocabulary import TextEncoder, new_processor

    dressed, acted, speech = 0, 0, TextEncoder(new_processor())
    for index in range(8):
        script = make_script("train", ("stage", "street")[index % 2], index)
        for q in clip_questions(script, Dice("told", index), 4):
            numbers, form = {k: k + 1 for k in range(len(script.puppets))}, q["form"]
            told = C.parse_caption(
                trace_text(speech, trace_facts(script, form, q["answer"]), numbers)
            )
            should = (
                action_tracks(script)
                if form.get("action")
                else {k: [""] * len(v) for k, v in presence_tracks(script).items()}
            )  # "seen" is no action
            assert sorted(told) == [k + 1 for k in range(len(script.puppets))]
            for n, t in told.items():
                assert t.clothes in ((), clothes_of(script, n - 1)) and t.actions in (
                    [],
                    should[n - 1],
                ), (script.name, q["query"], n)
                assert not form.get("who") or t.clothes
                dressed += bool(t.clothes)
                acted += any(t.actions)
    assert dressed > 20 and acted > 20


@given(st.text(st.sampled_from("01234. ;ab<>/think"), max_size=200))
def test_any_reasoning_can_be_read(text):
    for n, t in C.parse_caption(f"<think>{text}").items():
        assert n >= 0 and t.clothes == () and not any(t.actions)


def test_a_caption_of_the_truth_is_right_and_a_wrong_word_costs_its_share(case):
    clothes, actions = C.caption_examples(case)
    assert [C.question_of(c)["task"] for c in (clothes, actions)] == ["stvg", "stvg"] and len(
        {clothes.key, actions.key, case.key}
    ) == 3
    true = C.true_caption(case)
    assert {n: t.clothes for n, t in true.items()} == {
        n: (p.shirt, p.trousers, p.hat) for n, p in zip(case.facts["numbers"], case.script.puppets)
    }
    worn = {n: " ".join((*t.clothes, "shirt")) for n, t in true.items()}
    text = lambda words: (
        "<think> x ;" + "".join(f" {n} {w} ;" for n, w in words.items()) + "</think>"
    )
    record = dict(key=clothes.key, text=text(worn))
    assert C.figure_scores(clothes, record) == dict(clothes=1.0)
    other = next(c for c in ("red", "blue") if c != true[1].clothes[0])
    wrong = text(worn | {1: " ".join((other, *true[1].clothes[1:], "shirt"))})
    assert C.figure_scores(clothes, record | dict(text=wrong)) == dict(
        clothes=pytest.approx(1 - 1 / (3 * len(true)))
    )
    shown = C.caption_strip(
        case, [record, dict(key=actions.key, text="")], load_profile("smoke"), k=3
    )
    assert (
        shown.right == "clothes 1.00, actions 0.00"
        and len(shown.bars) == 2 * len(true)
        and len(shown.pictures) == 3
    )
    assert all(not b.spans for b in shown.bars[1::2]) and any(b.spans for b in shown.bars[::2])


def test_a_missing_policy_is_said_in_one_line():
    there, why = C.at_hand(
        [
            C.Answerer("a", "embedded:no-such-policy"),
            C.Answerer("b", "embedded:no-such-policy", "two_stage"),
        ]
    )
    assert there == [] and len(why) == 1 and "no-such-policy" in why[0] and "\n" not in why[0]


def test_an_unknown_policy_stops_the_question(case):
    with pytest.raises(InputError, match="no-such-policy"):
        C.ask(C.Answerer("x", "embedded:no-such-policy"), [case], load_profile("smoke"))


# ------------------------------------------------------ the explorer on other people's files


def turn_every_knob(explorer):
    seen = {explorer.image.value}
    for name, toggle in explorer.toggles.items():
        toggle.value = not toggle.value
        seen.add(explorer.image.value)
    explorer.time.value = explorer.time.max
    assert explorer.image.value[:4] == b"\x89PNG" and explorer.text.value
    return seen


def test_explorer_on_hcstvg_with_two_files(case, tmp_path):
    root = case.video.parent.parent
    from stvg_nb.theatre.layouts import hcstvg_record

    write_json(tmp_path / "a.json", {case.key: hcstvg_record(case.script, case.facts)[1]})
    record = dict(
        key=case.key,
        start_frame=case.truth.start,
        end_frame=case.truth.end,
        boxes=case.truth.to_dict(),
        target_id=1,
        text="<script>alert(1)</script>",
    )
    for name, r in (
        ("right", record),
        ("none", dict(key=case.key, start_frame=None, end_frame=None)),
    ):
        write_json(
            tmp_path / f"{name}.json",
            dict(schema="stvg.predictions/1", benchmark="hcstvg", predictions=[r]),
        )
    opened = open_collection(
        "hcstvg",
        tmp_path / "a.json",
        {n: tmp_path / f"{n}.json" for n in ("right", "none")},
        root / "videos",
        root / "masks",
    )
    explorer = Explorer(opened, width=320)
    assert explorer.time.value == case.truth.start and "tIoU 1.00, vIoU 1.00" in explorer.text.value
    assert "<script>" not in explorer.text.value and "&lt;script&gt;" in explorer.text.value
    with_answer = explorer.image.value
    explorer.file.value = "none"
    assert explorer.image.value != with_answer and "tIoU 0.00, vIoU 0.00" in explorer.text.value
    explorer.file.value = "right"
    assert explorer.image.value == with_answer and len(turn_every_knob(explorer)) > 3
    fig = explorer.sheet()
    assert 1 < len(fig.axes) <= 4 and case.query in fig.get_suptitle()


def test_explorer_on_mevis_folders(tmp_path):
    made = write_split(tmp_path, "test", "stage", 1, layout="mevis", progress=False)["load"]
    entry = json.loads((tmp_path / "test/meta_expressions.json").read_text())["videos"]
    ((video, facts),) = entry.items()
    exact = json.loads((tmp_path / "test/mask_dict.json").read_text())
    key, e = next(
        (f"{video}#{i}", e) for i, e in facts["expressions"].items() if len(e["anno_id"]) == 1
    )
    masks = {str(f): m for f, m in enumerate(exact[str(e["anno_id"][0])]) if m}
    write_json(
        tmp_path / "p.json",
        dict(
            schema="stvg.predictions/1", benchmark="mevis", predictions=[dict(key=key, masks=masks)]
        ),
    )
    opened = open_collection(
        "mevis", made["annotations"], tmp_path / "p.json", made["videos"], masks=made["masks"]
    )
    assert opened.keys == [key] and len(Frames(opened.example(key).video)) == len(facts["frames"])
    explorer = Explorer(opened, width=320)
    assert (
        scores_of(opened.example(key), opened.predictions["p.json"][key]) == dict(j=1.0, f=1.0)
        and "J 1.00, F 1.00" in explorer.text.value
    )
    explorer.time.value = int(next(iter(masks)))
    assert (
        len(turn_every_knob(explorer)) > 1 and "numbers" in SHOWN
    )  # without a database numbers and masks change nothing


def test_explorer_on_a_temporal_benchmark(tmp_path):
    write_video(
        tmp_path / "AAAAA.mp4", (np.full((48, 64, 3), 8 * i, np.uint8) for i in range(30)), 10
    )
    write_json(
        tmp_path / "a.json",
        {"AAAAA": dict(duration=3.0, timestamps=[[0.5, 1.5]], sentences=["someone sits"])},
    )
    write_json(
        tmp_path / "p.json",
        dict(
            schema="stvg.predictions/1",
            predictions=[
                dict(key="AAAAA#0", start=0.5, end=1.5, video=dict(fps=10), text="0.5 to 1.5")
            ],
        ),
    )
    bench = json.loads((tmp_path / "a.json").read_text())
    opened = open_collection("charades-sta", tmp_path / "a.json", tmp_path / "p.json", tmp_path)
    case = opened.example("AAAAA#0")
    assert bench and (case.truth.start, case.truth.end) == (5, 15)
    explorer = Explorer(opened, width=64)
    assert "tIoU 1.00" in explorer.text.value and len(turn_every_knob(explorer)) >= 1


def test_bad_input_is_named(case, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no"):
        Frames(tmp_path / "empty")
    with pytest.raises(InputError, match="no such video"):
        Frames(tmp_path / "none.mp4")
    from stvg_nb.theatre.layouts import hcstvg_record

    write_json(tmp_path / "a.json", {case.key: hcstvg_record(case.script, case.facts)[1]})
    write_json(
        tmp_path / "other.json",
        dict(
            schema="stvg.predictions/1",
            predictions=[dict(key="nobody.mp4", start_frame=0, end_frame=2)],
        ),
    )
    with pytest.raises(InputError, match="none of their keys"):
        open_collection("hcstvg", tmp_path / "a.json", tmp_path / "other.json", tmp_path)
    write_json(
        tmp_path / "mevis.json",
        dict(schema="stvg.predictions/1", benchmark="mevis", predictions=[]),
    )
    with pytest.raises(InputError, match="mevis"):
        open_collection("hcstvg", tmp_path / "a.json", tmp_path / "mevis.json", tmp_path)


def test_masks_of_several_numbers_are_joined(case):
    db = MaskDatabase(8, 6, 10.0, 2)
    left, right = np.zeros((6, 8), bool), np.zeros((6, 8), bool)
    left[:, :2], right[:, 6:] = True, True
    for i, m in ((1, left), (2, right)):
        db.add_object(i)
        db.add(i, 0, m)
    both = C.PuppetExample(
        "k",
        "all",
        case.video,
        (6, 8),
        10.0,
        2,
        db,
        None,
        [[encode_mask(left), encode_mask(right)], []],
        "rvos",
    )
    assert scores_of(both, C.finish(both, dict(key="k", ids=[1, 2, 7]))) == dict(j=1.0, f=1.0)
    assert scores_of(both, C.finish(both, dict(key="k", ids=[2])))["j"] == pytest.approx(
        0.75
    )  # half of frame 0, and the empty frame 1
    assert C.finish(both, dict(key="k", ids=[1, 7]))["unknown_ids"] == [7]


def test_a_database_of_another_size_is_refused(case, tmp_path):
    from stvg_nb.theatre.layouts import hcstvg_record

    write_json(tmp_path / "a.json", {case.key: hcstvg_record(case.script, case.facts)[1]})
    write_json(
        tmp_path / "p.json",
        dict(
            schema="stvg.predictions/1",
            predictions=[dict(key=case.key, start_frame=0, end_frame=2)],
        ),
    )
    MaskDatabase(64, 48, 10.0, 80).save(tmp_path / f"{case.video.stem}.masks.json.gz")
    opened = open_collection(
        "hcstvg", tmp_path / "a.json", tmp_path / "p.json", case.video.parent, tmp_path
    )
    with pytest.raises(InputError, match="64 x 48"):
        Explorer(opened)


def test_linear_boxes_are_drawn_and_scored_between_the_given_frames(case):
    ends = case.truth.frames[[0, -1]]
    record = dict(
        key=case.key,
        start_frame=case.truth.start,
        end_frame=case.truth.end,
        boxes=Tube(0, 0, ends, case.truth.at(ends)[0]).to_dict(),
    )
    few, many = scores_of(case, record), scores_of(case, record | dict(interpolation="linear"))
    assert (
        few["tiou"] == many["tiou"] == 1.0
        and few["viou"] == pytest.approx(2 / case.truth.interval.length)
        and many["viou"] > 5 * few["viou"] / 2
    )
    between = int(ends.mean())
    said = read_record(record | dict(interpolation="linear"), "x")
    assert (
        tube_of(case, said).at([between])[1][0]
        and not tube_of(case, read_record(record, "x")).at([between])[1][0]
    )
