"""The examples of CONTRIBUTING.md are run, and what it names exists."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def examples():
    "All blocks of Python, run one after another."
    names = {}
    for block in re.findall(r"^```python\n(.+?)^```", TEXT, re.M | re.S):
        assert len(block.splitlines()) < 20
        exec(block, names)
    return names


def test_the_detector(examples):
    from stvg_nb.foundations.prompting_config import PromptingConfig

    look = examples["Bright"](PromptingConfig(confidence=0.5))
    dark, light = np.zeros((2, 7, 9, 3), np.uint8)
    light[2:5, 3:8] = 200
    nothing, found = look([dark, light])
    assert len(nothing) == 0 and found.labels == ["thing"]
    assert found.boxes.tolist() == [[3, 2, 8, 5]] and found.scores.tolist() == [1]


def test_the_reward(examples):
    from stvg_nb.foundations.geometry import Interval
    from stvg_nb.rewards import Target, target_json

    target = target_json(Target((2,), Interval(5.0, 11.0), 20.0, 10.0))
    reply = "<think>x</think><answer>Target ID: 2\nTime range: {} seconds to {} seconds</answer>"
    said = [reply.format("6.00", "9.00"), reply.format("12.00", "19.00"), "I cannot say."]
    assert examples["reward_middle"](None, said, target=[target] * 3) == [1.0, 0.0, 0.0]


def test_the_benchmark(examples, tmp_path):
    from stvg_nb.foundations.benchmarks import load

    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps([dict(id="a", file="a.mp4", text="she sits down", seconds=[2, 7.5])])
    )
    try:
        (sample,) = load("mine", path)
    finally:
        examples["LOADERS"].pop("mine")
    assert (sample.key, sample.interval.start, sample.interval.end) == ("a", 2, 7.5)


def test_the_seams_that_are_named_exist():
    from stvg_nb.foundations.tube_scores import score_tubes, truth_tube
    from stvg_nb.metrics import PROTOCOLS, metric_list
    from stvg_nb.models import Family, Policy, load_policy
    from stvg_nb.policies import FAMILIES
    from stvg_nb.flow_tracker import FlowTracker

    assert "clean" in PROTOCOLS["hcstvg"] and all(issubclass(f, Family) for f in FAMILIES.values())
    assert all(map(callable, (metric_list, score_tubes, truth_tube, load_policy)))
    assert callable(FlowTracker.open) and callable(Policy.generate)


def test_paths_and_targets_that_are_named_exist():
    named = set(re.findall(r"`((?:nbs|scripts|tests|papers|stvg_nb)/[\w./]*\w)`", TEXT))
    commands = set(re.findall(r"(?:bash|python) ((?:scripts/|\.ci/)[\w.]+)", TEXT))
    gone = {n for n in named | commands if not (ROOT / n).exists()}
    assert gone <= {"nbs/NN_name.ipynb", "nbs/foundations", "nbs/theatre"}
    make = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z]+)", TEXT, re.M))
    assert {t for t in targets if not re.search(rf"^{t}:", make, re.M)} == set()
