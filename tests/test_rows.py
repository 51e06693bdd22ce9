"""Rows of a table: bootstrap, scoring of kept predictions, controls, `ground`."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from stvg_nb.cli import main
from stvg_nb.foundations.files import InputError, read_json
from stvg_nb.foundations.masks import MaskDatabase
from stvg_nb.evaluate import (
    CONTROLS,
    METRICS,
    Row,
    _check_drift,
    annotate,
    by_type,
    estimate,
    keep,
    look_up,
    measure,
    oracle,
    prediction_path,
    resampled,
    table_row,
    score,
    weights,
)
from stvg_nb.theatre.clips import write_split


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    made = write_split(folder, "val", "street", 6, masks=True, progress=False)
    databases = {
        p.name.replace(".masks.json.gz", ".mp4"): MaskDatabase.open(p)
        for p in (folder / "masks").iterdir()
    }
    annotate(made["load"]["annotations"], databases.get, folder / "numbered.json")
    return folder, databases, read_json(folder / "numbered.json")


def truth_record(key, r):
    return dict(
        key=key,
        start_frame=r["st_frame"] - 1,
        end_frame=r["st_frame"] - 1 + len(r["bbox"]),
        target_id=r["answer_id"],
    )


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
    a, b = weights(7, 3, 50)
    assert (
        np.allclose(a.sum(1), 1)
        and np.allclose(b.sum(1), 1)
        and np.allclose(resampled(np.ones((3, 7)), (a, b)), 1)
    )


def test_perfect_answers_score_one_and_missing_ones_zero(split):
    folder, databases, records = split
    perfect = [look_up(truth_record(k, r), databases[k], "off") for k, r in records.items()]
    s = score(folder / "numbered.json", [perfect, perfect[:3]])
    assert np.allclose(s.of("m_tiou"), [[1] * 6, [1] * 3 + [0] * 3])
    assert s.of("id_accuracy").tolist() == [[1.0] * 6, [1.0] * 3 + [0.0] * 3]
    assert s.counts == dict(samples=12, missing=3, unparsed=0)
    assert table_row("x", s)["unread"] == 3 and len(by_type(s)) == len(
        {r["query_type"] for r in records.values()}
    )


def test_kept_file_gives_the_printed_numbers(split, tmp_path, capsys):
    folder, databases, records = split
    rows = [
        look_up(
            truth_record(k, r) | dict(target_id=r["answer_id"] + (i == 0)), databases[k], "paper"
        )
        for i, (k, r) in enumerate(records.items())
    ]
    path = tmp_path / "rows.jsonl.gz"
    keep(rows, path, policy="none")
    s = score(folder / "numbered.json", [path])
    assert (
        main(
            [
                "evaluate",
                "--benchmark",
                "hcstvg",
                "--annotations",
                str(folder / "numbered.json"),
                "--predictions",
                str(path),
                "--json",
            ]
        )
        == 0
    )
    printed = json.loads(capsys.readouterr().out)["metrics"]
    for name in METRICS:
        assert printed[name] == pytest.approx(s.of(name).mean(), abs=1e-9), name


def test_missed_target_is_wrong_whatever_is_said(split, tmp_path):
    folder, databases, records = split
    first = next(iter(records))
    counts = annotate(
        folder / "v1_val.json",
        lambda key: None if key == first else databases[key],
        tmp_path / "some.json",
    )
    assert (
        counts == dict(n=6, missed=1) and read_json(tmp_path / "some.json")[first]["answer_id"] == 0
    )
    said = [truth_record(k, r) | dict(boxes={}) for k, r in records.items()]
    assert score(tmp_path / "some.json", [said]).of("id_accuracy")[0].tolist() == [0, 1, 1, 1, 1, 1]


def test_oracle_halves(split):
    folder, databases, records = split
    silent = [dict(key=k, start_frame=None, end_frame=None, target_id=None) for k in records]
    assert [r["target_id"] for r in oracle(silent, folder / "numbered.json", "id")] == [
        r["answer_id"] for r in records.values()
    ]
    assert all(
        r["end_frame"] > r["start_frame"]
        for r in oracle(silent, folder / "numbered.json", "interval")
    )


def test_names_are_refused(split):
    with pytest.raises(InputError, match="control"):
        measure(None, None, None, control="tea")
    with pytest.raises(InputError, match="same clips"):
        estimate(np.ones(3), np.ones(2))
    with pytest.raises(InputError, match="m_giou"):
        score(split[0] / "numbered.json", [[]]).of("m_giou")
    assert (
        CONTROLS[0] == ""
        and prediction_path("r1-table07", "marks + GRPO/x", 1, "tiny").name
        == "r1-table07--marks-+-GRPO-x--seed1.jsonl.gz"
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from stvg_nb.models import toy_family

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
        "train.answer_tokens=6",
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
    from stvg_nb.foundations.video import probe

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


def test_other_machine_may_differ_in_little(split):
    folder, databases, records = split
    kept = [look_up(truth_record(k, r), databases[k], "off") for k, r in records.items()]
    moved = lambda r: r | dict(target_id=99, start_frame=0, end_frame=1, boxes={})
    same = {k["key"]: dict(k, text="said otherwise") for k in kept[:2]}
    clips = SimpleNamespace(annotations=folder / "numbered.json", benchmark="hcstvg", masks=None)
    _check_drift(Row("x"), clips, kept, same, 40)  # two of forty, and no metric moved
    with pytest.raises(RuntimeError, match="3 of 40 answers differ"):
        _check_drift(Row("x"), clips, kept, {k["key"]: k for k in kept[:3]}, 40)
    with pytest.raises(RuntimeError, match="m_tiou, m_viou.* left the interval"):
        _check_drift(Row("x"), clips, kept, {kept[0]["key"]: moved(kept[0])}, 40)
