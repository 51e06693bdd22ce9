"""GRPO with video: what needs whole training runs, several processes or kills.

Called as a script it is the run that is killed or spread."""

import contextlib
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import pytest
import torch
import transformers
from killed import ends_at
from packaging.version import Version

from stvg_nb.foundations.files import InputError, read_json, write_json
from stvg_nb.grpo import (
    encode_features,
    group_advantages,
    grpo_loss,
    repeated_logps,
    rollout,
    share_prefix,
    shared_logps,
)
from stvg_nb.qwen import (
    CHECKED_RATES,
    VISION_TOKENS,
    check_positions,
    correct_positions,
    encode_clip,
    encode_prompt,
    toy_model,
    toy_processor,
    vision_language,
)
from stvg_nb.readers import two_clips
from stvg_nb.resume import last_checkpoint
from stvg_nb.trainer import grpo_config, toy_policy
from stvg_nb.video_trainers import VideoGRPOTrainer, VideoSFTTrainer

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent
BASE = dict(
    max_completion_length=3,
    learning_rate=1e-3,
    lr_scheduler_type="constant",
    per_device_train_batch_size=16,
    gradient_checkpointing=False,
    beta=0.0,
    save_strategy="no",
    disable_tqdm=True,
)


def make(folder, policy=None, read=None, reward=None, data=None, ours=None, **settings):
    from datasets import Dataset

    rows, read_toy, id_right = two_clips()
    model, processor = policy or toy_policy()
    return VideoGRPOTrainer(
        model,
        reward or id_right,
        grpo_config(folder, **BASE | settings),
        processing_class=processor,
        train_dataset=Dataset.from_list(data or rows),
        read_video=read or read_toy,
        **ours or {},
    )


def run(trainer, resume=None):
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
        trainer.train(resume_from_checkpoint=resume)
    return [x for x in trainer.state.log_history if "loss" in x]


def some_prompts(processor, seed, groups=3):
    "Prompts of different text, size, length and rate; the first and the last ask about one clip."
    rng, out = np.random.default_rng(seed), []
    for g in range(groups):
        frames = rng.integers(
            0,
            256,
            (
                int(rng.integers(3, 9)),
                28 * int(rng.integers(1, 4)),
                28 * int(rng.integers(1, 4)),
                3,
            ),
            np.uint8,
        )
        video = (
            encode_clip(processor, frames, float(rng.choice(CHECKED_RATES)))
            if g < groups - 1
            else out[0].videos[0]
        )
        ask = [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Who? " * int(rng.integers(1, 6))},
                    {"type": "video"},
                ],
            }
        ]
        out.append(encode_prompt(processor, ask, video, key=str(g)))
    return out, [
        [
            rng.integers(0, 256, int(n)).tolist()
            for n in rng.integers(1, 14, int(rng.integers(1, 6)))
        ]
        for _ in range(groups)
    ]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_shared_equals_repeated(seed, lora, checkpointing):
    "Log-probabilities to 1e-5 and gradients to 1e-4 in relative norm, every parameter that is trained, the tower's included."
    model, processor = (
        correct_positions(toy_model(hidden=64, layers=3, spread=0.1, seed=seed)),
        toy_processor(),
    )
    if lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model,
            LoraConfig(
                r=4,
                target_modules=["q_proj", "v_proj", "down_proj", "qkv"],
                init_lora_weights=False,
            ),
        )
        model.enable_input_require_grads()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    prompts, answers = some_prompts(processor, seed)
    results = []
    for way in (repeated_logps, shared_logps):
        if way is shared_logps:
            share_prefix(model)  # the plain way ran in an untouched model
        model.zero_grad()
        out = way(model, prompts, answers)
        torch.manual_seed(0)
        (out * torch.randn_like(out)).sum().backward()
        results.append(
            (
                out.detach(),
                {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None},
            )
        )
    (a, ga), (b, gb) = results
    assert (a - b).abs().max() < 1e-5 and set(ga) == set(gb) and any("visual" in n for n in ga)
    floor = 1e-6 * max(g.norm() for g in ga.values())
    assert (
        max(((gb[n] - g).norm() / g.norm()).item() for n, g in ga.items() if g.norm() > floor)
        < 1e-4
    )


