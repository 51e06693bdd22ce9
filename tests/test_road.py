"""One road from a benchmark's own files to its table: dataset, train, predict, evaluate, table row.

The files in tests/data/road are made up and lie in the real lay-outs of HC-STVG, VidSTG and MeViS."""

import json
from pathlib import Path

import pytest

from stvg_nb.cli import main
from stvg_nb.foundations.files import read_json, read_jsonl, write_text
from stvg_nb.foundations.settings import load_profile
from stvg_nb.rows import TableRow, eval_set, measured_rows, write_rows

ROAD = Path(__file__).resolve().parent / "data/road"
SMALL = ["sampling.longer_side=56", "sampling.max_frames=4", "train.max_completion_length=8"]
TRAINED = ["train.num_generations=2", "train.prompts_per_step=1", "train.prompts_per_pass=1"]

BENCHMARKS = {
    "hcstvg": dict(train="v1_train.json", test="v1_test.json", videos="videos", n=1, kept=2),
    "vidstg": dict(
        train="train_annotations.json",
        test="val_annotations.json",
        videos="videos",
        boxes="vidor.json",
        n=2,
        kept=4,
    ),
    "mevis": dict(
        train="valid_u/meta_expressions.json",
        test="valid_u/meta_expressions.json",
        videos="valid_u/JPEGImages",
        masks="valid_u/mask_dict.json",
        n=4,
        kept=4,
    ),
}


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STVG_FIGURES", str(tmp_path / "figures"))


def stvg(capsys, *words):
    "One command with --json: its result."
    code = main([*map(str, words), "--json", "--quiet"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def settings(*some):
    return [word for s in some for word in ("--set", s)]


def files_of(name, split):
    root, b = ROAD / name, BENCHMARKS[name]
    files = ["--benchmark", name, "--annotations", root / b[split], "--videos", root / b["videos"]]
    for extra in ("boxes", "masks"):
        files += [f"--{extra}", root / b[extra]] if extra in b else []
    return files


@pytest.mark.parametrize("name", BENCHMARKS)
def test_from_annotations_to_a_table(name, tmp_path, capsys):
    b, samples, run = BENCHMARKS[name], tmp_path / "samples.jsonl", tmp_path / "run"
    smoke = ["--profile", "smoke"]
    made = stvg(capsys, "dataset", *files_of(name, "train"), "--output", samples, *smoke)
    assert made["counts"]["kept"] == b["kept"], made["counts"]
    videos = ["--set", f"train.videos={ROAD / name / b['videos']}"]
    videos += ["--set", f"train.databases={tmp_path / 'databases'}"]
    small = settings(*SMALL, *TRAINED)
    train = ["train", *smoke, "--data", samples, "--base", "random", "--method", "grpo"]
    trained = stvg(capsys, *train, "--steps", 2, "--output", run, *videos, *small)
    assert trained["steps"] == 2 and Path(trained["checkpoint"]).is_dir()

    model = ["--model", trained["checkpoint"], *smoke, *settings(*SMALL)]
    whole, parts = tmp_path / "whole.jsonl", [tmp_path / f"part{i}.jsonl" for i in (1, 2)]
    test = files_of(name, "test")
    said = stvg(capsys, "predict", *test, *model, "--output", whole)
    assert said["counts"]["answered"] == b["n"]
    for i, part in enumerate(parts, 1):
        stvg(capsys, "predict", *test, *model, "--output", part, "--shard", f"{i}/2")
    merged = tmp_path / "merged.jsonl"
    stvg(capsys, "predict", "--merge", merged, *parts)
    assert merged.read_bytes() == whole.read_bytes()

    cut = [w for w in test if w not in ("--videos", ROAD / name / b["videos"])]
    scored = stvg(capsys, "evaluate", *cut, "--predictions", merged)
    assert (scored["n_samples"], scored["n_missing"]) == (b["n"], 0)

    split = {"hcstvg": "test", "vidstg": "val", "mevis": "valid_u"}[name]
    table = dict(zip(("data.source", "data.root", "data.benchmark"), ("files", str(ROAD), name)))
    shrunk = dict(s.split("=") for s in SMALL)
    shrunk = {k: int(v) for k, v in shrunk.items()}
    profile = load_profile("smoke", table | shrunk | {"train.base": trained["checkpoint"]})
    rows = [TableRow("marks", task="rvos" if name == "mevis" else "stvg"), TableRow("x", "no-such")]
    clips = eval_set(profile, name, split, spot_check=1)
    found = measured_rows(rows, "x-road", profile, clips, progress=False)
    path = write_rows("x-road", profile, "Made-up clips.", rows, found, clips)
    made = read_json(path.with_name("x-road.provenance.json"))
    (row,) = made["rows"]
    assert (row["benchmark"], row["n"], row["kind"]) == (name, b["n"], "measured")
    assert not made["data"][0]["synthetic"] and "Left out" in made["caption"]
    for metric in ("m_tiou", "j"):
        if metric in scored["metrics"]:
            assert row["metrics"][metric] == pytest.approx(scored["metrics"][metric], abs=1e-9)


def test_samples_are_the_same_in_shards(tmp_path, capsys):
    whole, parts = tmp_path / "samples.jsonl", [tmp_path / f"part{i}.jsonl" for i in (1, 2)]
    rest = [*files_of("vidstg", "train"), "--profile", "smoke", "--databases", tmp_path / "masks"]
    stvg(capsys, "dataset", *rest, "--output", whole)
    for i, part in enumerate(parts, 1):
        stvg(capsys, "dataset", *rest, "--output", part, "--shard", f"{i}/2")
    stvg(capsys, "dataset", "--merge", tmp_path / "merged.jsonl", *reversed(parts))
    assert (tmp_path / "merged.jsonl").read_bytes() == whole.read_bytes()


def test_leaks_are_left_out_and_counted(tmp_path, capsys):
    rest = [*files_of("hcstvg", "train"), "--profile", "smoke", "--leak-free"]
    made = stvg(capsys, "dataset", *rest, "--output", tmp_path / "samples.jsonl")
    assert made["sources"][0]["in v1_test.json"] == 1 and made["counts"]["kept"] == 1
    (line,) = read_jsonl(tmp_path / "samples.jsonl")[1:]
    assert line["video"] == "0_clip.mp4" and line["answer_ids"]


def test_own_videos_need_four_fields(tmp_path, capsys):
    own = dict(video="0_clip.mp4", query="the red square", start=1.0, end=3.0)
    own["boxes"] = {str(f): [4 + 1.6 * f, 8, 24 + 1.6 * f, 28] for f in range(10, 30)}
    write_text(tmp_path / "own.jsonl", json.dumps(own | dict(frames=[10, 30])) + "\n")
    files = ["--benchmark", "jsonl", "--annotations", tmp_path / "own.jsonl"]
    files += ["--videos", ROAD / "hcstvg/videos", "--output", tmp_path / "samples.jsonl"]
    made = stvg(capsys, "dataset", *files, "--profile", "smoke")
    assert made["counts"]["kept"] == 1
    assert read_jsonl(tmp_path / "samples.jsonl")[1]["answer_ids"]
