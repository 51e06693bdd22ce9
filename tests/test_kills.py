"""SIGKILL ten times in each command, at writes chosen by chance: resumed, the results are equal.

As a script: one command again and again, each time in a fork that kills itself at a write."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed import ends_at

from stvg_nb.foundations.video import iter_frames

TESTS = Path(__file__).resolve().parent
ROAD = TESTS / "data/road/hcstvg"
FILES = ["--benchmark", "hcstvg", "--annotations", ROAD / "v1_train.json"]
FILES += ["--videos", ROAD / "videos", "--profile", "smoke"]
SMALL = dict(longer_side=56, max_frames=4)
LEARN = dict(num_generations=2, prompts_per_step=1, prompts_per_pass=1, max_completion_length=8)
LEARN |= dict(save_steps=1, save_total_limit=2, num_iterations=2)
KILLS = 10


def settings(section, values):
    return [w for k, v in values.items() for w in ("--set", f"{section}.{k}={v}")]


def commands(place):
    "What is killed, by name; all of it writes below `place`."
    smoke, samples = ["--profile", "smoke"], place.parent / "samples.jsonl"
    train = ["train", *smoke, "--data", samples, "--base", "random", "--method", "grpo"]
    train += ["--steps", 4, "--output", place / "run", *settings("sampling", SMALL)]
    here = dict(videos=ROAD / "videos", databases=place.parent / "databases")
    data = ["--data", samples, "--videos", ROAD / "videos"]
    data += ["--databases", place.parent / "databases"]
    return dict(
        prompt=["prompt", ROAD / "videos", "--output", place / "numbered"],
        dataset=["dataset", *FILES, "--output", place / "samples.jsonl"],
        train=[*train, *settings("train", LEARN | here)],
        predict=[
            "predict",
            *data,
            *smoke,
            "--model",
            place.parent / "model",
            "--output",
            place / "said.jsonl",
        ]
        + settings("sampling", SMALL)
        + ["--set", "train.max_completion_length=8"],
        reproduce=["reproduce", "--profile", "smoke"],
    )


# the process that kills itself
def in_fork(argv, place, at, folder):
    "-> (exit code, -9 where it was killed; number of writes)."
    read, write = os.pipe()
    process = os.fork()
    if not process:
        code = 99
        try:
            count = ends_at(str(place), at)
            code = run_once(argv, folder)
            os.write(write, str(count[0]).encode())
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as f:
        written = f.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), int(written or 0)


def run_once(argv, folder):
    from stvg_nb.cli import main
    from stvg_nb.reproduce import exit_code, reproduce

    if argv[0] == "reproduce":
        return exit_code(reproduce("smoke", folder=Path(folder), jobs=1))
    return main([*argv, "--quiet"])


def chain(name, place, notebooks):
    "One unbroken run, then one that is killed ten times and ends."
    import torch
    import transformers  # noqa: F401  imported before the fork
    import trl  # noqa: F401

    from stvg_nb import policies, prompting, stages, train  # noqa: F401

    torch.set_num_threads(1)
    told, rng = [], random.Random(name)
    for kind in ("whole", "broken"):
        for key, part in (("STVG_RUNS", "runs"), ("STVG_FIGURES", "figures")):
            os.environ[key] = str(place / kind / part)
        argv = [str(w) for w in commands(place / kind)[name]]
        if kind == "whole":
            code, writes = in_fork(argv, place / kind, 0, notebooks)
            assert code == 0 and writes > 5, (code, writes)
            continue
        while len([t for t in told if t[1] == -9]) < KILLS:
            at = rng.randint(1, max(2, writes // 4))
            code, _ = in_fork(argv, place / kind, at, notebooks)
            told.append((at, code))
            assert code in (-9, 0), told
            if code == 0:  # done before its last kill: from the start again
                shutil.rmtree(place / kind)
        code, _ = in_fork(argv, place / kind, 0, notebooks)
        assert code == 0, told
    print(json.dumps(dict(writes=writes, told=told)))


# what is compared
def log_of(path):
    timed = {"seconds", "peak_gb", "tokens_per_second"}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in timed} for r in lines]


def same_training(a, b):
    assert log_of(a / "run/log.jsonl") == log_of(b / "run/log.jsonl")
    weights = [p / "run/final/model.safetensors" for p in (a, b)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def same_files(a, b, kinds):
    names = [sorted(p.relative_to(r) for k in kinds for p in r.rglob(k)) for r in (a, b)]
    assert names[0] == names[1] and names[0]
    for name in names[0]:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def same_pictures(a, b):
    """Videos of the same frames.

    Not of the same bytes: in 1 of 110 runs beside busy processes the encoder compressed one video
    otherwise, 1.3 levels apart at most; a mark that is missing, or one frame more, is over 2.
    """
    names = [sorted(p.relative_to(r) for p in r.rglob("*.mp4")) for r in (a, b)]
    assert names[0] == names[1] and names[0]
    for name in names[0]:
        one, two = ([x for _, _, x in iter_frames(r / name)] for r in (a, b))
        assert len(one) == len(two)
        for x, y in zip(one, two):
            assert np.abs(x.astype(int) - y).mean() < 2, name


def same_numbers(a, b):
    same_files(a, b, ["*.masks.json.gz"])
    same_pictures(a, b)


def same_rows(a, b):
    found = [sorted((r / "figures").rglob("x-*.json")) for r in (a, b)]
    tables = [[json.loads(p.read_text())["rows"] for p in paths] for paths in found]
    assert tables[0] == tables[1] and len(tables[0]) == 2  # of each table


SAME = dict(
    prompt=lambda a, b: same_numbers(a / "numbered", b / "numbered"),
    dataset=lambda a, b: same_files(a, b, ["samples.jsonl", "*.masks.json.gz"]),
    train=same_training,
    predict=lambda a, b: same_files(a, b, ["said.jsonl"]),
    reproduce=same_rows,
)

CELLS = (
    "profile = None",
    "from stvg_nb.core import Artefact, write_table",
    "rows = [dict(label='toy', kind='measured', metrics=dict(value={value}))]",
    "write_table(Artefact('x-toy-{value}', profile, 'A toy.', rows))",
)


def notebooks(folder):
    import nbformat

    folder.mkdir()
    kernel = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    for value in (1, 2):
        cells = [nbformat.v4.new_code_cell(c.format(value=value)) for c in CELLS]
        cells[0]["metadata"]["tags"] = ["parameters"]
        made = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
        nbformat.write(made, folder / f"0{value}_toy.ipynb")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "Samples with their databases, for the commands that need them."
    place = tmp_path_factory.mktemp("kills")
    from stvg_nb.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STVG_RUNS", str(place / "runs"))
        words = ["dataset", *FILES, "--output", place / "samples.jsonl", "--quiet"]
        assert main([*map(str, words), "--databases", str(place / "databases")]) == 0
    from stvg_nb.qwen import toy_model, toy_processor

    for part in (toy_model(), toy_processor()):
        part.save_pretrained(place / "model")
    notebooks(place / "nbs")
    return place


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_ten_kills_change_nothing(name, made, tmp_path):
    for part in ("samples.jsonl", "databases", "model", "nbs"):
        (tmp_path / part).symlink_to(made / part)
    words = [sys.executable, __file__, name, tmp_path, made / "nbs"]
    run = subprocess.run([*map(str, words)], capture_output=True, text=True, cwd=TESTS.parent)
    assert run.returncode == 0, run.stderr[-3000:]
    told = json.loads(run.stdout.splitlines()[-1])["told"]
    assert sum(code == -9 for _, code in told) == KILLS
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    SAME[name](whole, broken)
    left = [p for p in broken.rglob("*") if ".tmp" in p.name or p.name.endswith(".partial")]
    assert left == [], left


if __name__ == "__main__":
    chain(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
