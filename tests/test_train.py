"""Training: what needs whole runs, several processes, kills, or the notebook as papermill runs it.

Called as a script it is the run that is killed or shared out."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import pytest
import torch
from killed import ends_at

from stvg_nb import trainer as trainer_module
from stvg_nb.cli import main as stvg
from stvg_nb.examples import load_rows, rows_hash, source_samples
from stvg_nb.foundations.files import InputError, config_hash, read_json, sha256_file, write_text
from stvg_nb.foundations.samples import open_database, true_seconds
from stvg_nb.foundations.settings import load_profile
from stvg_nb.foundations.store import locked
from stvg_nb.grpo import share_prefix, shared_logps
from stvg_nb.launch import follow, launch_command, launch_file
from stvg_nb.qwen import correct_positions
from stvg_nb.readers import two_clips
from stvg_nb.resume import last_checkpoint
from stvg_nb.runlog import curve_ends, model_card, read_log, say_ends
from stvg_nb.stages import save_final
from stvg_nb.train import TOY as TWO_CLIPS
from stvg_nb.train import train
from stvg_nb.train_settings import LAUNCHES, TrainConfig
from stvg_nb.train_setup import load_base, made_here, make_trainer

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent
RANDOM = {  # one step of GRPO from an untrained model
    "train.base": "random",
    "train.steps": 1,
    "train.generations": 2,
    "train.prompts": 1,
    "train.together": 1,
}
TOY = TWO_CLIPS | {"train.base": "random", "train.save_every": 1, "train.learning_rate": 1e-3}


def toy(**settings):
    return load_profile("smoke", TOY | {f"train.{k}": v for k, v in settings.items()})


@pytest.fixture(autouse=True)
def own_runs(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("STVG_RUNS", str(shared_runs(tmp_path_factory)))


def shared_runs(factory, made=[]):
    if not made:
        made.append(factory.mktemp("runs"))
    return made[0]


def puppets_set(profile):
    "Training set (with the fields that one writes by hand), folder of videos, of databases."
    samples, _ = source_samples(profile, profile.train, quiet=True)
    videos, databases = (Path(f).parent for f in (samples[0].video, samples[0].database))
    lines = []
    for s in samples:
        span = true_seconds(s)
        line = dict(key=s.key, query=s.query, video=Path(s.video).name, start=span.start)
        line |= dict(end=span.end, answer_id=s.answer_id, frames=[s.tube.start, s.tube.end])
        lines.append(line | dict(boxes=s.tube.to_dict()))
    path = videos.parent / "train.jsonl"
    write_text(path, "".join(json.dumps(x) + "\n" for x in lines))
    return path, videos, databases


@pytest.fixture(scope="module")
def puppets(tmp_path_factory):
    "Profile, training set, videos, mask databases of four clips."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STVG_RUNS", str(shared_runs(tmp_path_factory)))
        profile = load_profile("smoke", RANDOM)
        return (profile, *puppets_set(profile))


def same(a, b, tolerance=1e-6):
    "Two logs, apart from time and memory."
    assert [r["step"] for r in a] == [r["step"] for r in b]
    for x, y in zip(a, b):
        for key in x.keys() - {"seconds", "peak_gb", "terms", "dead_groups"}:
            assert x[key] == y[key] or abs(x[key] - y[key]) <= tolerance * max(1, abs(x[key])), (
                key,
                x,
                y,
            )


# ---- settings and data ----
REFUSED = {
    "method": ({"train.method": "rl"}, "'method' is 'rl'"),
    "variant": ({"train.variant": "best"}, "'variant' is 'best'"),
    "steps": ({"train.steps": 0}, "'max_steps' is 0"),
    "one answer": ({"train.generations": 1}, "no advantage"),
    "uneven": ({"train.prompts": 3, "train.together": 2}, "must divide"),
    "lora": ({"train.lora": {"rank": 4}}, "no 'rank'"),
    "unseen numbers": ({"train.rewards": [], "train.marks": False}, "plain video"),
    "weights": ({"train.weights": [1.0, 2.0]}, "'reward_weights' is [1.0, 2.0]"),
    "cache": ({"train.feature_cache": True}, "frozen_tower"),
    "launch": ({"train.launch": "zero4"}, "'zero4'"),
    "sharded tower": (
        {
            "train.feature_cache": True,
            "train.frozen_tower": True,
            "train.processes": 2,
            "train.launch": "zero3",
        },
        "whole tower",
    ),
    "machines": ({"train.processes": 8, "train.machines": 3}, "multiple of machines"),
    "rewards": ({"train.rewards": ["stvg_nb.rewards.reward_beauty"]}, "reward_beauty"),
    "data": ({"train.data": "gone.jsonl"}, "gone.jsonl"),
    "source": ({"train.data": "stvg_nb.train.no_rows"}, "no_rows"),
    "base": ({"train.base": "no/such-model"}, "no/such-model"),
    "shipped": ({"train.base": "embedded:nobody"}, "embedded:nobody"),
    "wandb": ({"train.wandb": True}, "wandb"),
    "typo": ({"train.stesp": 3}, "'stesp'"),
    "type": ({"train.steps": "many"}, "'many'"),
    "clips": ({"train.data": "puppets", "train.puppets": {"length": 3}}, "'puppets'"),
    "prompt": (
        {"train.data": "puppets", "train.reader": TrainConfig.reader, "train.prompt_tokens": 100},
        "prompt tokens",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_settings_are_one_line(name, tmp_path, capsys):
    settings, names = REFUSED[name]
    if name == "wandb" and find_spec("wandb"):
        pytest.skip("wandb is installed")
    given = [
        x
        for k, v in (TOY | {"train.steps": 1} | settings).items()
        for x in ("--set", f"{k}={json.dumps(v)}")
    ]
    code = stvg(
        ["train", "--profile", "smoke", "--output", str(tmp_path / "run"), "--quiet", *given]
    )
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line]
    assert (
        code == 2
        and out == ""
        and len(lines) == 1
        and lines[0].startswith("stvg: error: ")
        and names in lines[0]
    ), err
    assert not (tmp_path / "run/run.json").exists()


def test_bad_options_of_the_command(tmp_path, capsys):
    write_text(tmp_path / "p.yaml", "inherits: smoke\ntrain: {steps: [1]}\n")
    for argv, names in (
        (["--method", "rl"], "'rl'"),
        (["--steps", "many"], "--steps"),
        (["--profile", "huge"], "huge"),
        (["--config", str(tmp_path / "none.yaml")], "none.yaml"),
        (["--config", str(tmp_path / "p.yaml")], "'max_steps'"),
        (["--config", str(tmp_path / "p.yaml"), "--profile", "smoke"], "--config"),
        (["--profile", "a100"], "8 GPUs"),
    ):
        if names == "8 GPUs" and torch.cuda.device_count() >= 8:
            continue
        assert stvg(["train", *argv, "--quiet"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and names in err


GOOD = dict(query="Who waves?", start=1.0, end=2.5, answer_id=1)
LINES = {
    "no json": ("{", "line 2"),
    "a list": (["a.mp4"], "an object"),
    "no video": ({"video": None}, "'video' is missing"),
    "gone": ({"video": "gone.mp4"}, "gone.mp4"),
    "number as video": ({"video": 3}, "'video' is 3"),
    "no query": ({"query": None}, "'query' is missing"),
    "blank query": ({"query": "  "}, "'query' is empty"),
    "reversed": ({"start": 3.0}, "'end' is 2.5"),
    "negative": ({"start": -1.0}, "not negative"),
    "text as time": ({"end": "2 s"}, "'end' is '2 s'"),
    "true as time": ({"end": True}, "'end' is True"),
    "text as number": ({"answer_id": "1"}, "'answer_id' is '1'"),
    "window": ({"window": [5]}, "'window' is [5]"),
    "frames": ({"frames": [9, 2], "boxes": {"3": [1, 2, 3, 4]}}, "'frames' is [9, 2]"),
    "box": ({"boxes": {"3": [1, 2, 3]}}, "boxes"),
    "box key": ({"boxes": {"x": [1, 2, 3, 4]}}, "boxes"),
    "twice": ({"key": "1"}, "occurs 2 times"),
}


@pytest.mark.parametrize("name", LINES)
def test_bad_lines_are_named(name, puppets, tmp_path, capsys):
    _, path, videos, databases = puppets
    good, (change, names) = dict(GOOD, video=sorted(videos.glob("*.mp4"))[0].name), LINES[name]
    second = (
        change
        if isinstance(change, str)
        else json.dumps(
            change
            if isinstance(change, list)
            else {k: v for k, v in (good | change).items() if v is not None}
        )
    )
    write_text(tmp_path / "own.jsonl", json.dumps(good) + "\n" + second + "\n")
    code = stvg(
        [
            "train",
            "--profile",
            "smoke",
            "--data",
            str(tmp_path / "own.jsonl"),
            "--base",
            "random",
            "--set",
            f"train.videos={videos}",
            "--set",
            f"train.databases={databases}",
            "--quiet",
        ]
    )
    out, err = capsys.readouterr()
    assert (
        code == 2
        and out == ""
        and err.count("\n") == 1
        and "own.jsonl" in err
        and names in err
        and ("line 2" in err or name == "twice")
    )


@pytest.mark.parametrize(
    "change, names",
    [
        ({"answer_id": 9}, "answer_id is 9"),
        ({"answer_id": None}, "'answer_id' is missing"),
        ({"database": "none.json.gz"}, "no mask database"),
    ],
)
def test_samples_need_their_number(change, names, puppets, tmp_path):
    profile, _, videos, databases = puppets
    record = {
        k: v
        for k, v in (dict(GOOD, video=sorted(videos.glob("*.mp4"))[0].name) | change).items()
        if v is not None
    }
    write_text(tmp_path / "own.jsonl", json.dumps(record))
    config = replace(
        profile.train,
        data=str(tmp_path / "own.jsonl"),
        videos=str(videos),
        databases=str(databases),
    )
    with pytest.raises(InputError, match=names):
        load_rows(profile, config, quiet=True)
    assert (
        len(load_rows(profile, replace(config, variant="temporal"), quiet=True)) == 1
    )  # time alone needs no number


def test_a_run_from_an_own_file_is_the_vote_s(puppets, tmp_path):
    "The documented fields carry everything: a file by hand gives the rows and the run of the vote."
    profile, path, videos, databases = puppets
    own = dict(data=str(path), videos=str(videos), databases=str(databases))
    by_hand = load_profile("smoke", RANDOM | {f"train.{k}": v for k, v in own.items()})
    rows, same_rows = (load_rows(p, p.train, quiet=True) for p in (profile, by_hand))
    assert rows == same_rows and len(rows) == 4
    assert rows_hash(rows) == rows_hash(same_rows)
    assert rows[0]["answer"].startswith("<answer>Target ID: ")
    assert "<think>" in rows[0]["prompt"][0]["content"][0]["text"]
    first = train(profile, tmp_path / "run", quiet=True)
    again = train(by_hand, tmp_path / "run", quiet=True)  # refused if it were another run
    assert (first["status"], again["status"]) == ("finished", "kept")
    assert first["config_hash"] == again["config_hash"]
    fresh = train(by_hand, tmp_path / "fresh", quiet=True)
    assert fresh["config_hash"] == first["config_hash"]
    same(*(read_log(tmp_path / name / "log.jsonl") for name in ("run", "fresh")))


def test_loss_is_on_the_answer_alone(puppets, tmp_path, monkeypatch):
    "Labels are the answer's tokens and its end; the prompt has none and is left out of the logits."
    profile, *_ = puppets
    config, packed = replace(profile.train, method="sft"), []
    rows, pack = load_rows(profile, config, quiet=True)[:2], trainer_module.pack
    monkeypatch.setattr(trainer_module, "pack", lambda *a: packed.append(pack(*a)) or packed[-1])
    trainer = make_trainer(config, profile, rows, "random", tmp_path)
    loss = trainer.compute_loss(trainer.model, rows)
    spoken = trainer.processing_class.tokenizer.decode(packed[0].labels[0].tolist())
    assert spoken == "".join(r["answer"] + "<|im_end|>" for r in rows)
    loss.backward()
    assert packed[0].ids.shape[1] > 10 * packed[0].labels.shape[1]
    assert trainer.model.lm_head.weight.grad.norm() > 0
    # SFT asks for the answer at once
    assert "<think>" not in rows[0]["prompt"][0]["content"][0]["text"]


def test_two_questions_about_a_clip_decode_it_once(puppets, tmp_path):
    profile, *_ = puppets
    config, calls = replace(profile.train, method="sft", feature_cache=False), []
    row = load_rows(profile, config, quiet=True)[0]
    trainer = make_trainer(config, profile, [row], "random", tmp_path)
    read = trainer.read_video
    trainer.read_video = lambda r: calls.append(r["key"]) or read(r)
    trainer.compute_loss(
        trainer.model,
        [
            row,
            dict(
                row, key="again", answer="<answer>Target ID: 1, Time range: 0.00 to 1.00</answer>"
            ),
        ],
    )
    assert calls == [row["key"]]


def test_packed_rollouts_are_a_setting(tmp_path):
    "Answers of three tokens are never cut, so both ways draw the same ones: the same two steps."
    logs = []
    for rollout in ("trl", "packed"):
        folder = tmp_path / rollout
        train(toy(steps=2, rollout=rollout), folder, quiet=True)
        read = read_log(folder / "log.jsonl")
        logs.append([{k: r[k] for k in ("step", "loss", "grad_norm", "reward")} for r in read])
    same(*logs, tolerance=1e-4)


def killed_run(folder, part="", nth=0):
    "Where a part of a path is given: this process ends at write `nth` of such a path."
    if nth:
        ends_at(part, int(nth))
    train(toy(method="sft", steps=14, save_every=1), folder, quiet=True)


@pytest.mark.slow
def test_killed_sft_is_the_unbroken_run(tmp_path):
    "SIGKILL between steps, and while a checkpoint is written: same curve, weights, lines."
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    killed_run(whole)
    for part, nth in (("log.jsonl", 4), (".writing/", 5)):
        words = [sys.executable, __file__, str(broken), part, str(nth)]
        done = subprocess.run(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
        assert not (broken / "final").exists()
        assert read_json(broken / "run.json")["status"] == "running"
    assert any((broken / ".writing").iterdir())
    assert last_checkpoint(broken)
    killed_run(broken)
    same(read_log(whole / "log.jsonl"), read_log(broken / "log.jsonl"))
    a, b = (load_base(str(f / "final"), TrainConfig())[0].state_dict() for f in (whole, broken))
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-6


def test_sft_in_one_batch_or_in_parts(tmp_path):
    logs = []
    for together in (2, 1):
        train(toy(method="sft", steps=2, together=together), tmp_path / str(together), quiet=True)
        logs.append(
            [
                {k: r[k] for k in ("step", "loss", "grad_norm")}
                for r in read_log(tmp_path / str(together) / "log.jsonl")
            ]
        )
    same(*logs, tolerance=1e-5)


def test_sft_names_the_sample_of_a_loss_that_is_not_finite(tmp_path, monkeypatch):
    monkeypatch.setattr("stvg_nb.train.toy_rows", lambda *a: two_clips()[0][:1])
    profile = toy(method="sft", steps=2, prompts=1, together=1)
    trainer = make_trainer(
        profile.train, profile, load_rows(profile, profile.train), "random", tmp_path
    )
    trainer.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="sample clip1"):
        trainer.train()


# ---- runs ----
@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STVG_RUNS", str(shared_runs(tmp_path_factory)))
        folder = tmp_path_factory.mktemp("chain") / "run"
        return folder, train(toy(method="sft_then_grpo", steps=3, base="toy"), folder, quiet=True)


def test_sft_then_grpo_is_a_chain(chain, tmp_path):
    folder, result = chain
    sft, grpo = (read_json(folder / name / "run.json") for name in ("sft", "grpo"))
    assert (
        result["schema"] == "stvg.train/1"
        and result["checkpoint"] == str(folder / "grpo/final")
        and [s["method"] for s in result["stages"]] == ["sft", "grpo"]
    )
    assert (sft["models"][0]["name"], grpo["models"][0]["name"]) == ("toy", "sft/final") and grpo[
        "models"
    ][0]["trained_here"]
    assert grpo["models"][0]["revision"] == config_hash(
        [sha256_file(folder / "sft/final/model.safetensors")]
    )
    assert sft["status"] == grpo["status"] == "finished" and sft["steps"] == grpo["steps"] == 3
    assert (
        not list(folder.rglob("training_args.bin"))
        or not (folder / "grpo/final/training_args.bin").exists()
    )


def test_the_log_has_every_term(chain):
    log = read_log(chain[0] / "grpo/log.jsonl")
    assert [r["step"] for r in log] == [1, 2, 3] and all(r["of"] == 3 for r in log)
    for key in (
        "reward",
        "reward_std",
        "terms",
        "dead_groups",
        "loss",
        "grad_norm",
        "answer_tokens",
        "seconds",
        "peak_gb",
        "learning_rate",
        "epoch",
    ):
        assert key in log[0], key
    assert (
        set(log[0]["terms"]) == {"clip"}
        and set(log[0]["dead_groups"]) == {"clip", "total"}
        and log[0]["terms"]["clip"] == log[0]["reward"]
    )
    assert list((chain[0] / "grpo/tensorboard").glob("events*"))


def test_a_finished_run_is_kept(chain, capsys):
    folder, result = chain
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    again = train(toy(method="sft_then_grpo", steps=3, base="toy"), folder)
    assert (
        again["status"] == "kept"
        and again["config_hash"] == result["config_hash"]
        and "kept" in capsys.readouterr().err
    )
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}


@pytest.mark.parametrize(
    "settings, names",
    [
        ({"seed": 7}, "other settings"),
        ({"base": "random"}, "other base"),
        ({"data": "tests.test_train.other_rows"}, "other data"),
    ],
)
def test_another_run_in_the_folder_is_refused(settings, names, chain, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(InputError, match=names):
        train(
            toy(**dict(method="sft_then_grpo", steps=3, base="toy") | settings),
            chain[0],
            quiet=True,
        )


def other_rows(profile, config):
    return [dict(r, key=f"x{r['key']}") for r in two_clips()[0]]


def test_the_card_says_what_a_stranger_needs(chain):
    for place in ("grpo/final", "grpo/checkpoint-2", "sft/checkpoint-3"):
        card = (chain[0] / place / "README.md").read_text()
        run = read_json(chain[0] / place.split("/")[0] / "run.json")
        for text in (
            run["config_hash"][:19],
            run["data"][0]["sha256"][:19],
            f"{run['data'][0]['n_samples']} samples",
            run["models"][0]["revision"][:19],
            "| seed | 42 |",
            "## Limits",
            "## Licence",
            "Apache-2.0",
            "numbers mean nothing",
            "procedural",
        ):
            assert text in card, text
        assert "/tmp" not in card and str(ROOT) not in card
    assert (
        "step 2" in (chain[0] / "grpo/checkpoint-2/README.md").read_text()
        and "GRPO" in (chain[0] / "grpo/final/README.md").read_text()
    )


def test_card_of_a_real_curve():
    log = [dict(step=i + 1, reward=i / 10 + i % 2 / 50) for i in range(30)]
    facts = dict(
        method="grpo",
        profile="tiny",
        train=dict(seed=1, lora={}, frozen_tower=False),
        data=[
            dict(
                name="a",
                split="train",
                n_samples=3,
                sha256="sha256:1",
                synthetic=False,
                licence="CC",
            )
        ],
        models=[dict(name="b", revision="r")],
        rewards=["x.reward_time"],
        marks=True,
        config_hash="sha256:2",
        git=dict(revision=None, dirty=False),
    )
    card = model_card(facts, log, 30)
    assert (
        say_ends(curve_ends(log)) in card
        and "it rose" in card
        and "numbers mean nothing" not in card
        and "real video" not in card
    )


@pytest.mark.parametrize("lora", [False, True])
def test_checkpoints_load_with_from_pretrained(lora, tmp_path):
    "Same logits as the model in the trainer; an adapter also merged."
    from transformers import AutoModelForImageTextToText, AutoProcessor

    profile = toy(method="grpo", steps=2, **dict(lora={"r": 4}, merge=True) if lora else {})
    rows = load_rows(profile, profile.train)
    trainer = make_trainer(profile.train, profile, rows, "random", tmp_path)
    trainer.train()
    prompts = trainer.build(rows)
    answers = [[trainer.processing_class.tokenizer("12")["input_ids"]]] * 2

    def say(model):
        with torch.no_grad():
            return shared_logps(share_prefix(correct_positions(model)), prompts, answers)

    want = say(trainer.model)
    trainer.card = lambda step: "card"
    save_final(trainer, tmp_path, merge=lora)
    for name in ["final", "merged"][: 1 + lora]:
        torch.testing.assert_close(
            say(AutoModelForImageTextToText.from_pretrained(tmp_path / name)),
            want,
            atol=1e-5,
            rtol=0,
        )
        assert (
            AutoProcessor.from_pretrained(tmp_path / name).tokenizer.eos_token == "<|im_end|>"
            and (tmp_path / name / "README.md").read_text() == "card"
        )
    assert (tmp_path / "final/adapter_config.json").is_file() == lora


def test_a_run_goes_on_from_an_adapter(tmp_path):
    "A new adapter is laid over what the first one learned, not in its place."
    profile = toy(method="sft", steps=2, lora={"r": 4}, sft={"learning_rate": 0.05})
    rows = load_rows(profile, profile.train)
    first = make_trainer(profile.train, profile, rows, "random", tmp_path)
    first.train()
    first.card = lambda step: "card"
    save_final(first, tmp_path, merge=True)
    want = dict(load_base(str(tmp_path / "merged"), profile.train)[0].named_parameters())
    untrained = dict(load_base("random", profile.train, folder=tmp_path)[0].named_parameters())
    second = make_trainer(
        profile.train, profile, rows, str(tmp_path / "final"), tmp_path / "second"
    )
    seen = {
        n.removeprefix("base_model.model.").replace(".base_layer", ""): p
        for n, p in second.model.named_parameters()
        if "lora_" not in n
    }
    assert set(seen) == set(want) and any("lora_" in n for n, _ in second.model.named_parameters())
    for n, p in want.items():
        torch.testing.assert_close(seen[n].float(), p.float(), atol=1e-6, rtol=0)
    assert any(not torch.equal(p, untrained[n]) for n, p in want.items())


def test_time_alone_needs_no_marks(puppets, tmp_path):
    "GRPO without marks: plain video, the VTG question, paid for the time, no ID in the log."
    profile, *_ = puppets
    profile = load_profile("smoke", RANDOM | {"train.variant": "temporal"})
    result = train(profile, tmp_path / "run", quiet=True)
    run, (record,) = read_json(tmp_path / "run/run.json"), read_log(tmp_path / "run/log.jsonl")
    row = load_rows(profile, profile.train, quiet=True)[0]
    assert (
        run["rewards"] == ["stvg_nb.rewards.reward_time"]
        and not run["marks"]
        and set(record["terms"]) == {"time"}
    )
    assert (
        "id_accuracy" not in record
        and record["failed"] in (0, 0.5, 1)
        and "tiou" in record
        and result["steps"] == 1
    )
    text = row["prompt"][0]["content"][0]["text"]
    assert (
        row["video"]["database"] is None
        and "number at its centre" not in text
        and "Target ID" not in text
        and json.loads(row["target"])["task"] == "vtg"
    )


def test_r1_run_logs_what_the_answers_were(puppets, tmp_path):
    profile, *_ = puppets
    train(profile, tmp_path / "run", quiet=True)
    (record,) = read_log(tmp_path / "run/log.jsonl")
    assert set(record["terms"]) == {"time", "id", "format"} and set(record["dead_groups"]) == {
        "time",
        "id",
        "format",
        "total",
    }
    for key in (
        "kl",
        "failed",
        "complete",
        "id_accuracy",
        "tiou",
        "answer_tokens",
        "cut_off",
        "reward_std",
    ):
        assert record[key] is not None, key
    assert read_json(tmp_path / "run/run.json")["data"][0]["synthetic"] is True


def test_pipeline_numbers_serve_too(monkeypatch, tmp_path):
    "Detected and tracked instead of exact: the vote names the answer in the new database."
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    numbered = {"train.numbering": "pipeline", "train.samples": 1, "train.method": "sft"}
    numbered |= {"prompting.detector": "motion", "prompting.tracker": "flow"}
    profile = load_profile("smoke", RANDOM | numbered)
    samples, _ = source_samples(profile, profile.train, quiet=True)
    texts = [p.read_text() for p in (tmp_path / "runs/datasets").glob("train-*.jsonl")]
    heads = [json.loads(text.splitlines()[0]) for text in texts if text]
    (header,) = [h for h in heads if "made_of" in h]  # beside it lies what was left out
    assert header["made_of"]["numbering"] == "pipeline"
    counts = header["counts"]
    assert counts["kept"] + sum(counts["left_out"].values()) == 1
    assert len(samples) == counts["kept"]
    for sample in samples:
        found = open_database(sample.database, sample.video)
        assert "exact" not in str(sample.database) and set(sample.answer_ids) <= set(found.ids)
    rows = load_rows(profile, profile.train, quiet=True)
    assert [r["key"] for r in rows] == [s.key for s in samples]


@pytest.mark.parametrize("name", ["SLURM_NODEID", "NODE_RANK", "MACHINE_RANK"])
def test_only_the_first_machine_takes_the_lock(name, tmp_path, monkeypatch):
    "On the others the folder is held already, and the launch waits for the first machine."
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    two = toy(machines=2, processes=2, base="embedded:base")
    for number, says in (("1", "MASTER_ADDR"), ("0", "another process works on it")):
        monkeypatch.setenv(name, number)
        with locked(tmp_path / "run"), pytest.raises(InputError, match=says):
            train(two, tmp_path / "run", quiet=True)


LOSSES = {
    "Dr.GRPO": {"type": "dr_grpo", "scale": "none"},
    "DAPO": {"type": "dapo", "epsilon_high": 0.28, "mask_truncated": True},
    "GSPO": {"level": "sequence"},
    "CISPO": {"type": "cispo", "epsilon_high": 5.0},
    "SAPO": {"type": "sapo"},
    "GDPO": {"aggregate": "normalize_then_sum"},
}


@pytest.mark.parametrize("name", LOSSES)
def test_variants_of_the_loss_run_two_steps(name, tmp_path):
    "Each from a profile; the run says which it was, and another one is another run."
    settings = dict(method="grpo", steps=2, loss=LOSSES[name])
    result = train(toy(**settings), tmp_path / "run", quiet=True)
    log = read_log(tmp_path / "run/log.jsonl")
    assert result["steps"] == 2 and all(r["loss"] is not None for r in log)
    assert read_json(tmp_path / "run/run.json")["train"]["loss"] == LOSSES[name]
    with pytest.raises(InputError, match="other settings"):
        train(toy(**settings | dict(loss={})), tmp_path / "run", quiet=True)


def test_a_half_written_base_is_no_foreign_file(tmp_path):
    "A process that was killed leaves one behind."
    (tmp_path / "run/.base-toy.77").mkdir(parents=True)
    result = train(toy(method="sft", steps=2, base="toy"), tmp_path / "run", quiet=True)
    assert result["status"] == "finished"


# ---- several processes ----
@pytest.mark.slow
def test_dry_run_through_the_launcher(tmp_path):
    "Profile a100-dry: two CPU processes started and followed, checkpoint loads; then kept."
    from transformers import AutoModelForImageTextToText

    profile, records = load_profile("a100-dry"), []
    result = train(profile, tmp_path / "run", records.append)
    assert (
        load_profile(tmp_path / "run/config.yaml").train == profile.train
        and profile.train.processes == 2
    )
    assert (
        [r["step"] for r in records] == [1, 2]
        and result["status"] == "finished"
        and result["steps"] == 2
    )
    log = (tmp_path / "run/launch.log").read_text()
    assert log.count("preflight: longest sample") == 1 and sorted(
        p.name for p in (tmp_path / "run/checkpoint-2").glob("generation-*")
    ) == ["generation-0.pt", "generation-1.pt"]
    assert (
        AutoModelForImageTextToText.from_pretrained(result["checkpoint"]).config.model_type
        == "qwen2_5_vl"
    )
    with pytest.raises(InputError, match="other settings"):
        train(load_profile("a100-dry", {"train.beta": 0.0}), tmp_path / "run")


RUN_CELLS = (
    "profile = None",
    "given = {",
    "stand_in =",
    "folder = Path(out)",
)  # starts of the cells that run
NAMES = """import json
import os
from pathlib import Path
from stvg_nb.foundations.needs import require
from stvg_nb.foundations.settings import load_profile
from stvg_nb.runlog import LivePlot, read_log
from stvg_nb.train import TOY, base_available, default_folder, train"""


@pytest.mark.slow
def test_notebook_fails_when_its_processes_fail(tmp_path):
    "The cells that run, with processes that are refused their data: they stop with the reason."
    nb = read_json(ROOT / "nbs/05_train.ipynb")
    nb["cells"] = [c for c in nb["cells"] if "".join(c["source"]).startswith(RUN_CELLS)]
    assert len(nb["cells"]) == len(RUN_CELLS)
    names = dict(cell_type="code", metadata={}, outputs=[], execution_count=None, id="names")
    nb["cells"].insert(1, names | dict(source=NAMES))
    write_text(tmp_path / "run.ipynb", json.dumps(nb))
    write_text(tmp_path / "bad.jsonl", json.dumps(dict(GOOD, video="gone.mp4")))
    given = dict(profile="a100-dry", data=tmp_path / "bad.jsonl", out=tmp_path / "launched")
    options = [x for k, v in given.items() for x in ("-p", k, v)]
    done = papermill(tmp_path / "run.ipynb", tmp_path / "out.ipynb", *options)
    assert done.returncode != 0
    assert "bad.jsonl, line 1: field 'video' is 'gone.mp4'" in done.stderr, done.stderr[-2000:]
    assert (tmp_path / "launched/launch.log").is_file()
    assert not (tmp_path / "launched/final").exists()


def test_a_hanging_launch_is_ended(tmp_path):
    write_text(tmp_path / "launch.log", "waiting for the others\n")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(RuntimeError, match="hangs: no step and no word for 0.2 s"):
        follow(process, tmp_path, patience=0.2, poll=0.05)
    process.kill()
    process.wait()


@pytest.mark.parametrize("kind", LAUNCHES[1:])
def test_launch_files_are_what_accelerate_reads(kind):
    "Through accelerate's parser and environment, as `accelerate launch` would."
    from accelerate.commands import launch as A
    from accelerate.utils import launch as L

    config = TrainConfig(processes=8, launch=kind)
    command = launch_command(config, "cuda", "c.yaml", "run", program="stvg_nb.train")
    args, defaults, _ = A._validate_launch_command(
        A.launch_command_parser().parse_args(command[3:])
    )
    assert (
        command[1:3] == ["-m", "accelerate.commands.launch"]
        and args.module
        and args.training_script == "stvg_nb.train"
        and args.num_processes == 8
        and defaults.mixed_precision == "bf16"
    )
    if kind.startswith("zero"):
        args.deepspeed_fields_from_accelerate_config = ""
        _, env = L.prepare_deepspeed_cmd_env(args)
        assert (
            args.use_deepspeed
            and env["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == kind[-1]
            and env["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == str(kind == "zero3").lower()
        )
        assert kind == "zero2" or env["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    else:
        env = L.prepare_multi_gpu_env(args)
        assert env["ACCELERATE_MIXED_PRECISION"] == "bf16" and (
            kind == "ddp"
            or (args.use_fsdp, env["FSDP_VERSION"], env["FSDP_STATE_DICT_TYPE"])
            == (True, "2", "FULL_STATE_DICT")
        )


def test_layers_named_for_fsdp_exist():
    import yaml
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as Q

    names = yaml.safe_load(launch_file("fsdp2").read_text())["fsdp_config"][
        "fsdp_transformer_layer_cls_to_wrap"
    ].split(",")
    model, _ = made_here("random")
    assert {type(m).__name__ for m in model.modules()} >= set(names) and all(
        hasattr(Q, n) for n in names
    )


# ---- the notebook ----
def papermill(*argv):
    command = [
        str(Path(sys.executable).with_name("papermill")),
        *map(str, argv),
        "--no-progress-bar",
        "-k",
        "python3",
    ]
    return subprocess.run(
        command,
        input="",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=3600,
        env=os.environ | {"JUPYTER_PLATFORM_DIRS": "1"},
    )


def fingerprint(folder):
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.glob("*"))
        if p.is_file()
    }


@pytest.mark.slow
def test_papermill_never_writes_nbs(tmp_path):
    "The documented command, stdin a pipe: the run trains, writes where asked, nbs/ is as before."
    before = fingerprint(ROOT / "nbs")
    done = papermill(
        "nbs/05_train.ipynb",
        tmp_path / "05_train.ipynb",
        "-p",
        "profile",
        "smoke",
        "-p",
        "out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert fingerprint(ROOT / "nbs") == before
    assert (
        (tmp_path / "05_train.ipynb").is_file()
        and read_json(tmp_path / "run/result.json")["status"] == "finished"
        and list((tmp_path / "run").rglob("README.md"))
    )


def test_command_prints_one_object(tmp_path, capsys):
    given = [x for k, v in TOY.items() for x in ("--set", f"{k}={json.dumps(v)}")]
    argv = [
        "train",
        "--profile",
        "smoke",
        "--method",
        "sft",
        "--steps",
        "2",
        "--output",
        str(tmp_path / "run"),
        "--json",
        "--seed",
        "5",
        *given,
    ]
    assert stvg(argv) == 0
    result = json.loads(capsys.readouterr().out)
    assert (
        result["schema"] == "stvg.train/1"
        and result["status"] == "finished"
        and read_json(tmp_path / "run/run.json")["seed"] == 5
    )
    assert stvg(argv) == 0 and json.loads(capsys.readouterr().out)["status"] == "kept"
    assert stvg([*argv[:6], "3", *argv[7:]]) == 2 and "other settings" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run")


if __name__ == "__main__":
    killed_run(Path(sys.argv[1]), *sys.argv[2:])
