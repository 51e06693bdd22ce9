"""Rows of a table: bootstrap, scoring of kept predictions, controls, `ground`."""

import json

import numpy as np
import pytest

from stvg_nb.cli import main
from stvg_nb.evaluate import (
    METRICS,
    annotate,
    bootstrap_means,
    bootstrap_weights,
    by_type,
    estimate,
    score,
    table_row,
)
from stvg_nb.foundations.benchmarks import load
from stvg_nb.foundations.files import InputError, read_json
from stvg_nb.foundations.geometry import Interval
from stvg_nb.foundations.masks import MaskDatabase
from stvg_nb.foundations.samples import Answer, answer_record
from stvg_nb.foundations.video import probe
from stvg_nb.toy_families import toy_family
from stvg_nb.predict import look_up
from stvg_nb.rows import (
    CONTROLS,
    TableRow,
    differing,
    measure,
    oracle,
    prediction_path,
    save_predictions,
)
from stvg_nb.theatre.clips import write_split


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    made = write_split(folder, "val", "street", 6, masks=True, progress=False)
    databases = {}
    for p in (folder / "masks").iterdir():
        databases[p.name.replace(".masks.json.gz", ".mp4")] = MaskDatabase.open(p)
    annotate(made["load"]["annotations"], databases.get, folder / "numbered.json")
    return folder, databases, read_json(folder / "numbered.json")


def true_answer(key, r, add=0):
    "The right number, `add` more, and the true interval."
    first = r["st_frame"] - 1
    span = Interval.frames(first, first + len(r["bbox"]))
    return Answer(key, ids=(r["answer_id"] + add,), interval=span)


def perfect_records(split, repair="off", wrong=0):
    "The true answers, looked up; the first `wrong` of them name another number."
    _, databases, records = split
    out = []
    for i, (k, r) in enumerate(records.items()):
        answer = true_answer(k, r, add=int(i < wrong))
        out.append(answer_record(look_up(answer, databases[k], repair)))
    return out


def test_interval_covers_the_mean_as_often_as_it_says():
    rng, hit = np.random.default_rng(3), 0
    for k in range(200):
        e = estimate(rng.random(150) < 0.4, draws=600, seed=k)
        hit += e.low <= 0.4 <= e.high
    assert 180 <= hit <= 199  # 95 % of 200, give or take


def test_paired_interval_is_narrower_than_two_single_ones():
    rng = np.random.default_rng(0)
    easy = rng.random(300)
    a, b = np.clip(easy + 0.05 + rng.normal(0, 0.02, 300), 0, 1), np.clip(easy, 0, 1)
    assert estimate(a, b).half < estimate(a).half / 5 and estimate(a, b).low > 0


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(0)
    same, apart = (
        np.repeat(rng.random((1, 200)), 3, 0),
        rng.random((1, 200)) + np.array([[-0.2], [0], [0.2]]),
    )
    assert estimate(apart).half > 2 * estimate(same).half


def test_every_population_is_whole():
    a, b = bootstrap_weights(7, 3, 50)
    assert np.allclose(a.sum(1), 1) and np.allclose(b.sum(1), 1)
    assert np.allclose(bootstrap_means(np.ones((3, 7)), (a, b)), 1)


def test_perfect_answers_score_one_and_missing_ones_zero(split):
    folder, _, records = split
    perfect = perfect_records(split)
    s = score(folder / "numbered.json", [perfect, perfect[:3]])
    assert np.allclose(s.of("m_tiou"), [[1] * 6, [1] * 3 + [0] * 3])
    assert s.of("id_accuracy").tolist() == [[1.0] * 6, [1.0] * 3 + [0.0] * 3]
    assert s.counts == dict(samples=12, missing=3, unparsed=0)
    assert table_row("x", s)["unread"] == 3
    assert len(by_type(s)) == len({r["query_type"] for r in records.values()})


