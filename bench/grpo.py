"""GRPO with each clip and prompt computed once, against the repeated way and against TRL's own trainer.

A small Qwen2.5-VL (hidden 512, 8 layers; the tower's share of the work as in the 7B model), a prompt of about 1,100 tokens of
which 1,000 are visual, 8 answers. `forward_backward_*`: log-probabilities and gradients of every parameter, answers of up to
160 and 512 tokens, lengths ragged, padded rows on the other side. `bound` counts tokens of the language model without padding; the
tower, which runs once instead of eight times, and the page faults of several GB more on the other side come on top of it, so a
ratio may lie above its bound. `rollout`: 8 answers of 128 tokens, the answers as branches of one cache, against `generate` of
transformers on 8 repeated prompts; the same tokens must come out. `full_step_vs_trl`: 128-token rollouts, rewards, reference and update; TRL knows images only, so both get
the same ten stills of 100 tokens each, ours as ten clips of one grid step.

    python bench/grpo.py [--quick] [--device cpu] [--json FILE]
"""

import contextlib, statistics, sys, tempfile, time, warnings

from common import finish, parse_arguments
import numpy as np
import torch

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
from stvg_nb.grpo import SavedBytes, clip_inputs, pack, rollout, share_prefix
from stvg_nb.qwen import (
    VISION_TOKENS,
    correct_positions,
    encode_clip,
    encode_prompt,
    toy_model,
    toy_processor,
    vision_language,
)

G, SIDE, FRAMES, ANSWER = 8, 280, 20, 128
LENGTHS = {
    160: np.linspace(96, 160, G).astype(int).tolist(),
    512: np.linspace(448, 512, G).astype(int).tolist(),
}
SHAPE = dict(
    hidden=512,
    layers=8,
    heads=8,
    kv_heads=2,
    intermediate=1376,
    vision=256,
    depth=3,
    vocab=2048,
    spread=0.05,
)
QUESTION = "Which numbered person lifts the box, and when? Answer with the ID and the start and end in seconds. "  # 99 bytes


def timed(f, device):
    "(result, process CPU seconds or device seconds)"
    if device == "cpu":
        start = time.process_time()
        out = f()
        return out, time.process_time() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    out = f()
    end.record()
    torch.cuda.synchronize()
    return out, begin.elapsed_time(end) / 1000


# ---- forward and backward ----------------------------------------------------------------------------------------------------
def make_model(device):
    from trl.trainer.utils import add_fused_lm_head

    model = share_prefix(correct_positions(toy_model(**SHAPE))).to(device)
    add_fused_lm_head(model)
    return model


def repeated(model, prompt, answers):
    "Prompt and pixels once per answer, padded rows, TRL's fused head: what a good public trainer does."
    device, (video,), width, P = (
        next(model.parameters()).device,
        prompt.videos,
        max(map(len, answers)),
        len(prompt.ids),
    )
    ids = torch.tensor([prompt.ids + a + [0] * (width - len(a)) for a in answers])
    real = torch.tensor([[1] * (P + len(a)) + [0] * (width - len(a)) for a in answers])
    labels = ids.masked_fill(real == 0, -100)
    labels[:, :P] = -100
    inputs = dict(
        input_ids=ids,
        attention_mask=real,
        labels=labels,
        mm_token_type_ids=(ids == model.config.video_token_id) * 2,
        pixel_values_videos=video.pixels.repeat(len(answers), 1),
        video_grid_thw=torch.tensor([video.grid] * len(answers)),
        second_per_grid_ts=torch.tensor([video.seconds] * len(answers)),
    )
    return model(**{k: v.to(device) for k, v in inputs.items()}, fused_lm_head=True).log_probs[
        :, -width:
    ]


def shared(model, prompt, answers):
    "The packed row, the same head."
    packed = pack([prompt], [answers], vision_language(model))
    return packed.unpack(
        model(
            input_ids=packed.ids,
            position_ids=packed.positions,
            shift_labels=packed.labels,
            fused_lm_head=True,
            **clip_inputs([prompt], packed.ids.device, packed.layout),
        ).log_probs
    )


def backward(way, model, prompt, answers, weight):
    model.zero_grad()
    out = way(model, prompt, answers)
    (out * weight).sum().backward()
    return out.detach()