def test_empty_and_one_token_answers():
    model, processor = share_prefix(correct_positions(toy_model())), toy_processor()
    prompts, _ = some_prompts(processor, 3)
    out = shared_logps(model, prompts, [[[], [5]], [[7, 8]], [[]]])
    assert out.shape == (4, 2) and out[0].tolist() == out[3].tolist() == [0, 0] and out[1, 1] == 0
    torch.testing.assert_close(
        out[1:3], repeated_logps(model, prompts[:2], [[[5]], [[7, 8]]]), atol=1e-5, rtol=0
    )


def watch(base, note):
    "Calls note(input_ids, positions) for every pass of a model."
    ids = []
    base.register_forward_pre_hook(
        lambda m, args, kwargs: ids.append(kwargs["input_ids"]), with_kwargs=True
    )
    last = lambda m, args, kwargs, out: note(ids[-1], (args + tuple(kwargs.values()))[-1])
    base.language_model.rotary_emb.register_forward_hook(last, with_kwargs=True)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "n,fps", [(8, r) for r in CHECKED_RATES] + [(6, 6 / 20), (14, 768 / 400), (7, 1.28)]
)
def test_seconds_on_every_route(tmp_path, n, fps, frozen):
    "Rollout, old, reference and train passes, from pixels and from cached features; the last three are capped or odd frame counts."
    model, processor = toy_policy(steps=0)
    model.save_pretrained(tmp_path / "base")
    policy = type(model).from_pretrained(tmp_path / "base"), processor
    frames = np.random.default_rng(0).integers(0, 256, (n, 28, 56, 3), np.uint8)
    trainer = make(
        tmp_path,
        policy,
        read=lambda row: (frames, fps),
        max_steps=2,
        num_iterations=2,
        beta=0.04,
        ours=dict(frozen_tower=True, feature_cache=str(tmp_path / "features")) if frozen else {},
    )
    seen = {name: [] for name in ("policy", "reference")}
    for name, m in (("policy", trainer.model), ("reference", trainer.ref_model)):
        watch(vision_language(m), lambda ids, p, name=name: seen[name].append((ids, p)))
    run(trainer)
    want = [math.floor(k * (2 / fps) * 2) for k in range((n + 1) // 2) for _ in range(2)]
    prompts, passes = 0, {name: 0 for name in seen}
    for name, calls in seen.items():
        for ids, positions in calls:
            for b in range(ids.shape[0]):
                runs = (ids[b] == model.config.video_token_id).nonzero()[:, 0].split(len(want))
                for rows in runs:
                    if not len(rows):
                        continue
                    at = positions[0, b, rows]
                    assert (at - at[0]).tolist() == want, name
                    prompts += 1
            passes[name] += bool((ids == model.config.video_token_id).any())
    assert (
        passes == {"policy": 1 + 1 + 2, "reference": 1} and prompts == 2 * 5
    )  # rollout, old, two updates, reference; two prompts each


def test_uncorrected_model_is_refused():
    model = toy_model()
    if Version(transformers.__version__) < Version("5.18"):  # later ones are right by themselves
        with pytest.raises(InputError, match="wrong seconds"):
            check_positions(model)
    check_positions(correct_positions(model))
    with pytest.raises(InputError, match="without its seconds"):
        model.model.get_rope_index(
            torch.tensor([[262]]),
            mm_token_type_ids=torch.tensor([[2]]),
            video_grid_thw=torch.tensor([[1, 2, 2]]),
        )
    model.model.compute_3d_position_ids = lambda **k: torch.arange(10).expand(
        3, 1, -1
    )  # a version that goes another way
    with pytest.raises(InputError, match="wrong seconds in forward"):
        correct_positions(model)


def test_step_equals_trl(tmp_path, monkeypatch):
    "Loss, KL and gradient norm of whole steps against TRL's own trainer, at the benchmark's set-up in small."
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    sys.modules.pop("grpo", None)
    import grpo as bench

    small = dict(SHAPE=dict(hidden=64, layers=2, spread=0.05), SIDE=56, ANSWER=12)
    for name, value in small.items():
        monkeypatch.setattr(bench, name, value)
    _, gap, rows = bench.full_step("cpu", 3)
    assert max(gap.values()) < 1e-5, gap
    assert rows["other"] == 8 * rows["ours"], (
        rows
    )  # rollout, reference and train pass: 8 answers each


def test_vision_tokens_stay_banned_next_to_other_settings(tmp_path):
    trainer = make(
        tmp_path, max_steps=1, generation_kwargs=dict(suppress_tokens=[9], temperature=1.0)
    )
    banned = trainer.processing_class.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    assert len(set(banned)) == 4 and set(trainer.generation_config.suppress_tokens) == {9, *banned}
    log = run(trainer)
    assert log[0]["vision_tokens_cut"] == 0


def test_long_rollouts_of_unlike_prompts_are_those_of_generate():
    "Prompts of different length beside each other, answers longer than the first room of their cache, a prompt asked twice."
    from transformers import GenerationConfig

    processor = toy_processor()
    model = share_prefix(
        correct_positions(toy_model(hidden=64, layers=3, spread=0.2, seed=5))
    ).eval()
    prompts, _ = some_prompts(processor, 5)
    config = GenerationConfig(
        max_new_tokens=150, min_new_tokens=150, do_sample=False, pad_token_id=256, eos_token_id=258
    )
    rows = rollout(model, prompts, 2, config)
    assert rows.shape == (2 * len(prompts), 150) and torch.equal(rows[::2], rows[1::2])
    for prompt, row in zip(prompts, rows[::2]):
        (video,) = prompt.videos
        ids = torch.tensor([prompt.ids])
        plain = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == model.config.video_token_id) * 2,
            pixel_values_videos=video.pixels,
            video_grid_thw=torch.tensor([video.grid]),
            second_per_grid_ts=torch.tensor([video.seconds], dtype=torch.float64),
            generation_config=config,
        )
        assert torch.equal(plain[0, len(prompt.ids) :], row)


