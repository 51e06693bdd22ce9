"""Weights in parts on several processes: the numbers and files of one process on the same batch.

Called as a script it is one process of such a run."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import pytest
import torch
from safetensors.torch import load_file

from stvg_nb.foundations.files import read_json, write_json
from stvg_nb.foundations.settings import load_profile
from stvg_nb.launch import launch_command, what_failed
from stvg_nb.runlog import read_log
from stvg_nb.train import TOY, train
from stvg_nb.train_settings import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.sharding
ZERO = ["zero3", "zero2"]  # DeepSpeed's
KINDS = ["fsdp2", *ZERO, "ddp"]
LORA = dict(method="sft", lora={"r": 4}, merge=True, beta=0.0)


def settings(kind, extra):
    "Two prompts a step, in one process or in two."
    own = dict(base="toy", max_steps=3, save_steps=1, learning_rate=1e-3, beta=0.04, sft={})
    own |= dict(prompts_per_step=2, prompts_per_pass=2, num_generations=4)
    if kind != "one":
        own |= dict(processes=2, prompts_per_step=1, prompts_per_pass=1, preflight=True)
    return TOY | {f"train.{k}": v for k, v in (own | extra).items()}


def cards_of_a_cpu(kind):
    "Let accelerate and DeepSpeed shard on processors as on cards; every weight, however small."
    from accelerate import DeepSpeedPlugin, DistributedType, PartialState

    if kind == "fsdp2":
        begin = PartialState.__init__

        def start(self, *args, **kwargs):
            begin(self, *args, **kwargs)
            if self.distributed_type == DistributedType.MULTI_CPU:
                self.distributed_type = DistributedType.MULTI_GPU

        PartialState.__init__ = start
    if kind in ZERO:
        exchange = import_module("deepspeed.comm.torch")  # as an attribute it is torch itself
        exchange.build_shm_op = lambda: None  # a kernel for processors, which needs a compiler
        after = DeepSpeedPlugin.__post_init__

        def whole(self):
            after(self)
            for config in (self.deepspeed_config, self.hf_ds_config.config):
                config["zero_optimization"]["stage3_param_persistence_threshold"] = 0

        DeepSpeedPlugin.__post_init__ = whole


def one_process(kind, folder, extra):
    "A process of a run; what it draws greedily is kept, what it is trained on is given."
    import transformers

    from stvg_nb import train_setup
    from stvg_nb.trainer import Rollouts

    cards_of_a_cpu(kind)
    if kind in ZERO:  # transformers takes DeepSpeed for cards only
        config, arguments = train_setup.grpo_config, transformers.TrainingArguments
        asked = dict(use_cpu=False, bf16=False, ddp_backend="gloo")
        train_setup.grpo_config = lambda f, **given: config(f, **given | asked)
        transformers.TrainingArguments = lambda f, **given: arguments(f, **given | asked)
    draw, folder = Rollouts._sample, Path(folder)

    def fixed(self, runs):
        self.generation_config.do_sample = False
        drawn, prompts = draw(self, runs), [p for some, n in runs for p in some for _ in range(n)]
        tokenizer = self.processing_class.tokenizer
        line = dict(step=self.state.global_step, shards=shards(self.model))
        line["drawn"] = sorted({(p.key, str(d)) for p, d in zip(prompts, drawn)})
        if not self.generation_config.min_new_tokens:  # not of the preflight
            with open(folder.with_suffix(f".drawn-{os.environ.get('RANK', 0)}"), "a") as f:
                f.write(json.dumps(line) + "\n")
        end = tokenizer.eos_token_id
        return [tokenizer("12"[i % 2])["input_ids"] + [end] for i in range(len(prompts))]

    Rollouts._sample = fixed
    train(load_profile("smoke", settings(kind, extra)), folder, quiet=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def shards(model):
    "How many weights lie in parts on the processes."
    from torch.distributed.tensor import DTensor

    return sum(
        isinstance(p, DTensor) or getattr(p, "ds_persist", True) is False
        for p in model.parameters()
    )


def start(kind, folder, extra=None):
    from accelerate.commands import launch as A
    from accelerate.utils import launch as L

    env, command = {"DS_ACCELERATOR": "cpu"}, [sys.executable]
    if kind != "one":
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    if kind in ("fsdp2", *ZERO):
        config = TrainConfig(processes=2, launch=kind)
        told = launch_command(config, "cuda", "c.yaml", "run", program="stvg_nb.train")
        args, *_ = A._validate_launch_command(A.launch_command_parser().parse_args(told[3:]))
        args.deepspeed_fields_from_accelerate_config = ""
        made = L.prepare_multi_gpu_env(args)
        if kind in ZERO:
            made = L.prepare_deepspeed_cmd_env(args)[1]
        env |= {k: v for k, v in made.items() if k.startswith(("ACCELERATE_", "FSDP_"))}
        env |= {"ACCELERATE_MIXED_PRECISION": "no"}
    command += [__file__, kind, str(folder), json.dumps(extra or {})]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=3600, env=os.environ | env
    )
    assert done.returncode == 0, what_failed(done.stderr)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    start("one", folder)
    return folder


def drawn(folder):
    "(step, clip, tokens) of everything that was drawn, by whichever process."
    lines = [json.loads(x) for p in folder.parent.glob("run.drawn-*") for x in open(p)]
    return sorted({(x["step"], *d) for x in lines for d in x["drawn"]}), lines


def weights(folder):
    return load_file(folder / "model.safetensors")


def compare(a, b, tolerance):
    logs = [read_log(f / "log.jsonl") for f in (a, b)]
    assert [r["step"] for r in logs[0]] == [r["step"] for r in logs[1]] == [1, 2, 3]
    for x, y in zip(*logs):
        for key in {"loss", "grad_norm", "kl", "reward"} & x.keys():
            assert abs(x[key] - y[key]) <= tolerance * max(1, abs(x[key])), (key, x, y)


def apart(a, b, base):
    "How far two trained models lie apart, as a share of the way that they went."
    gap = sum((a[k] - b[k]).double().square().sum() for k in a)
    way = sum((a[k] - base[k]).double().square().sum() for k in a)
    return float((gap / way).sqrt())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_shared_out_is_one_process_on_the_same_batch(kind, one, tmp_path):
    "Loss, KL, gradient norm, weights after three steps, greedy rollouts; then killed and resumed."
    folder = tmp_path / "run"
    start(kind, folder)
    compare(one, folder, 1e-5)
    assert abs(read_log(folder / "log.jsonl")[0]["kl"]) < 1e-7  # the reference is the base
    mine, lines = drawn(folder)
    assert mine == drawn(one)[0]
    partitioned = min(x["shards"] for x in lines)
    assert partitioned > 20 if kind in ("zero3", "fsdp2") else partitioned == 0
    a, b = (weights(f / "final") for f in (one, folder))
    assert a.keys() == b.keys()
    assert apart(a, b, weights(one / "base-toy")) < 1e-2
    shutil.rmtree(folder / "checkpoint-3")
    shutil.rmtree(folder / "final")
    write_json(folder / "run.json", read_json(folder / "run.json") | dict(status="running"))
    start(kind, folder)
    compare(one, folder, 1e-5)
    c = weights(folder / "final")
    assert max((b[k] - c[k]).abs().max().item() for k in b) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_merged_from_what_was_saved(kind, tmp_path):
    "LoRA and merge with weights in parts: the merged model is base and adapter, whole."
    folder = tmp_path / "run"
    start(kind, folder, LORA)
    merged = weights(folder / "merged")
    base = weights(folder / "base-toy")
    moved = {k for k in merged if not torch.equal(merged[k], base[k])}
    assert merged.keys() == base.keys() and moved
    assert all(re.search(r"\.(q|k|v|o|gate|up|down)_proj\.", k) for k in moved)
    assert not any("visual" in k for k in moved)


if __name__ == "__main__":
    one_process(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