def forward_backward(device, repeats):
    processor, model, rng = toy_processor(), make_model(device), np.random.default_rng(0)
    frames = rng.integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
    ask = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, {"type": "video"}]}]
    prompt, ratios, memory = (
        encode_prompt(processor, ask, encode_clip(processor, frames, 1.9)),
        {},
        {},
    )
    equal, P, size = (
        dict(log_probs_max_abs=0.0, grad_rel_norm=0.0),
        len(prompt.ids),
        sum(p.numel() for p in model.parameters()),
    )
    print(
        f"{P} prompt tokens, {prompt.videos[0].tokens} visual, {size / 1e6:.0f} M parameters",
        file=sys.stderr,
    )
    for C, lengths in LENGTHS.items():
        answers, weight = (
            [rng.integers(0, 256, n).tolist() for n in lengths],
            torch.randn(G, C, device=device),
        )
        grads, outs, saved = [], [], []
        for way in (shared, repeated):  # once for the equalities, and to warm up
            with SavedBytes(model) as kept:
                outs.append(backward(way, model, prompt, answers, weight))
            saved.append(kept.total / 2**20)
            del kept
            grads.append({n: p.grad.clone() for n, p in model.named_parameters()})
        floor = 1e-7 * max(
            g.norm() for g in grads[1].values()
        )  # the bias of a key has no gradient, only rounding
        worst = max(
            ((grads[0][n] - g).norm() / g.norm()).item()
            for n, g in grads[1].items()
            if g.norm() > floor
        )
        if not all(torch.isfinite(x).all() and (x != 0).sum() == sum(lengths) for x in outs):
            sys.exit("log-probabilities are not finite")
        equal = dict(
            log_probs_max_abs=max(
                equal["log_probs_max_abs"], (outs[0] - outs[1]).abs().max().item()
            ),
            grad_rel_norm=max(equal["grad_rel_norm"], worst),
        )
        del grads, outs
        once = lambda way: timed(lambda: backward(way, model, prompt, answers, weight), device)[1]
        times = [[once(shared), once(repeated)] for _ in range(repeats)]
        ours, other = (statistics.median(t) for t in zip(*times))
        ratios[f"forward_backward_{C}"] = dict(
            ours_s=round(ours, 3),
            other_s=round(other, 3),
            repeats=repeats,
            ratio=round(statistics.median(b / a for a, b in times), 3),
            bound=round((G * P + sum(lengths)) / (P - 1 + sum(lengths)), 3),
        )
        memory[f"saved_activations_{C}"] = dict(
            ours_mb=round(saved[0]), other_mb=round(saved[1]), ratio=round(saved[1] / saved[0], 2)
        )
        print(
            f"  up to {C} tokens: {ratios[f'forward_backward_{C}']}, {memory[f'saved_activations_{C}']}",
            file=sys.stderr,
        )
    return ratios, memory, equal


# ---- sampling ----------------------------------------------------------------------------------------------------------------
def sampling(device, repeats):
    "Ratio, and whether both ways draw the same tokens from the same seed."
    from transformers import GenerationConfig

    processor, model = toy_processor(), make_model(device).eval()
    frames = np.random.default_rng(2).integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
    ask = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, {"type": "video"}]}]
    prompt = encode_prompt(processor, ask, clip := encode_clip(processor, frames, 1.9))
    settings = GenerationConfig(
        max_new_tokens=ANSWER,
        min_new_tokens=ANSWER,
        do_sample=True,
        top_k=0,
        pad_token_id=256,
        eos_token_id=258,
    )
    ids = torch.tensor([prompt.ids] * G)
    inputs = dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == model.config.video_token_id) * 2,
        pixel_values_videos=clip.pixels.repeat(G, 1),
        video_grid_thw=torch.tensor([clip.grid] * G),
        second_per_grid_ts=torch.tensor([clip.seconds] * G, dtype=torch.float64),
    )
    inputs = {k: v.to(device) for k, v in inputs.items()}
    ways = (
        lambda: rollout(model, [prompt], G, settings),
        lambda: model.generate(**inputs, generation_config=settings)[:, len(prompt.ids) :],
    )
    times, same = [], True
    for k in range(repeats + 1):  # the first is to warm up
        torch.manual_seed(k)
        a, ours = timed(ways[0], device)
        torch.manual_seed(k)
        b, other = timed(ways[1], device)
        same, times = same and torch.equal(a, b), [*times, (ours, other)]
    ours, other = (statistics.median(t) for t in zip(*times[1:]))
    return dict(
        ours_s=round(ours, 3),
        other_s=round(other, 3),
        bound=None,
        repeats=repeats,
        ratio=round(statistics.median(b / a for a, b in times[1:]), 3),
    ), same


# ---- a whole step against TRL ------------------------------------------------------------------------------------------------
def score(completion_ids, **_):
    return [sum(ids) % 97 / 97 for ids in completion_ids]


def step_clock(device):
    "Seeds every step alike and takes its time."
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        seconds = []

        def on_step_begin(self, args, state, control, **_):
            torch.manual_seed(state.global_step)
            self.start = self.now()

        def on_step_end(self, args, state, control, **_):
            self.seconds.append(self.now() - self.start)

        def now(self):
            if device == "cuda":
                torch.cuda.synchronize()
                return time.perf_counter()
            return time.process_time()

    return Clock()