def test_features_serve_rollout_reference_and_evaluation(tmp_path):
    "One run fills the cache, evaluation reads it; answers from features are the answers from pixels."
    model, processor = toy_policy()
    rows, read, _ = two_clips()
    trainer = make(
        tmp_path,
        (model, processor),
        max_steps=1,
        ours=dict(frozen_tower=True, feature_cache=str(tmp_path / "f")),
    )
    run(trainer)
    assert trainer._features.misses == 2
    trainer.read_video = None
    cached = trainer.build([dict(r) for r in rows])
    pixels = [encode_prompt(processor, r["prompt"], encode_clip(processor, *read(r))) for r in rows]
    torch.testing.assert_close(
        cached[0].videos[0].features, encode_features(model, pixels[0].videos[0]).features
    )
    config = trainer.generation_config
    config.do_sample = False
    assert torch.equal(rollout(model, cached, 1, config), rollout(model, pixels, 1, config))


def test_groups_split_over_batches_and_accumulation(tmp_path):
    "Whole groups, halves of groups and single rows give the same gradient."
    model, processor = toy_policy()
    model.save_pretrained(tmp_path / "base")
    norms = []
    for size in (16, 4, 1):
        policy = type(model).from_pretrained(tmp_path / "base"), processor
        log = run(
            make(
                tmp_path,
                policy,
                max_steps=2,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=16 // size,
            )
        )
        norms.append([x["grad_norm"] for x in log])
    for other in norms[1:]:
        np.testing.assert_allclose(other, norms[0], rtol=1e-5)


