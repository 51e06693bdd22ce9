"""Marks, readers, oracles and failing detectors: what chapter 08a relies on and cannot show."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stvg_nb import marks as M
from stvg_nb.evaluate import Estimate, Scores, annotate, score
from stvg_nb.foundations.benchmarks import load
from stvg_nb.foundations.detections import Detections
from stvg_nb.foundations.files import InputError, read_json, read_jsonl, write_json
from stvg_nb.foundations.mark_drawing import draw_marks, mark_text
from stvg_nb.foundations.prompting_config import colour
from stvg_nb.foundations.samples import open_database
from stvg_nb.foundations.scoring import evaluate
from stvg_nb.foundations.settings import load_profile, resolve
from stvg_nb.rows import NumberedSplit, TableRow, prediction_path
from stvg_nb.tables import TRAINED
from stvg_nb.theatre import failing as F
from stvg_nb.theatre import reader as D
from stvg_nb.theatre import signs as S
from stvg_nb.theatre.clips import write_split

SIZE = (112, 168)
TINY = load_profile("tiny")


def asked(**settings):
    return TableRow("x", **settings).answer_config(TINY)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    "Four clips, numbered from the truth."
    folder = tmp_path_factory.mktemp("marks")
    made = write_split(folder, "val", "street", 4, masks=True, progress=False)

    def path(key):
        return str(folder / "masks" / key.replace(".mp4", ".masks.json.gz"))

    right = folder / "numbered.json"
    counts = annotate(made["load"]["annotations"], lambda k: open_database(path(k)), right)
    truth, samples = read_json(right), []
    for s in load(**made["load"] | dict(annotations=right)):
        known = dict(database=path(s.key), answer_ids=(truth[s.key]["answer_id"],))
        samples.append(replace(s, video=str(folder / "videos" / s.video), **known))
    return NumberedSplit("puppets/val/street", right, samples, counts)


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
                D.mark_on(mask, mark_text(id, kind), config).draw(black.copy(), (255, 255, 255))
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
            D.match_text(
                picture, D.mark_on(mask, text, config), numbers, colour(config.mark_colour), sees
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
    at = D.mark_on(np.ones(SIZE, bool), "3", TINY.prompting)
    said = {
        D.match_text(picture, replace(at, text=t), list("123456789"), (0, 255, 0))
        for t in "123456789"
    }
    assert len(said) == 1  # the same pixels, whatever the truth


def test_reader_on_clips(split):
    sharp, blurred = (D.read_clips(split, asked(), sees) for sees in (168, 20))
    assert [r["target_id"] for r in sharp] == [s.answer_id for s in split.samples]
    legible = [np.mean([r["legible"] for r in records]) for records in (sharp, blurred)]
    assert legible[0] > 0.8 > legible[1]
    assert score(split.annotations, [sharp]).of("m_tiou").tolist() == [[1] * 4]


def bound(split, theta, boxes):
    config = asked(mark_overrides=(("theta", theta),))
    return M.best_answers(split, config, boxes)


@pytest.mark.parametrize("boxes", ["all", "drawn"])
def test_bound_falls_with_theta(split, boxes):
    found = [bound(split, t, boxes) for t in (0, 1 / 3, 1 / 2, 1)]
    scores = [score(split.annotations, [records]).of("m_viou")[0] for records in found]
    assert all((a >= b).all() for a, b in zip(scores, scores[1:]))
    assert scores[0].min() > 0.9 and scores[-1].mean() < scores[0].mean()


def test_boxes_where_marked_are_some_of_all(split):
    whole, marked = (bound(split, 1, boxes) for boxes in ("all", "drawn"))
    assert all(set(b["boxes"]) <= set(a["boxes"]) for a, b in zip(whole, marked))


def test_a_clip_without_database_has_no_oracle(split):
    bare = replace(split, samples=[replace(s, database=None) for s in split.samples])
    assert {r["target_id"] for r in M.best_answers(bare, asked())} == {None}
    assert score(split.annotations, [D.read_clips(bare, asked())]).of("m_viou").sum() == 0
    assert [r["text"] for r in S.read_signs(bare, asked())] == [None] * 8


def test_a_record_that_nobody_said_has_the_fields_of_the_kept_ones(split):
    names = {"key", "start_frame", "end_frame", "target_id", "boxes", "repaired"}
    oracle, read = M.best_answers(split, asked())[0], D.read_clips(split, asked())[0]
    assert set(oracle) == names | {"vote_share", "marked"}
    assert set(read) == names | {"readings", "legible"}


class Everything:
    "A detector that sees fifty things on each frame."

    name = "everything"

    def __call__(self, frames):
        return [
            Detections(np.arange(200.0).reshape(50, 4) + len(f), ["puppet"] * 50, np.ones(50))
            for f in frames
        ]


def test_failing_detector_loses_its_share_the_same_ones_and_nested(monkeypatch):
    monkeypatch.setattr(F, "_shipped", lambda confidence: Everything())
    frames, kept = [np.zeros((k, 1)) for k in range(8)], {}
    for rate, make in ((0.1, F.failing_10), (0.25, F.failing_25), (0.5, F.failing_50)):
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


def test_names_of_version_0_1_lead_to_the_theatre():
    assert resolve("stvg_nb.marks.failing_10") is F.failing_10
    assert resolve("stvg_nb.marks.read_clips") is D.read_clips
    assert resolve("stvg_nb.marks.read_signs") is S.read_signs
    assert all(callable(resolve(path)) for path in M.FAILING.values())
    with pytest.raises(InputError, match="failing_90"):
        resolve("stvg_nb.marks.failing_90")


def made_up(split, config, shift=0):
    record = dict(start_frame=0, end_frame=10 + shift, target_id=1, boxes={})
    return [dict(key=s.key) | record for s in split.samples]


@pytest.fixture
def clips(split, tmp_path, monkeypatch):
    monkeypatch.setenv("STVG_FIGURES", str(tmp_path))
    monkeypatch.setattr(M, "made_up", made_up, raising=False)
    return SimpleNamespace(
        annotations=split.annotations,
        identity=read_json(split.annotations),
        full=split,
        spot_check=replace(split, samples=split.samples[:2]),
        config=TINY.prompting,
        truth=dict(benchmark="hcstvg"),
    )


def test_computed_rows_are_kept_and_checked(clips, monkeypatch):
    row = M.ComputedRow("made up", make="stvg_nb.marks.made_up")
    shifted = replace(row, options=(("shift", 1),))

    def ask(row):
        return M.load_or_compute(row, "x-brief", TINY, clips)

    first, second = ask(row), ask(row)
    assert (first["status"], first["checked"]) == ("recomputed", 4)
    told = (second["status"], second["checked"], second["differing"])
    assert told == ("re-scored", 2, [])
    assert first["sha256"] == second["sha256"] and len(M.records_of(second, TINY)) == 4
    assert ask(shifted)["status"] == "recomputed"  # other options, other records
    path = prediction_path("x-brief", "made up", 0, "tiny")
    monkeypatch.setattr(M, "made_up", lambda split, config, shift=0: made_up(split, config, 5))
    with pytest.raises(RuntimeError, match="2 of 2 records differ.*--full"):
        ask(shifted)
    assert read_jsonl(path)[0]["policy"] == "stvg_nb.marks.made_up"


def test_signs_are_scored_by_the_benchmark(split, tmp_path):
    plain, painted = (S.read_signs(split, asked(), paint, sees=168) for paint in (False, True))
    usual = S.read_signs(split, asked())
    answers = [[r["answer"] for r in records] for records in (plain, painted, usual)]
    assert answers[0] == answers[1] == answers[2]
    assert [r["place"] for r in plain] == list(S.PLACES) * 4
    assert all(r["text"] == r["answer"] for r in plain)
    write_json(tmp_path / "signs.json", S.sign_questions(plain))
    scored = evaluate("mme-videoocr", None, tmp_path / "signs.json", plain)
    assert scored["metrics"]["accuracy"] == 1


@pytest.mark.parametrize("x, y", [(0, 0), (320, 240), (160, 120)])
def test_signs_are_inside_the_frame(x, y):
    frame = np.full((240, 320, 3), 200, np.uint8)
    drawn, sign = S.put_sign(frame, "BANK", x, y)
    rows, columns = np.nonzero((drawn != 200).any(2))
    assert rows.min() >= 0 and rows.max() < 240
    assert np.ptp(columns) > np.ptp(rows) and (frame == 200).all()
    assert D.match_text(drawn, sign, S.WORDS, (255, 255, 255), 320) == "BANK"


def test_words_of_a_difference():
    e, unsure = Estimate(0.1, 0.05, 0.15), Estimate(0.1, -0.05, 0.15)
    assert M.agreement(e, 0.02) == "the same sign"
    assert M.agreement(e, -0.02) == "another sign than the paper's"
    assert "cannot tell" in M.agreement(unsure, 0.02) and M.agreement(e) == ""
    assert M.paper_difference("11", "w/o re-detection", "full") == pytest.approx(-0.113)
    assert M.paper_value("6 (text)", "theta=1/2 upper bound") == pytest.approx(0.651)


def test_same_weights_are_paired_by_seed():
    rng = np.random.default_rng(0)
    base = rng.random((3, 50)) * 0.2 + np.array([[0.1], [0.4], [0.7]])  # seeds far apart
    values = dict(off=base, mended=base + 0.01, same=base)
    keys, kinds = tuple(range(50)), ("",) * 50
    found = {k: (Scores(keys, dict(viou=v), kinds, {}), []) for k, v in values.items()}
    off, mended, same = (replace(TRAINED, label=k) for k in ("off", "mended", "same"))

    def m_viou(row, other):
        return M.differences_of(found, row, other, ("m_viou",))["m_viou"]

    assert m_viou(same, off) == Estimate(0, 0, 0)
    assert m_viou(mended, off).low > 0
    # other weights: seeds are drawn for each
    assert m_viou(replace(mended, policy="plain-{seed}"), off).low < 0
    found["few"] = (found["off"][0].take(np.arange(50) < 40), [])
    with pytest.raises(InputError, match="other clips"):
        m_viou(replace(off, label="few"), off)


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
    assert {r.repair for r in tables[3]} == {"off", "paper", "no_largest", "code"}
    assert {dict(r.mark_overrides)["theta"] for r in tables[1]} == set(M.THETAS.values())
    # asked once for two tables
    assert M.THETAS["1/12"] == TINY.prompting.theta
    assert dict(M.DESIGNS["size 32"])["mark_size"] == TINY.prompting.mark_size