def train(kind, folder, images, steps, device):
    "Some steps of one trainer from the same weights: log, seconds per step, pixel rows encoded."
    from datasets import Dataset
    from transformers import PrinterCallback, Qwen2_5_VLForConditionalGeneration
    from trl import GRPOTrainer
    from stvg_nb.trainer import grpo_config
    from stvg_nb.video_trainers import VideoGRPOTrainer

    processor = toy_processor()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, attn_implementation="sdpa")
    banned = processor.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    config = grpo_config(
        tempfile.mkdtemp(dir=folder),
        max_steps=steps,
        num_generations=G,
        per_device_train_batch_size=G,
        beta=0.04,
        max_completion_length=ANSWER,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=False,
        generation_kwargs=dict(min_new_tokens=ANSWER, suppress_tokens=banned),
    )
    rows = [dict(key=str(i), video=str(i)) for i in range(steps)]
    common = dict(args=config, processing_class=processor, reward_funcs=score)
    if kind == "trl":
        data = Dataset.from_list([dict(key=r["key"]) for r in rows])
        data.set_transform(
            lambda b: dict(
                key=b["key"],
                prompt=[[{"role": "user", "content": QUESTION}] for _ in b["key"]],
                images=[images for _ in b["key"]],
            )
        )
        trainer = GRPOTrainer(model, train_dataset=data, **common)
    else:
        ask = [
            {
                "role": "user",
                "content": [{"type": "video", "text": None}] * len(images)
                + [{"type": "text", "text": QUESTION}],
            }
        ]
        stills = [
            (np.stack([np.asarray(i)] * 2), 2.0) for i in images
        ]  # a clip of two equal frames is a still
        data = Dataset.from_list([r | dict(prompt=ask) for r in rows])
        read = lambda row: stills
        trainer = VideoGRPOTrainer(model, train_dataset=data, read_video=read, **common)
    patches = []
    for m in (trainer.model, trainer.ref_model):
        vision_language(m).visual.patch_embed.register_forward_pre_hook(
            lambda m, args: patches.append(args[0].shape[0])
        )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock := step_clock(device))
    with contextlib.redirect_stdout(sys.stderr):
        trainer.train()
    return (
        [x for x in trainer.state.log_history if "loss" in x],
        list(clock.seconds),
        sum(patches) // steps,
    )


def full_step(device, steps):
    from PIL import Image

    rng = np.random.default_rng(1)
    images = [Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)) for _ in range(10)]
    with tempfile.TemporaryDirectory() as folder:
        toy_model(**SHAPE).save_pretrained(folder)
        results = {kind: train(kind, folder, images, steps, device) for kind in ("ours", "trl")}
    (ours, fast, few), (other, slow, many) = results["ours"], results["trl"]
    for a, b in zip(ours, other):
        print(
            "  "
            + "; ".join(
                f"{k} {a[k]:.9g} / {b[k]:.9g}" for k in ("loss", "kl", "grad_norm", "reward")
            ),
            file=sys.stderr,
        )
    gap = {
        f"step_{k}": max(
            abs(a[k] - b[k]) / (abs(b[k]) if k == "grad_norm" else 1) for a, b in zip(ours, other)
        )
        for k in ("loss", "kl", "grad_norm")
    }
    ratio = dict(
        ours_s=round(statistics.median(fast), 3),
        other_s=round(statistics.median(slow), 3),
        bound=None,
        repeats=steps,
        ratio=round(statistics.median(b / a for a, b in zip(fast, slow)), 3),
    )
    return ratio, gap, dict(ours=few, other=many)


def main():
    arguments = parse_arguments(__doc__.splitlines()[0])
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    ratios, memory, equal = forward_backward(arguments.device, 1 if arguments.quick else 3)
    ratios["rollout"], same = sampling(arguments.device, 1 if arguments.quick else 3)
    print(f"  rollout: {ratios['rollout']}, same tokens: {same}", file=sys.stderr)
    ratios["full_step_vs_trl"], gap, rows = full_step(arguments.device, 2 if arguments.quick else 3)
    equal |= gap
    ok = (
        same
        and equal["log_probs_max_abs"] < 1e-5
        and equal["grad_rel_norm"] < 1e-4
        and max(gap.values()) < 1e-5
    )
    shape = SHAPE | dict(
        answers=G,
        frames=FRAMES,
        side=SIDE,
        lengths={str(k): v for k, v in LENGTHS.items()},
        rollout=ANSWER,
    )
    finish(
        "grpo",
        arguments,
        ratios,
        equal,
        ok,
        ("torch", "transformers", "trl", "peft"),
        counts={"pixel_rows_per_step": rows},
        memory=memory,
        shape=shape,
    )


if __name__ == "__main__":
    main()