# ---- the loss is the loss ---------------------------------------------------------------------------------------------------
def by_hand(trainer, inputs, rewards, old):
    "The eight lines of chapter 04 on log-probabilities of the plain way."
    sizes = inputs["completion_mask"].sum(1).tolist()
    prompts = [trainer._prompts["train"][r] for r in inputs["rows"].tolist()]
    answers = [[ids[:n].tolist()] for ids, n in zip(inputs["completion_ids"], sizes)]
    model = trainer.model
    logp = repeated_logps(model, prompts, answers)
    off = model.disable_adapter() if trainer.ref_model is None else contextlib.nullcontext()
    with torch.no_grad(), off:
        ref = repeated_logps(trainer.ref_model or model, prompts, answers)
    mask = (torch.arange(logp.shape[1]) < torch.tensor(sizes)[:, None]).float()
    advantages = group_advantages(torch.tensor(rewards).view(-1, 8)).flatten()
    ours = grpo_loss(logp, advantages, mask, old=old, ref=ref, beta=0.04, epsilon=0.2)
    return ours, logp.detach()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("iterations", [1, 2])
def test_the_trainer_steps_on_the_loss_of_the_paper(tmp_path, iterations, lora):
    "Value and gradient, policy and reference different, on-policy and on the second use of a batch."
    from peft import LoraConfig

    model, processor = toy_policy()
    model.save_pretrained(tmp_path / "base")
    policy = type(model).from_pretrained(tmp_path / "base"), processor
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    rewards, seen = [], []

    def noisy(completions, **_):
        rewards[:] = [len(c[0]["content"]) + i % 5 / 4 for i, c in enumerate(completions)]
        return list(rewards)

    trainer = make(
        tmp_path / "run",
        policy,
        reward=noisy,
        max_steps=4,
        num_iterations=iterations,
        beta=0.04,
        learning_rate=3e-3,
        ours=dict(peft_config=adapter) if lora else {},
    )
    torch.manual_seed(1)
    parts = [p for p in trainer.model.parameters() if p.requires_grad]
    for p in parts:  # away from the reference
        p.data += 0.05 * torch.randn_like(p)
    real, old = trainer._compute_loss, None

    def both(model, inputs):
        nonlocal old
        loss = real(model, inputs)
        old = None if trainer._step % iterations == 0 else old
        ours, logp = by_hand(trainer, inputs, rewards, old)
        moved = 0.0 if old is None else ((logp - old).exp() - 1).abs().max().item()
        old = logp if old is None else old
        a, b = (torch.autograd.grad(x, parts, retain_graph=True) for x in (loss, ours))
        gap = torch.cat([(x - y).flatten() for x, y in zip(a, b)]).norm()
        seen.append(
            (
                loss.item() - ours.item(),
                (gap / torch.cat([*map(torch.ravel, b)]).norm()).item(),
                moved,
            )
        )
        return loss

    trainer._compute_loss = both
    log = run(trainer)
    values, gradients, moved = zip(*seen)
    assert max(map(abs, values)) < 1e-5 and max(gradients) < 1e-4
    assert min(x["kl"] for x in log) > 1e-5
    assert (max(moved) > 0.2) == (iterations == 2)  # the clip is at work only on the second use


