"""Marks, readers, oracles and failing detectors: what chapter 08a relies on and cannot show."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stvg_nb import marks as M
from stvg_nb.foundations.files import InputError, read_json, read_jsonl, write_json
from stvg_nb.foundations.masks import MaskDatabase
from stvg_nb.foundations.settings import load_profile
from stvg_nb.evaluate import Estimate, Ready, Row, Scores, annotate, prediction_path, score
from stvg_nb.foundations.scoring import evaluate
from stvg_nb.foundations.detections import Detections
from stvg_nb.foundations.mark_drawing import draw_marks, mark_text
from stvg_nb.foundations.prompting_config import colour
from stvg_nb.theatre.clips import write_split

SIZE = (112, 168)
TINY = load_profile("tiny")


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marks")
    made = write_split(folder, "val", "street", 4, masks=True, progress=False)
    database = lambda key: folder / "masks" / key.replace(".mp4", ".masks.json.gz")
    counts = annotate(
        made["load"]["annotations"],
        lambda key: MaskDatabase.open(database(key)),
        folder / "numbered.json",
    )
    truth = read_json(folder / "numbered.json")
    rows = [
        dict(
            key=k,
            query=r["caption"],
            video=folder / "videos" / k,
            interval=[r["st_frame"] - 1, r["st_frame"] - 1 + len(r["bbox"])],
            database=database(k),
        )
        for k, r in truth.items()
    ]
    return Ready("puppets/val/street", folder / "numbered.json", rows, counts)


def blob(rng, size=SIZE):
    h, w = size
    y, x = int(rng.integers(0, h - 30)), int(rng.integers(0, w - 20))
    mask = np.zeros(size, bool)
    mask[y : y + 30, x : x + 20] = True
    return mask


@pytest.mark.parametrize("kind", ["number", "upper", "lower", "mix"])
@pytest.mark.parametrize("anchor", ["centroid", "midrow"])
def test_place_of_a_mark_is_that_of_draw_marks(kind, anchor):
    rng = np.random.default_rng(0)
    for size in (10, 16, 32, 48):
        config = replace(
            TINY.prompting, mark_size=size, mark_type=kind, mark_anchor=anchor, mark_colour="white"
        )
        for id in (1, 9, 11, 27):
            mask, black = blob(rng), np.zeros((*SIZE, 3), np.uint8)
            assert (
                M.mark_on(mask, mark_text(id, kind), config).draw(black.copy(), (255, 255, 255))
                == draw_marks(black, {id: mask}, config)
            ).all()


def read_all(config, sees, n=40, shown=True):
    "(right answers, answers) for random numbers on noise."
    rng, numbers, out = (
        np.random.default_rng(1),
        [mark_text(i, config.mark_type) for i in range(1, 10)],
        [],
    )
    for _ in range(n):
        id, mask, noise = (
            int(rng.integers(1, 10)),
            blob(rng),
            rng.integers(40, 200, (*SIZE, 3)).astype(np.uint8),
        )
        picture, text = (
            draw_marks(noise, {id: mask} if shown else {}, config),
            mark_text(id, config.mark_type),
        )
        out.append(
            M.read_text(
                picture, M.mark_on(mask, text, config), numbers, colour(config.mark_colour), sees
            )
            == text
        )
    return np.mean(out)


@pytest.mark.parametrize("kind", ["number", "upper", "lower"])
def test_reader_reads_what_was_drawn(kind):
    assert read_all(replace(TINY.prompting, mark_type=kind), 168) == 1


def test_reader_needs_pixels_and_larger_marks_need_fewer():
    share = {
        (size, sees): read_all(replace(TINY.prompting, mark_size=size), sees)
        for size in (16, 48)
        for sees in (168, 42, 24)
    }
    assert share[16, 168] > share[16, 42] > share[16, 24] - 0.1 and share[16, 42] < 0.8
    assert share[48, 42] > share[16, 42] and share[48, 24] > share[16, 24]


def test_reader_is_not_told_the_answer():
    assert (
        read_all(TINY.prompting, 168, n=90, shown=False) < 0.3
    )  # nine numbers, nothing drawn: chance
    picture = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
    at = M.mark_on(np.ones(SIZE, bool), "3", TINY.prompting)
    said = {
        M.read_text(picture, replace(at, text=t), list("123456789"), (0, 255, 0))
        for t in "123456789"
    }
    assert len(said) == 1  # the same pixels, whatever the truth


def test_reader_on_clips(ready):
    asked = Row("x").asked(TINY)
    sharp, blurred = (M.read_clips(ready, asked, sees) for sees in (168, 20))
    assert [r["target_id"] for r in sharp] == [
        t["answer_id"] for t in read_json(ready.annotations).values()
    ]
    assert np.mean([r["legible"] for r in sharp]) > 0.8 > np.mean([r["legible"] for r in blurred])
    assert score(ready.annotations, [sharp]).of("m_tiou").tolist() == [[1] * 4]


def test_bound_falls_with_theta(ready):
    asked = lambda theta: Row("x", look=(("theta", theta),)).asked(TINY)
    for boxes in ("all", "drawn"):
        bound = [
            score(ready.annotations, [M.best_answers(ready, asked(t), boxes)]).of("m_viou")[0]
            for t in (0, 1 / 3, 1 / 2, 1)
        ]
        assert (
            all((a >= b).all() for a, b in zip(bound, bound[1:]))
            and bound[0].min() > 0.9
            and bound[-1].mean() < bound[0].mean()
        )
    whole, marked = (M.best_answers(ready, asked(1), boxes) for boxes in ("all", "drawn"))
    assert all(set(b["boxes"]) <= set(a["boxes"]) for a, b in zip(whole, marked))


def test_a_clip_without_database_has_no_oracle(ready):
    bare = replace(ready, rows=[r | dict(database=None) for r in ready.rows])
    assert {r["target_id"] for r in M.best_answers(bare, Row("x").asked(TINY))} == {None}
    assert (
        score(ready.annotations, [M.read_clips(bare, Row("x").asked(TINY))]).of("m_viou").sum() == 0
    )
    assert [r["text"] for r in M.read_signs(bare, Row("x").asked(TINY))] == [None] * 8


class Everything:
    "A detector that sees fifty things on each frame."

    name = "everything"

    def __call__(self, frames):
        return [
            Detections(np.arange(200.0).reshape(50, 4) + len(f), ["puppet"] * 50, np.ones(50))
            for f in frames
        ]


def test_failing_detector_loses_its_share_the_same_ones_and_nested(monkeypatch):
    monkeypatch.setattr(M, "_shipped", lambda confidence: Everything())
    frames, kept = [np.zeros((k, 1)) for k in range(8)], {}
    for rate, make in ((0.1, M.failing_10), (0.25, M.failing_25), (0.5, M.failing_50)):
        detector = make(TINY.prompting)

        def seen(path, parts):
            detector.prepare(path, 80)
            return [set(d.boxes[:, 0].tolist()) for part in parts for d in detector(part)]

        once = seen("a/clip.mp4", [frames])
        assert (
            once == seen("b/clip.mp4", [frames[:3], frames[3:]]) != seen("a/other.mp4", [frames])
        )  # neither folder nor batches matter
        assert abs(1 - sum(map(len, once)) / 400 - rate) < 0.06
        kept[rate] = once
        assert detector.name == f"everything, {rate:.0%} lost"
    assert all(b < a for x, y in ((0.1, 0.25), (0.25, 0.5)) for a, b in zip(kept[x], kept[y]))


def made_up(ready, config, shift=0):
    return [
        dict(key=r["key"], start_frame=0, end_frame=10 + shift, target_id=1, boxes={})
        for r in ready.rows
    ]


def test_computed_rows_are_kept_and_checked(ready, tmp_path, monkeypatch):
    monkeypatch.setenv("STVG_FIGURES", str(tmp_path))
    monkeypatch.setattr(M, "made_up", made_up, raising=False)
    clips = SimpleNamespace(
        annotations=ready.annotations,
        whole=ready,
        some=replace(ready, rows=ready.rows[:2]),
        config=TINY.prompting,
        truth=dict(benchmark="hcstvg"),
    )
    row = M.Computed("made up", make="stvg_nb.marks.made_up")
    ask = lambda row: M.computed(row, "x-brief", TINY, clips)
    first, second = ask(row), ask(row)
    assert (first["status"], first["checked"]) == ("recomputed", 4) and (
        second["status"],
        second["checked"],
        second["differing"],
    ) == ("re-scored", 2, [])
    assert first["sha256"] == second["sha256"] and len(M.records_of(second, TINY)) == 4
    assert (
        ask(replace(row, options=(("shift", 1),)))["status"] == "recomputed"
    )  # other options, other records
    path = prediction_path("x-brief", "made up", 0, "tiny")
    monkeypatch.setattr(M, "made_up", lambda ready, config, shift=0: made_up(ready, config, 5))
    with pytest.raises(RuntimeError, match="2 of 2 records differ.*remove x-brief--made-up"):
        ask(replace(row, options=(("shift", 1),)))
    assert read_jsonl(path)[0]["policy"] == "stvg_nb.marks.made_up"


def test_signs_are_inside_the_frame_and_scored_by_the_benchmark(ready, tmp_path):
    asked = Row("x").asked(TINY)
    plain, painted = (M.read_signs(ready, asked, paint, sees=168) for paint in (False, True))
    assert (
        [r["answer"] for r in plain]
        == [r["answer"] for r in painted]
        == [r["answer"] for r in M.read_signs(ready, asked)]
    )
    assert [r["place"] for r in plain] == list(M.PLACES) * 4 and all(
        r["text"] == r["answer"] for r in plain
    )
    write_json(tmp_path / "signs.json", M.sign_questions(plain))
    assert (
        evaluate("mme-videoocr", None, tmp_path / "signs.json", plain)["metrics"]["accuracy"] == 1
    )
    frame = np.full((240, 320, 3), 200, np.uint8)
    for x, y in ((0, 0), (320, 240), (160, 120)):
        drawn, sign = M.put_sign(frame, "BANK", x, y)
        rows, columns = np.nonzero((drawn != 200).any(2))
        assert (
            rows.min() >= 0
            and rows.max() < 240
            and np.ptp(columns) > np.ptp(rows)
            and (frame == 200).all()
        )
        assert M.read_text(drawn, sign, M.WORDS, (255, 255, 255), 320) == "BANK"


def test_words_of_a_difference():
    e = Estimate(0.1, 0.05, 0.15)
    assert M.beside(e, 0.02).endswith(
        "reported +2.0 points, the same sign"
    ) and "another sign" in M.beside(e, -0.02)
    assert "cannot tell" in M.beside(
        Estimate(0.1, -0.05, 0.15), 0.02
    ) and "reported" not in M.beside(e)
    assert M.paper_difference("11", "w/o re-detection", "full") == pytest.approx(
        -0.113
    ) and M.paper_value("6 (text)", "theta=1/2 upper bound") == pytest.approx(0.651)


def test_same_weights_are_paired_by_seed():
    rng = np.random.default_rng(0)
    base = rng.random((3, 50)) * 0.2 + np.array([[0.1], [0.4], [0.7]])  # seeds far apart
    found = {
        k: (Scores(tuple(range(50)), dict(viou=v), ("",) * 50, {}), [])
        for k, v in dict(off=base, mended=base + 0.01, same=base).items()
    }
    off, mended, same = (
        Row(k, "embedded:grpo-{seed}", (0, 1, 2)) for k in ("off", "mended", "same")
    )
    assert M.against(found, same, off, ("m_viou",))["m_viou"] == Estimate(0, 0, 0)
    assert M.against(found, mended, off, ("m_viou",))["m_viou"].low > 0
    other = replace(mended, policy="embedded:plain-{seed}")
    assert (
        M.against(found, other, off, ("m_viou",))["m_viou"].low < 0
    )  # other weights: seeds are drawn for each
    found["few"] = (found["off"][0].take(np.arange(50) < 40), [])
    with pytest.raises(InputError, match="other clips"):
        M.against(found, replace(off, label="few"), off, ("m_viou",))


def test_groups_cover_everything_once():
    x = np.random.default_rng(0).uniform(0, 20, 100)
    groups = M.between(x, (0, 1, 2, 4, 8), " s")
    assert (np.sum(list(groups.values()), 0) == 1).all() and list(groups)[-1] == "8 s and more"


def test_rows_of_a_table_are_kept_apart():
    tables = (
        [r for p in M.design_rows().values() for r in p.values()],
        [r for p in M.theta_rows().values() for r in p.values()],
        [r for name in M.NUMBERINGS for r in M.numbered_rows(name)],
        [r for p in M.repair_rows().values() for r in p.values()],
        M.same_tracks_rows(),
    )
    for rows in tables:
        paths = [prediction_path("x-brief", r.label, k, "tiny") for r in rows for k in r.seeds]
        assert len(set(paths)) == len(paths)
    assert {r.repair for r in tables[3]} == {"off", "paper", "no_largest", "code"} and {
        dict(r.look)["theta"] for r in tables[1]
    } == set(M.THETAS.values())
    assert (
        M.THETAS["1/12"] == TINY.prompting.theta
        and dict(M.DESIGNS["size 32"])["mark_size"] == TINY.prompting.mark_size
    )  # asked once for two tables
