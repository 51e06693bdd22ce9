"""Damaged inputs of every kind, with a fixed seed.

More by hand: `python tests/fuzz/run.py --seed 7 --count 20000`."""

import json
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "fuzz"))
import mutate
import run
from run import fuzz, table

COUNT = 1500


@pytest.mark.slow
def test_damage_is_refused_in_one_line_or_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    counts, failures = fuzz(seed=0, count=COUNT, keep=tmp_path)
    assert sum(counts.values()) == COUNT
    assert not failures, f"{failures[0]}\n{table(counts)}"
    refused = sum(n for (_, kind), n in counts.items() if kind == "refused")
    assert refused > COUNT / 3  # the damage is seen


def test_damage_is_the_same_for_a_seed():
    value = dict(a=[1, 2.5, "x"], b=dict(c=None))
    some = [mutate.json_value(random.Random(k), value) for k in range(50)]
    assert some == [mutate.json_value(random.Random(k), value) for k in range(50)]
    assert sum(v != value for v in some) > 40 and value == dict(a=[1, 2.5, "x"], b=dict(c=None))


def _kinds(folder):
    "What becomes of four mutations that take memory, or say that there is none."
    run.ROOM = 100 << 20

    def takes(size):
        def call(folder, damaged):
            np.ones(size << 20, np.uint8)

        return run.outcome(call, folder, folder)[0]

    def refuses(folder, damaged):
        raise MemoryError

    return [takes(1), takes(300), takes(1), run.outcome(refuses, folder, folder)[0]]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="counts memory on Linux")
def test_memory_that_a_mutation_takes_is_a_finding(tmp_path):
    "In a process of its own, as the fuzzer has: a large one may give memory back meanwhile."
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        kinds = pool.submit(_kinds, tmp_path).result()
    assert kinds == ["fine", "memory", "fine", "memory"]


def _child(path, cases, end):
    "A program that records mutations as `run.py --log` does, and ends as told."
    began = [dict(case=k, target="t") for k in range(cases)]
    ended = [r | dict(kind="fine", text="") for r in began[:-1]]
    records = [r for pair in zip(began, [*ended, None], strict=False) for r in pair if r]
    lines = "".join(json.dumps(r) + "\n" for r in records)
    log = path / "log.jsonl"
    code = f"import os, time; open({str(log)!r}, 'a').write({lines!r}); {end}"
    return run.supervised([sys.executable, "-c", code], log)


def test_a_mutation_that_ends_the_process_or_hangs_in_it_is_recorded(tmp_path, monkeypatch):
    crashed = _child(tmp_path, 3, "os.abort()")
    assert [(r["case"], r["kind"]) for r in crashed] == [(0, "fine"), (1, "fine"), (2, "crash")]
    large = _child(tmp_path, 1, f"bytes({run.ADDRESSES})")
    assert [r["kind"] for r in large] == ["crash"]
    monkeypatch.setattr(run, "PATIENCE", 0.5)
    assert _child(tmp_path, 1, "time.sleep(10**6)")[0]["kind"] == "hang"
    with pytest.raises(SystemExit, match="exit 3"):
        _child(tmp_path, 0, "os._exit(3)")