# ---- identity ---------------------------------------------------------------------------------------------------------------
def test_windows_of_one_file_have_features_of_their_own(tmp_path):
    "Two windows, several clips in one prompt, a second run: each clip has one file of features, the right one."
    film = np.random.default_rng(0).integers(0, 256, (16, 28, 56, 3), np.uint8)
    part = lambda s: (film[s : s + 4], 2.0)
    ask = lambda n: [
        {
            "role": "user",
            "content": [{"type": "video", "text": None}] * n + [{"type": "text", "text": "?"}],
        }
    ]
    data = [dict(key=f"w{s}", video="film", start=s, prompt=ask(1), answer="1") for s in (0, 8)]
    data.append(dict(key="both", video="film", start=4, prompt=ask(2), answer="1"))
    read = lambda row: part(row["start"]) if row["key"] != "both" else [part(4), part(12)]
    ours = dict(frozen_tower=True, feature_cache=str(tmp_path / "f"))
    model, processor = toy_policy(steps=0)
    trainer = make(tmp_path, (model, processor), data=data, read=read, ours=ours)
    built = trainer.build(data)
    assert len(list((tmp_path / "f").glob("*"))) == 4
    for prompt, starts in zip(built, ((0,), (8,), (4, 12))):
        for video, s in zip(prompt.videos, starts, strict=True):
            plain = encode_features(trainer.model, encode_clip(processor, *part(s)))
            torch.testing.assert_close(video.features, plain.features)
    trainer.read_video = None  # found again without a reader
    again = trainer.build(data)
    assert all(
        torch.equal(a.videos[0].features, b.videos[0].features) for a, b in zip(built, again)
    )


def test_a_changed_file_is_another_clip(tmp_path):
    "The feature cache goes by the content of a file, not by its name."
    from stvg_nb.readers import clip_identity, content_name, read_clip

    row = dict(key="a", video=str(tmp_path / "v.mp4"))
    names = []
    for content in (b"one", b"other"):
        (tmp_path / "v.mp4").write_bytes(content)
        names.append(content_name(clip_identity(read_clip, row)))
    assert names[0] != names[1] and all(n.startswith("sha256:") for n in names)


def test_sft_refuses_reserved_words_and_learns(tmp_path):
    from transformers import TrainingArguments

    rows, read, _ = two_clips()
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", max_steps=1, disable_tqdm=True
    )
    model, processor = toy_policy(steps=0)
    bad = [dict(rows[0], answer="1<|video_pad|>"), rows[1]]
    trainer = VideoSFTTrainer(model, args, bad, processing_class=processor, read_video=read)
    with pytest.raises(InputError, match=r"^clip1: holds the reserved text <\|video_pad\|>"):
        run(trainer)


# ---- learning from the video ------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_only_the_video_teaches(tmp_path, seed):
    "From chance to above 0.9 with the video; with frames shuffled between samples it stays at chance."
    _, read, _ = two_clips()
    rng, rewards = np.random.default_rng(seed), {}
    for name, source in (
        ("video", read),
        ("shuffled", lambda row: read(dict(video=str(rng.integers(1, 3))))),
    ):
        log = run(make(tmp_path, read=source, max_steps=60, learning_rate=3e-4, seed=seed))
        rewards[name] = [x["reward"] for x in log]
    assert abs(np.mean(rewards["video"][:3]) - 0.5) < 0.25
    assert np.mean(rewards["video"][-10:]) > 0.9, rewards["video"]
    assert np.mean(rewards["shuffled"][-20:]) < 0.7, rewards["shuffled"]


# ---- killed and resumed -----------------------------------------------------------------------------------------------------
def killed_run(folder, steps, moment="", nth=0):
    """The run that is killed: every step is saved.

    It ends by SIGKILL at the `nth` write of its checkpoints, or when its `nth` step is done and not
    saved yet.
    """
    from transformers import TrainerCallback

    folder = Path(folder)
    rows, read, id_right = two_clips()
    data = [
        dict(r, key=f"{r['key']}-{i}") for i in range(3) for r in rows
    ]  # 3 generations an epoch: epochs are crossed
    model, processor = toy_policy(steps=5)
    policy = type(model).from_pretrained(base_of(folder, model)), processor
    trainer = make(
        folder,
        policy,
        data=data,
        max_steps=steps,
        num_iterations=2,
        beta=0.04,
        learning_rate=1e-4,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=2,
    )

    class Mark(TrainerCallback):
        def on_step_end(self, *args, **_):
            self.steps = getattr(self, "steps", 0) + 1
            if moment == "step" and self.steps == nth:
                os.kill(os.getpid(), signal.SIGKILL)

    if moment == "write":
        ends_at(".writing/", nth)
    trainer.add_callback(Mark())
    log = run(trainer, last_checkpoint(folder))
    write_json(
        folder / "log.json",
        [
            {k: x.get(k) for k in ("step", "loss", "grad_norm", "kl", "reward", "learning_rate")}
            for x in log
        ],
    )


