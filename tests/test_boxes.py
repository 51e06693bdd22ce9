"""Chapter 10 end to end: rows, a step of each trainer and the command line, without lessons."""

import json

import pytest

from stvg_nb.box_answers import BOX_TINY
from stvg_nb.foundations.files import InputError
from stvg_nb.foundations.settings import load_profile
from stvg_nb.models import load_policy
from stvg_nb.thinking_boxes import parse_boxes

SMALL = BOX_TINY | {
    "train.base": "boxes:untaught",
    "train.samples": 2,
    "train.max_steps": 1,
    "train.save_steps": 1,
    "train.prompts_per_step": 2,
    "train.prompts_per_pass": 1,
    "train.num_generations": 2,
    "train.max_completion_length": 12,
    "train.feature_cache": False,
    "train.puppets": {"duration": 8.0},
}


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))


def test_rows_hold_an_answer_that_the_reader_takes():
    from stvg_nb.box_rewards import as_box_target, box_terms
    from stvg_nb.examples import load_rows

    profile = load_profile("tiny", SMALL)
    for row in load_rows(profile, profile.train, quiet=True):
        target = as_box_target(row["target"])
        reply = parse_boxes(row["answer"])
        assert reply.ok_format and reply.span == tuple(target.steps)
        terms = box_terms(row["answer"], row["target"])
        assert terms["r_c"] == terms["r_t"] == 1 and terms["spa_final"] > 0.5
        assert (
            row["video"]["database"] is None
            and "number" not in row["prompt"][0]["content"][0]["text"]
        )


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_step_of_each_trainer(method, tmp_path):
    from stvg_nb.train import train

    profile = load_profile("tiny", SMALL | {"train.method": method})
    result = train(profile, tmp_path / "run", quiet=True)
    assert result["status"] == "finished"
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(log) == 1
    if method == "grpo":
        names = {"box_format", "box_consistency", "box_time", "box_spatial", "box_think"}
        assert names <= set(log[0]["terms"]) and "failed" in log[0]


def test_the_command_line_answers_in_boxes(tmp_path, capsys):
    from stvg_nb.cli import main
    from stvg_nb.foundations.sources import CLIPS

    made = CLIPS["puppets"](tmp_path / "clips", "test", "stage", 1, progress=False)
    [video] = list((tmp_path / "clips").rglob("*.mp4"))
    config = tmp_path / "small.yaml"
    config.write_text("inherits: tiny\nname: small\ntrain: {max_completion_length: 8}\n")
    asked = ["ground", str(video), "who waves?", "--task", "boxes", "--model", "boxes:untaught"]
    assert main([*asked, "--config", str(config), "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["results"][0]["task"] == "boxes" and told["results"][0]["prediction"]["boxes"] == {}
    assert made


def test_models_that_are_not_there_are_one_line(monkeypatch):
    monkeypatch.delenv("STVG_API_BASE", raising=False)
    with pytest.raises(InputError, match="set STVG_API_BASE"):
        load_policy("api:some-model")
    with pytest.raises(InputError, match="is not shipped with this package"):
        load_policy("boxes:nobody")
