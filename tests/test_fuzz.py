"""Damaged inputs of every kind, with a fixed seed.

More by hand: `python tests/fuzz/run.py --seed 7 --count 20000`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "fuzz"))
import mutate
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
    import random

    value = dict(a=[1, 2.5, "x"], b=dict(c=None))
    some = [mutate.json_value(random.Random(k), value) for k in range(50)]
    assert some == [mutate.json_value(random.Random(k), value) for k in range(50)]
    assert sum(v != value for v in some) > 40 and value == dict(a=[1, 2.5, "x"], b=dict(c=None))