def base_of(folder, model):
    if not (folder / "base").is_dir():
        model.save_pretrained(folder / "base.part")
        os.replace(folder / "base.part", folder / "base")
    return folder / "base"


def in_process(folder, steps, *moment):
    words = [sys.executable, __file__, str(folder), str(steps), *map(str, moment)]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_killed_run_is_the_unbroken_run(tmp_path):
    "SIGKILL at random steps, and twice while a checkpoint is being written: same curve to 1e-6."
    steps, rng = 16, random.Random(0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    done = in_process(whole, steps)
    assert done.returncode == 0, done.stderr[-3000:]
    for moment in ("write", "step", "write", "step", "step"):
        done = in_process(broken, steps, moment, rng.randint(2, 4) if moment == "step" else 5)
        assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
        if moment == "write":
            assert any((broken / ".writing").iterdir())
    assert last_checkpoint(broken) and not (broken / "log.json").exists()
    last = in_process(broken, steps)
    assert last.returncode == 0, last.stderr[-3000:]
    a, b = read_json(whole / "log.json"), read_json(broken / "log.json")
    assert [x["step"] for x in a] == [x["step"] for x in b] == list(range(1, steps + 1))
    for x, y in zip(a, b):
        assert {k for k, v in x.items() if v is None} == {k for k, v in y.items() if v is None}
        for key in (k for k, v in x.items() if v is not None):
            assert abs(x[key] - y[key]) <= 1e-6 * max(1, abs(x[key])), (key, x, y)


# ---- several processes ------------------------------------------------------------------------------------------------------
def fixed_run(folder, rows):
    """Three steps on fixed answers, `rows` per process; the parameters afterwards. Plain SGD: Adam's first steps divide by the size of the
    gradient, so where that is rounding alone (the bias of a key) it would compare noise."""
    trainer = make(
        Path(folder) / "run",
        toy_policy(steps=5),
        max_steps=3,
        per_device_train_batch_size=rows,
        num_generations=8,
        optim="sgd",
        learning_rate=0.1,
        **dict(ddp_backend="gloo") if "WORLD_SIZE" in os.environ else {},
    )
    encode = lambda text: (
        trainer.processing_class.tokenizer(text)["input_ids"] + [trainer.eos_token_ids[0]]
    )

    def answers(*args, **kwargs):
        place = {}
        rows = [(r, place.setdefault(r, iter(range(8)))) for r in trainer._rows]
        return [encode("12"[next(i) % 3 % 2]) for _, i in rows], None

    trainer._generate_single_turn = answers
    run(trainer)
    if trainer.accelerator.is_main_process:
        torch.save(
            trainer.accelerator.unwrap_model(trainer.model).state_dict(),
            Path(folder) / "parameters.pt",
        )


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    "Two CPU processes (gloo): parameters as with one process and the same global batch, to 1e-6."
    states = []
    for n in (1, 2):
        folder = tmp_path / str(n)
        folder.mkdir()
        spread = (
            ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n)]
            if n > 1
            else []
        )
        command = [sys.executable, *spread, __file__, "fixed", str(folder), str(16 // n)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-3000:]
        states.append(torch.load(folder / "parameters.pt"))
    start = toy_policy(steps=5)[0].state_dict()
    assert max((states[0][k] - v).abs().max().item() for k, v in start.items()) > 1e-4
    worst = max((states[1][k] - v).abs().max().item() for k, v in states[0].items())
    assert worst < 1e-6, worst


if __name__ == "__main__":
    fixed_run(sys.argv[2], int(sys.argv[3])) if sys.argv[1] == "fixed" else killed_run(
        sys.argv[1], int(sys.argv[2]), *sys.argv[3:4], *map(int, sys.argv[4:])
    )