def test_kept_file_gives_the_printed_numbers(split, tmp_path, capsys):
    path, numbered = tmp_path / "rows.jsonl.gz", split[0] / "numbered.json"
    save_predictions(perfect_records(split, "paper", wrong=1), path, policy="none")
    s = score(numbered, [path])
    argv = ["evaluate", "--benchmark", "hcstvg", "--annotations", str(numbered)]
    assert main([*argv, "--predictions", str(path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["metrics"]
    for name in METRICS:
        assert printed[name] == pytest.approx(s.of(name).mean(), abs=1e-9), name


def test_missed_target_is_wrong_whatever_is_said(split, tmp_path):
    folder, databases, records = split
    first, some = next(iter(records)), tmp_path / "some.json"
    known = {k: db for k, db in databases.items() if k != first}
    counts = annotate(folder / "v1_val.json", known.get, some)
    assert counts == dict(n=6, missed=1) and read_json(some)[first]["answer_id"] == 0
    said = [answer_record(true_answer(k, r)) | dict(boxes={}) for k, r in records.items()]
    assert score(some, [said]).of("id_accuracy")[0].tolist() == [0, 1, 1, 1, 1, 1]


def numbered_samples(split):
    folder, _, records = split
    samples = {s.key: s for s in load("hcstvg", folder / "numbered.json", videos=folder / "videos")}
    return {
        k: samples[k].with_task("stvg", answer_ids=(r["answer_id"],)) for k, r in records.items()
    }


def test_oracle_halves(split):
    samples, silent = numbered_samples(split), [Answer(k) for k in split[2]]
    ids = [a.target_id for a in oracle(silent, samples, "id")]
    assert ids == [r["answer_id"] for r in split[2].values()]
    spans = [a.interval for a in oracle(silent, samples, "interval")]
    assert all(i.end > i.start for i in spans)
    assert spans == [true_answer(k, r).interval for k, r in split[2].items()]


def test_names_are_refused(split):
    with pytest.raises(InputError, match="control"):
        measure(None, None, None, control="tea")
    with pytest.raises(InputError, match="same clips"):
        estimate(np.ones(3), np.ones(2))
    with pytest.raises(InputError, match="m_giou"):
        score(split[0] / "numbered.json", [[]]).of("m_giou")
    path = prediction_path("r1-table07", "marks + GRPO/x", 1, "tiny")
    assert path.name == "r1-table07.zip::marks-+-GRPO-x--seed1.jsonl" and CONTROLS[0] == ""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model, processor = toy_family("qwen2_5_vl")
    folder = tmp_path_factory.mktemp("toy")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_ground_command_writes_what_it_says(split, checkpoint, tmp_path, capsys):
    folder, databases, records = split
    video = folder / "videos" / next(iter(records))
    argv = [
        "ground",
        str(video),
        "who waves?",
        "--model",
        str(checkpoint),
        "--database",
        str(folder / "masks" / f"{video.stem}.masks.json.gz"),
        "--set",
        "train.max_completion_length=6",
        "--output",
        str(tmp_path / "p.json"),
        "--render",
        str(tmp_path / "a.mp4"),
        "--json",
        "--quiet",
    ]
    assert main(argv) == 0
    out = capsys.readouterr()
    result = json.loads(out.out)
    assert out.err == "" and result["schema"] == "stvg.grounding/1" and len(result["results"]) == 1
    one = result["results"][0]
    assert (
        one["parsed"] is False
        and one["repaired"] is False
        and one["prediction"]["start_frame"] is None
    )  # random weights say nothing that can be read
    assert read_json(tmp_path / "p.json")["predictions"] == [one["prediction"]]
    assert probe(tmp_path / "a.mp4").frame_count == probe(video).frame_count
    assert main(argv) == 2 and "exists; add --overwrite" in capsys.readouterr().err
    assert main([*argv, "--overwrite"]) == 0


def test_ground_refuses_in_one_line(split, checkpoint, tmp_path, capsys):
    folder, databases, records = split
    first, second = list(records)[:2]
    video, other = folder / "videos" / first, MaskDatabase(64, 48, 10.0, 5, "x.mp4")
    other.save(tmp_path / "other.masks.json.gz")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    model = ["--model", str(checkpoint)]
    for argv, said in (
        (
            [str(video), "who?", "--database", str(tmp_path / "other.masks.json.gz"), *model],
            "another video",
        ),
        ([str(tmp_path / "broken.mp4"), "who?", *model], "broken.mp4"),
        ([str(video), "", *model], "QUERY"),
        ([str(video), "a", "b", "--render", "x.mp4", *model], "one query"),
        ([str(video), "a", "--model", str(tmp_path)], "config.json"),
    ):
        assert main(["ground", *argv]) == 2
        out = capsys.readouterr()
        assert out.out == "" and out.err.count("\n") == 1 and said in out.err, (argv, out.err)


class Kept:
    "The part of an `EvalSet` that a check of kept answers needs."

    def __init__(self, annotations):
        self.annotations = annotations

    def score(self, predictions):
        return score(self.annotations, predictions)


def test_another_processor_may_differ_in_no_direction(split):
    kept, metrics = perfect_records(split), TableRow("x").metrics
    clips = Kept(split[0] / "numbered.json")

    def found(changed):
        fresh = [changed.get(r["key"], r) for r in kept]
        return differing(kept, fresh, clips, metrics, "x")

    otherwise = {r["key"]: r | dict(text="said otherwise") for r in kept}
    some = [dict(list(otherwise.items())[:n]) for n in (0, 3, 4)]
    assert found(some[0]) == []
    assert found(some[1]) == sorted(some[1])  # three of six, and no metric moved
    with pytest.raises(RuntimeError, match="x: 4 of 6 answers differ"):
        found(some[2])
    lost = dict(target_id=99, start_frame=0, end_frame=1, boxes={})
    with pytest.raises(RuntimeError, match="m_tiou, m_viou.* left the interval"):
        found({kept[0]["key"]: kept[0] | lost})
