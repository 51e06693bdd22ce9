"""Policies: what reaches each family's model, boxes in answers, baselines, and lists of answers that are killed.

Called as a script it is the list that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_nb.foundations.files import InputError, read_jsonl, write_json
from stvg_nb.foundations.geometry import Interval, Tube
from stvg_nb.foundations.mark_drawing import model_size
from stvg_nb.foundations.predictions import read_predictions
from stvg_nb.foundations.samples import Answer, Sample, answer_record, window_frames
from stvg_nb.foundations.settings import SamplingConfig
from stvg_nb.foundations.video import Clip, write_video
from stvg_nb.decoding import Draw, Policy
from stvg_nb.families import FAMILIES, Still
from stvg_nb.models import load_policy
from stvg_nb.toy_families import toy_family
from stvg_nb.policies import (
    BOX_FLAGS,
    AnswerConfig,
    BoxAnswer,
    answer_all,
    as_sample,
    box_question,
    parse_box,
    prepare,
    read_reply,
    snap_to_tracks,
    snapped,
    spread_boxes,
    still_frames,
    two_stage,
)
from stvg_nb.questions import format_answer
from stvg_nb.qwen import CHECKED_RATES, Prompt, temporal_positions

torch.set_num_threads(1)
KINDS = ("qwen2_5_vl", "qwen3_vl", "internvl")


def make(kind):
    return Policy(kind, *toy_family(kind))


@pytest.fixture(scope="module")
def toys():
    return {kind: make(kind) for kind in KINDS}


def random_clip(policy, seed, n, rate):
    "Random frames of a size that the family takes as it is."
    rng = np.random.default_rng(seed)
    height, width = policy.family.side * (
        np.ones(2, int) if policy.name == "internvl" else rng.integers(1, 4, 2)
    )
    return Clip(rng.integers(0, 256, (n, height, width, 3), np.uint8), rate, np.arange(n) / rate)


def inside(policy, request):
    "Arguments of the tower and of the whole model in the first pass."
    told, body = {}, policy.model.model
    tower = body.visual if hasattr(body, "visual") else body.vision_tower

    def door(module, args, kwargs):
        told.setdefault("pixels", (args[0] if args else kwargs["pixel_values"]).clone())

    def first(module, args, kwargs):
        told.setdefault("body", {k: v for k, v in kwargs.items() if k != "past_key_values"})

    hooks = [
        tower.register_forward_pre_hook(door, with_kwargs=True),
        body.register_forward_pre_hook(first, with_kwargs=True),
    ]
    try:
        policy.generate([request], max_new_tokens=2)
    finally:
        [h.remove() for h in hooks]
    return told


# ---------------------------------------------------------------- what reaches the model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n, rate", [(4, 2.0), (6, 1.28), (8, 0.5), (4, 4.0)])
def test_right_frames(toys, kind, n, rate):
    "The tower gets the given frames, each once, in order, to the last bit."
    p = toys[kind]
    clip = random_clip(p, n, n, rate)
    video = p.video(clip)
    assert (p.family.seen(video) == clip.frames).all()
    assert torch.equal(inside(p, (clip, "Who?"))["pixels"], video.pixels)
    swapped = p.video((clip.frames[::-1].copy(), rate))
    assert not torch.equal(swapped.pixels, video.pixels)


@pytest.mark.parametrize("rate", CHECKED_RATES)
def test_right_seconds(toys, rate):
    "Positions for Qwen2.5-VL, text for the other two, at every rate."
    p = toys["qwen2_5_vl"]
    body = inside(p, (random_clip(p, 0, 8, rate), "Who?"))["body"]
    mine = body["input_ids"][0] == p.model.config.video_token_id
    at = body["position_ids"][0, 0][mine]
    assert sorted(set((at - at.min()).tolist())) == sorted(
        set(temporal_positions(4, 2 / rate, 2.0).tolist())
    )
    told = {
        k: toys[k].processor.tokenizer.decode(
            inside(toys[k], (random_clip(toys[k], 0, 8, rate), "Who?"))["body"]["input_ids"][0]
        )
        for k in KINDS[1:]
    }
    for k in range(4):
        assert f"<{(2 * k + 0.5) / rate:.1f} seconds>" in told["qwen3_vl"]
    for k in range(8):
        assert f"Frame{k + 1} at {k / rate:.2f} s: <img>" in told["internvl"]


@pytest.mark.parametrize("kind", KINDS)
def test_right_prompt(toys, kind):
    "One user turn behind the template's own system line, text before the clip, nothing after it."
    p = toys[kind]
    text = p.processor.tokenizer.decode(
        p.prompts([(random_clip(p, 1, 4, 2.0), "Who waves?")])[0].ids
    )
    system = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        if kind == "qwen2_5_vl"
        else ""
    )
    assert text.startswith(f"{system}<|im_start|>user\nWho waves?") and text.endswith(
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert text.count("<|im_start|>user") == 1 and text.index("Who waves?") < text.index(
        {"internvl": "<img>"}.get(kind, "<|vision_start|>")
    )
    assert text.count("<|vision_start|>") == {"qwen2_5_vl": 1, "qwen3_vl": 2, "internvl": 0}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_still_is_the_processors_image(toys, kind):
    "A still: the same pixels and tokens as the processor's own call, and the model takes it."
    p = toys[kind]
    frame = np.random.default_rng(4).integers(
        0, 256, (p.family.side * 4, p.family.side * 6, 3), np.uint8
    )
    still = p.family.still(frame)
    chat = p.processor.apply_chat_template(
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "Where?" + p.family.gap}, {"type": "image"}],
            }
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    theirs = p.processor(
        text=[chat],
        images=[frame],
        return_tensors="pt",
        **({} if kind == "internvl" else dict(do_resize=False)),
    )
    assert p.family.prompt("Where?", still).ids == theirs["input_ids"][0].tolist()
    assert torch.equal(still.pixels, theirs["pixel_values"])
    native = np.random.default_rng(5).integers(0, 256, (50, 70, 3), np.uint8)
    assert (
        p.video(native).size == p.family.still_size(50, 70)
        and p.video(native).tokens == p.family.still(native).tokens
    )
    one, two = p.generate([(still, "Where?"), (None, "Where?")], max_new_tokens=3)
    assert isinstance(one[0], str) and isinstance(two[0], str)


def test_sizes():
    "Budget and limit by family; InternVL's square."
    families = {kind: FAMILIES[kind](toy_family(kind)[1]) for kind in KINDS}
    assert families["qwen2_5_vl"].frame_size(360, 640, 40, SamplingConfig()) == (196, 364)
    assert families["qwen3_vl"].frame_size(360, 640, 40, SamplingConfig()) == (192, 352)
    for sampling in (
        SamplingConfig(),
        SamplingConfig(budget="formula"),
        SamplingConfig(longer_side=336),
    ):
        assert families["qwen2_5_vl"].frame_size(720, 1280, 60, sampling) == model_size(
            720, 1280, 60, sampling
        )
    assert (
        max(families["qwen3_vl"].frame_size(360, 640, 40, SamplingConfig(longer_side=336))) <= 352
    )
    assert families["internvl"].frame_size(360, 640, 40, SamplingConfig()) == (56, 56)


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("kind", KINDS)
def test_batch_does_not_matter(toys, kind):
    p, rng = toys[kind], np.random.default_rng(5)
    asked = [(random_clip(p, k % 3, 4, 2.0), "Who? " * (1 + k), f"row {k}") for k in range(5)]
    for heat in (0.0, 0.9):
        whole = p.generate(asked, n=2, temperature=heat, max_new_tokens=5, seed=1)
        for _ in range(3):
            order = rng.permutation(5)
            got = p.generate(
                [asked[i] for i in order],
                n=2,
                temperature=heat,
                max_new_tokens=5,
                seed=1,
                batch_size=int(rng.integers(1, 6)),
            )
            assert [got[list(order).index(i)] for i in range(5)] == whole
    assert p.generate(asked, temperature=0.9, max_new_tokens=5, seed=2) != p.generate(
        asked, temperature=0.9, max_new_tokens=5, seed=1
    )


@pytest.mark.parametrize("kind", KINDS)
def test_sampler_agrees_with_one_pass(toys, kind):
    "Cached decoding continues where a single pass over question and answer is."
    p = toys[kind]
    prompts = p.prompts(
        [(random_clip(p, 8, 6, 1.9), "Who waves?"), (random_clip(p, 9, 4, 3.0), "Where?")]
    )
    ids, logps = p.sample(prompts, n=2, temperature=0.7, max_new_tokens=10, seed=2)
    for i, (answer, got) in enumerate(zip(ids, logps)):
        prompt = prompts[i // 2]
        with torch.no_grad():
            logits = (
                p.model(**p.family.inputs([Prompt(prompt.ids + answer, prompt.videos)]))
                .logits[0]
                .float()
                / 0.7
            )
        want = logits.log_softmax(-1)[len(prompt.ids) - 1 : -1].gather(
            1, torch.tensor(answer)[:, None]
        )[:, 0]
        assert (want - torch.tensor(got)).abs().max() < 1e-4
        assert not set(answer) & set(p.banned)


def test_draw_is_the_softmax():
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0))
    picks = Draw([2], 1.5, range(5000))(None, logits.repeat(5000, 1)).argmax(1)
    want = (logits / 1.5).masked_fill(torch.arange(6) == 2, -torch.inf).softmax(0)
    assert (torch.bincount(picks, minlength=6) / 5000 - want).abs().max() < 0.025 and not (
        picks == 2
    ).any()


def test_reserved_text(toys):
    for kind, bad in (
        ("qwen2_5_vl", "<|video_pad|>"),
        ("qwen3_vl", "<|vision_start|>"),
        ("internvl", "<IMG_CONTEXT>"),
        ("internvl", "<|im_end|>"),
    ):
        with pytest.raises(InputError, match="reserved text"):
            toys[kind].generate([(None, f"Who {bad}?", "key")])


# ---------------------------------------------------------------- where policies come from


def refused(name, *parts):
    with pytest.raises(InputError) as e:
        load_policy(name)
    assert "\n" not in str(e.value) and all(p in str(e.value) for p in parts), str(e.value)


def test_load_policy_refusals(tmp_path):
    refused("nobody/nothing", "nobody/nothing: cannot be loaded", "hf download nobody/nothing")
    refused(str(tmp_path / "absent"), "no such folder", "embedded:base")
    refused("./absent", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(str(tmp_path / "empty"), "holds no config.json")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/config.json").write_text("{")
    refused(str(tmp_path / "bad"), "config.json: line 1", "not valid JSON")
    (tmp_path / "other").mkdir()
    write_json(tmp_path / "other/config.json", {"model_type": "bert"})
    refused(str(tmp_path / "other"), "is a bert model", "qwen2_5_vl")
    (tmp_path / "bare").mkdir()
    write_json(tmp_path / "bare/config.json", {"model_type": "qwen2_5_vl"})
    refused(str(tmp_path / "bare"), "cannot be loaded")
    (tmp_path / "lora").mkdir()
    write_json(tmp_path / "lora/adapter_config.json", {"peft_type": "LORA"})
    refused(str(tmp_path / "lora"), "names no base model")


def test_load_policy_embedded(monkeypatch):
    "The embedded policy is found at run time, by name; where none is shipped, one line says how to get it."
    import types

    asked = []

    def load(name="base", device="cpu"):
        asked.append(name)
        return toy_family("qwen2_5_vl")

    fake = types.ModuleType("stvg_nb.theatre.policy")
    fake.load = load
    monkeypatch.setitem(sys.modules, "stvg_nb.theatre.policy", fake)
    assert (
        load_policy("embedded:base").name == "embedded:base"
        and load_policy("embedded:grpo").model.dtype == torch.float32
    )
    assert asked == ["base", "grpo"]
    monkeypatch.setitem(sys.modules, "stvg_nb.theatre.policy", None)
    refused("embedded:base", "make weights")


def test_adapter_of_a_folder(tmp_path):
    "A LoRA folder is merged into the base that it names, and its own fingerprint tells it apart."
    from peft import LoraConfig, get_peft_model

    model, processor = toy_family("qwen2_5_vl")
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    base = load_policy(tmp_path / "base")
    tuned = get_peft_model(
        load_policy(tmp_path / "base").model,
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    tuned.save_pretrained(tmp_path / "lora")
    merged = load_policy(tmp_path / "lora", dtype=torch.bfloat16)
    assert merged.model.dtype == torch.bfloat16 and not any(
        "lora" in n for n, _ in merged.model.named_parameters()
    )
    assert load_policy(tmp_path / "lora").fingerprint not in (base.fingerprint, merged.fingerprint)
    assert load_policy(tmp_path / "base").fingerprint == base.fingerprint


# ---------------------------------------------------------------- boxes

GOLDEN = [  # (text, scale, shown (h, w), box or None, flags) on a 640 x 360 video
    (
        '```json\n[\n    {"bbox_2d": [100, 50, 200, 300], "label": "man in a red shirt"}\n]\n```',
        None,
        None,
        (100, 50, 200, 300),
        (),
    ),
    (
        '{"bbox_2d": [100.5, 50, 200, 300.25], "label": "person"}',
        None,
        None,
        (100.5, 50, 200, 300.25),
        (),
    ),
    (
        '[{"bbox_2d": [50, 25, 100, 150], "label": "the woman"}]',
        None,
        (180, 320),
        (100, 50, 200, 300),
        (),
    ),
    (
        '```json\n{"bbox_2d": [100, 50, 200, 300]}\n```\nThe person is on the left.',
        None,
        None,
        (100, 50, 200, 300),
        (),
    ),
    (
        '[\n\t{"bbox_2d": [1, 2, 30, 40], "label": "a"},\n\t{"bbox_2d": [5, 6, 70, 80], "label": "b"}\n]',
        None,
        None,
        (1, 2, 30, 40),
        ("several",),
    ),
    ('[{"bbox_2d": [1, 2, 30, 40]}, {"bbox_2d": [1, 2, 30, 40]}]', None, None, (1, 2, 30, 40), ()),
    (
        "There are no people who do this in the image.\n```json\n[]\n```",
        None,
        None,
        None,
        ("absent",),
    ),
    ('{"bbox_2d": null}', None, None, None, ("absent",)),
    ('[{"bbox_2d": [100, 50, 200, 300', None, None, None, ("unreadable",)),
    ('[{"bbox_2d": [100, 50, 200], "label": "cut"}]', None, None, None, ("unreadable",)),
    (
        "<|object_ref_start|>the dog<|object_ref_end|><|box_start|>(100,50),(200,300)<|box_end|>",
        None,
        None,
        (100, 50, 200, 300),
        (),
    ),
    ('[{"bbox_2d": [0, 0, 1000, 1000], "label": "all"}]', 1000, None, (0, 0, 640, 360), ()),
    (
        '```json\n[\n\t{"bbox_2d": [250, 500, 750, 1000], "label": "the man who waves"}\n]\n```',
        1000,
        None,
        (160, 180, 480, 360),
        (),
    ),
    ('{"bbox_2d": [250.0, 500.0, 750.0, 1000.0]}', 1000, None, (160, 180, 480, 360), ()),
    ("bbox_2d: [0.25, 0.5, 0.75, 1.0]", 1000, None, (160, 180, 480, 360), ("fraction",)),
    (
        '<think>It could be [1, 1, 2, 2] or not.</think>\n{"bbox_2d": [250, 500, 750, 1000]}',
        1000,
        None,
        (160, 180, 480, 360),
        (),
    ),
    ("<think>It could be [1, 1, 2, 2] or not.", 1000, None, (0.64, 0.36, 1.28, 0.72), ()),
    ("The object described is not visible in this frame.", 1000, None, None, ("absent",)),
    ("none", 1000, None, None, ("absent",)),
    (
        "<ref>the man in red</ref><box>[[250, 500, 750, 1000]]</box>",
        1000,
        None,
        (160, 180, 480, 360),
        (),
    ),
    (
        "<ref>the man in red</ref><box>[[250, 500, 750, 1000], [1, 2, 3, 4]]</box>",
        1000,
        None,
        (160, 180, 480, 360),
        ("several",),
    ),
    ("[[250, 500], [750, 1000]]", 1000, None, (160, 180, 480, 360), ()),
    ("The bounding box is (250, 500, 750, 1000).", 1000, None, (160, 180, 480, 360), ()),
    ("<bbox>250 500 750 1000</bbox>", 1000, None, (160, 180, 480, 360), ()),
    ("250, 500, 750, 1000", 1000, None, (160, 180, 480, 360), ()),
    ("x1=250, y1=500, x2=750, y2=1000", 1000, None, (160, 180, 480, 360), ()),
    ('{"xmin": 250, "ymin": 500, "xmax": 750, "ymax": 1000}', 1000, None, (160, 180, 480, 360), ()),
    (
        '{"left": 250, "top": 500, "right": 750, "bottom": 1000}',
        1000,
        None,
        (160, 180, 480, 360),
        (),
    ),
    ("[750, 500, 250, 1000]", 1000, None, (480, 180, 160, 360), ("reversed",)),
    ("[-10, 500, 750, 1200]", 1000, None, (-6.4, 180, 480, 432), ()),
    ("[10px, 20px, 30px, 40px]", None, None, (10, 20, 30, 40), ()),
    ("In the 2 seconds around 5.0 s I see 3 men and 1 dog.", None, None, None, ("unreadable",)),
    ("frame 12 of 40", None, None, None, ("unreadable",)),
    ("[1e3, 2, 3, 4]", None, None, None, ("unreadable",)),
    ("[99999999, 2, 3, 4]", None, None, None, ("out_of_range",)),
    ("[nan, 2, 3, 4]", None, None, None, ("unreadable",)),
    ("", None, None, None, ("unreadable",)),
    ("I am sorry, I can\u2019t help with that. \U0001f600", None, None, None, ("unreadable",)),
]


@pytest.mark.parametrize("text, scale, shown, box, flags", GOLDEN, ids=range(len(GOLDEN)))
def test_golden_boxes(text, scale, shown, box, flags):
    got = parse_box(text, (360, 640), scale, shown)
    assert got.flags == flags
    assert got.box is None if box is None else np.allclose(got.box, box, atol=1e-9)


SIZE = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


@settings(max_examples=800)
@given(
    st.one_of(
        st.text(), st.text('0123456789.,-+[]() \n{}":px12xymaxlefttop<>/thinkbo\u0661\u00bd')
    ),
    st.sampled_from([None, 1000]),
    SIZE,
)
def test_box_parser_never_raises(text, scale, size):
    got = parse_box(text, size, scale)
    assert set(got.flags) <= set(BOX_FLAGS) and (
        got.box is None or (len(got.box) == 4 and np.isfinite(got.box).all())
    )
    assert got.box is not None or len(got.flags) == 1


@pytest.mark.parametrize(
    "value", [None, 3, [1, 2, 3, 4], {"bbox_2d": [1, 2, 3, 4]}, b"[1,2,3,4]", float("nan")]
)
def test_box_parser_takes_anything(value):
    assert parse_box(value, (9, 9)) == BoxAnswer(None, ("unreadable",))


WAYS = [
    '[{{"bbox_2d": [{}, {}, {}, {}], "label": "x"}}]',
    "<box>[[{}, {}, {}, {}]]</box>",
    "({},{}),({},{})",
    "[[{}, {}], [{}, {}]]",
    "{} {} {} {}",
    "x1: {}, y1: {}, x2: {}, y2: {}",
    "Here it is: [{},{},{},{}].",
]


@given(st.lists(st.integers(2, 1000), min_size=4, max_size=4), st.sampled_from(WAYS), SIZE)
def test_box_round_trip(values, way, size):
    got = parse_box(way.format(*values), size, 1000)
    want = [v * s / 1000 for v, s in zip(values, (size[1], size[0]) * 2)]
    assert np.allclose(got.box, want) and ("reversed" in got.flags) == (
        values[2] < values[0] or values[3] < values[1]
    )


@pytest.mark.parametrize(
    "piece",
    [
        "[1, ",
        "(1 1 ",
        "1 ",
        "1,",
        "[ ",
        "x1: 1, y1: 1, x2 ",
        "9",
        "left=1 top ",
        "((",
        ") (",
        "1 , ",
        "\u00a0",
        "[" + " " * 50,
        "x1:1,",
    ],
)
def test_box_parser_is_linear(piece):
    "200,000 characters of an awkward reply end: backtracking over them would take hours."
    began = time.process_time()
    read = parse_box(piece * (200_000 // len(piece)), (360, 640), 1000)
    print(f"{piece!r}: {time.process_time() - began:.2f} CPU seconds")
    assert isinstance(read, BoxAnswer)


# ---------------------------------------------------------------- baselines


class Scripted:
    "The interface of a policy around a function that writes the answers."

    def __init__(self, policy, reply):
        self.policy, self.reply, self.asked = policy, reply, []

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def generate(self, requests, *rest, **more):
        keys = [r.key if isinstance(r, Prompt) else r[2] for r in requests]
        self.asked += keys
        return [[self.reply(k)] for k in keys]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    "30 frames at 10 per second, 64 x 48."
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8), 10)
    return path


def stage(policy, row, **config):
    facts = dict(width=64, height=48, fps=10.0, frame_count=30)
    config = AnswerConfig(method="two_stage", **config)
    prompt = policy.family.prompt("When?", key=row["key"])
    return answer_record(two_stage(policy, [as_sample(row)], [prompt], [facts], config)[0])


BOX = (8.0, 6.0, 40.0, 30.0)


def in_family_terms(policy, box=BOX, size=(48, 64)):
    "A box as the family writes it."
    still = policy.family.still(np.zeros((*size, 3), np.uint8))
    height, width = (policy.family.scale,) * 2 if policy.family.scale else still.size
    return "[{}]".format(
        ", ".join(f"{v * u / s:.6f}" for v, s, u in zip(box, size[::-1] * 2, (width, height) * 2))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_two_stage(toys, video, kind):
    "Each family's own coordinates come back as pixels; nearest frame; a frame without a box is empty and counted."
    p = toys[kind]

    def reply(key):
        return (
            format_answer("vtg", start=0.5, end=2.5)
            if "@" not in key
            else "none"
            if key.endswith("@17")
            else in_family_terms(p)
        )

    stand_in = Scripted(p, reply)
    row = dict(key="k", video=str(video), query="who waves", interval=[20, 30])
    record = stage(stand_in, row)
    assert stand_in.asked == ["k", "k@6", "k@12", "k@17", "k@23"]
    assert (record["start_frame"], record["end_frame"]) == (5, 25) and record["counts"] == dict(
        calls=5, unparsed=0, failed=0, stills=4, without_box=1
    )
    assert sorted(map(int, record["boxes"])) == [*range(5, 15), *range(21, 25)]
    assert np.allclose(list(record["boxes"].values()), BOX, atol=1e-3)
    cheap = Scripted(p, reply)
    less = stage(cheap, row, frames="intersection")
    assert (
        cheap.asked == ["k", "k@23"]
        and sorted(map(int, less["boxes"])) == [*range(20, 25)]
        and less["end_frame"] == 25
    )
    truth = Tube.dense(20, np.tile(BOX, (10, 1)))
    tube = lambda r: Tube.from_dict(
        {int(f): b for f, b in r["boxes"].items()}, r["start_frame"], r["end_frame"]
    )
    assert tube(less).iou(truth)[1] >= tube(record).iou(truth)[1] - 1e-9


def test_two_stage_without_an_answer(toys, video):
    stand_in = Scripted(toys["qwen3_vl"], lambda key: "I do not know.")
    record = stage(stand_in, dict(key="k", video=str(video), query="q"))
    assert (
        record["start_frame"] is None
        and record["boxes"] == {}
        and record["counts"] == dict(calls=1, unparsed=1, failed=1, stills=0, without_box=0)
    )
    given = stage(
        Scripted(toys["qwen3_vl"], lambda key: "[0, 0, 500, 500]"),
        dict(key="k", video=str(video), query="q", task="svg", interval=[0, 10]),
    )
    assert (
        given["counts"] == dict(calls=2, unparsed=0, failed=0, stills=2, without_box=0)
        and len(given["boxes"]) == 10
        and given["parsed"]
    )
    beyond = stage(
        Scripted(toys["qwen3_vl"], lambda key: format_answer("vtg", start=50, end=60)),
        dict(key="k", video=str(video), query="q"),
    )
    assert (beyond["start_frame"], beyond["end_frame"], beyond["boxes"]) == (500, 600, {})
    with pytest.raises(InputError, match="needs the true interval"):
        stage(
            Scripted(toys["qwen3_vl"], lambda key: format_answer("vtg", start=0, end=1)),
            dict(key="k", video=str(video), query="q"),
            frames="intersection",
        )


@given(
    st.dictionaries(st.integers(0, 60), st.booleans(), max_size=8),
    st.integers(0, 40),
    st.integers(0, 30),
)
def test_spread_boxes(asked, start, length):
    span = Interval.frames(start, start + length)
    got = spread_boxes({f: (0, 0, f, 1) if has else None for f, has in asked.items()}, span)
    for f in range(start, start + length):
        nearest = min(asked, key=lambda a: (abs(a - f), a), default=None)
        if nearest is None or not asked[nearest]:
            assert f not in got
        else:
            assert got[f] == [0, 0, nearest, 1]
    assert set(got) <= set(range(start, start + length))


def test_snap_to_tracks():
    "The number that fits best over all given boxes, absent frames count; no fit, no number."
    tubes = {
        1: Tube.dense(0, np.tile([0.0, 0, 10, 10], (20, 1))),
        2: Tube.dense(5, np.tile([1.0, 0, 11, 10], (4, 1))),
    }
    boxes = {f: (1.0, 0, 11, 10) for f in range(0, 20, 4)}
    id, fit, tube = snap_to_tracks(tubes, boxes, Interval.frames(3, 9))
    assert (
        id == 1
        and np.isclose(fit, 90 / 110)
        and (tube.start, tube.end) == (3, 9)
        and tube.frames.tolist() == [*range(3, 9)]
    )
    assert snap_to_tracks(tubes, {6: (1, 0, 11, 10)}, Interval.frames(3, 9))[0] == 2
    assert snap_to_tracks(tubes, {6: (50, 50, 60, 60)}, Interval.frames(3, 9))[0] is None
    assert (
        snap_to_tracks({}, boxes, Interval.frames(3, 9))[0] is None
        and snap_to_tracks(tubes, {}, Interval.frames(3, 9))[0] is None
    )
    given = {str(f): list(b) for f, b in boxes.items()}
    lent = snapped(Answer("k", interval=Interval.frames(3, 9), boxes=given), tubes)
    assert lent.target_id == 1 and sorted(map(int, lent.boxes)) == [*range(3, 9)]


def test_records_keep_the_rules():
    "Null for what is missing, empty or reversed; windows count from their own start, frames from the video's."
    facts = dict(width=64, height=48, fps=10.0, frame_count=300)

    def read(body, **row):
        text = f"<think>.</think><answer>{body}</answer>"
        row = dict(key="k", video="a.mp4", query="q") | row
        return answer_record(read_reply(as_sample(row), text, facts, AnswerConfig()))

    ends = lambda r: (r["start_frame"], r["end_frame"], r["start"], r["end"], r["target_id"])
    assert ends(read("Target ID: 2, Time range: 1.00 to 2.00")) == (10, 20, 1.0, 2.0, 2)
    assert ends(read("Target ID: 2, Time range: 1.00 to 2.00", window=[100, 200])) == (
        110,
        120,
        1.0,
        2.0,
        2,
    )
    assert ends(read("Target ID: 2, Time range: 2.00 to 1.00")) == (None, None, None, None, 2)
    assert ends(read("Target ID: 2, 3, Time range: 1.00 to 2.00")) == (10, 20, 1.0, 2.0, None)
    assert ends(read("Target ID: 2", task="svg")) == (0, 300, None, None, 2)
    assert ends(read("Target ID: 2", task="svg", interval=[30, 60])) == (30, 60, None, None, 2)
    assert (
        read("Target ID: 1, 4", task="rvos")["ids"] == [1, 4]
        and read("no")["failed"]
        and not read("Target ID: 2")["parsed"]
    )


# ---------------------------------------------------------------- lists of answers


def rows_of(folder, n=12):
    names = [folder / f"{k}.mp4" for k in range(3)]
    for k, path in enumerate(names):
        if not path.is_file():
            write_video(
                path, np.random.default_rng(k).integers(0, 256, (20, 48, 64, 3), np.uint8), 10
            )
    return [
        dict(
            key=f"row {i}",
            video=str(names[i % 3]),
            query=f"person {i} waves",
            task=("stvg", "vtg", "svg")[i % 3],
            marked=True,
        )
        for i in range(n)
    ]


QUICK = AnswerConfig(max_new_tokens=6, batch_size=2)


def test_shuffled_frames_are_the_same_frames(tmp_path):
    "The control shows every sampled frame once, in an order that depends on the row alone."
    policy, (row, *_) = make("qwen2_5_vl"), rows_of(tmp_path)
    seen = []

    class Watched:
        name, family, features = policy.name, policy.family, None

        def video(self, clip):
            seen.append(clip.frames)
            return policy.video(clip)

    for more in ({}, dict(shuffled=0), dict(shuffled=0), dict(shuffled=1)):
        prepare(Watched(), as_sample(row | more), QUICK, {})
    plain, a, b, c = (np.stack(f).reshape(len(f), -1) for f in seen)
    assert (a == b).all() and (a != plain).any() and (a != c).any()
    key = lambda x: sorted(map(bytes, x))
    assert key(a) == key(c) == key(plain)
    cache = {}
    for more in ({}, dict(shuffled=0)):
        prepare(Watched(), as_sample(row | more), QUICK, cache)
    assert len(cache) == 2  # one is never taken for the other


def test_killed_list_resumes(tmp_path):
    "SIGKILL in the middle of a list of answers: the finished file is that of an unbroken run, to the byte."
    rows, whole, broken = rows_of(tmp_path), tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    child = subprocess.run([sys.executable, __file__, str(tmp_path)], stderr=subprocess.PIPE)
    assert child.returncode == -signal.SIGKILL, child.stderr[-3000:]
    side = Path(f"{broken}.partial")
    assert side.is_file() and not broken.exists() and len(side.read_bytes().splitlines()) >= 4
    policy, calls = make("qwen2_5_vl"), []
    answer_all(policy, rows, whole, QUICK, progress=False)
    header = answer_all(policy, rows, broken, QUICK, progress=calls.append)
    assert broken.read_bytes() == whole.read_bytes() and not side.exists() and sum(calls) <= 6
    assert header["counts"]["answered"] == 12 and len(read_predictions(broken, "hcstvg")) == 12


def test_torn_side_file(toys, tmp_path):
    "Whatever stands in the side file up to any byte, the end is the same."
    rows = rows_of(tmp_path, 6)
    stand_in = Scripted(
        toys["qwen2_5_vl"], lambda key: format_answer("stvg", [int(key.split()[1]) + 1], 0, 1)
    )
    out, side = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"

    def stop(n):
        if len(stand_in.asked) >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_all(stand_in, rows, out, QUICK, progress=stop)
    torn = side.read_bytes()
    side.unlink()
    answer_all(stand_in, rows, out, QUICK, progress=False)
    whole = out.read_bytes()
    for cut in (
        0,
        1,
        len(torn) // 2,
        torn.index(b"\n"),
        torn.index(b"\n") + 1,
        len(torn) - 1,
        len(torn),
    ):
        out.unlink()
        side.write_bytes(torn[:cut])
        answer_all(stand_in, rows, out, QUICK, progress=False)
        assert out.read_bytes() == whole
    out.unlink()
    side.write_bytes(b"\xff\x00garbage\n" + torn)
    answer_all(stand_in, rows, out, QUICK, progress=False)
    assert out.read_bytes() == whole


def test_changed_list_is_asked_again(toys, tmp_path, capsys):
    "Other settings, rows or weights: a finished file is replaced; the same ones: it is kept."
    rows, out = rows_of(tmp_path, 4), tmp_path / "out.jsonl.gz"
    stand_in = Scripted(toys["qwen2_5_vl"], lambda key: "x")
    first = answer_all(stand_in, rows, out, QUICK, progress=False)
    asked = len(stand_in.asked)
    assert (
        answer_all(stand_in, rows, out, QUICK, progress=False) == first
        and len(stand_in.asked) == asked == 4
    )
    for change in (
        dict(rows=rows[:3]),
        dict(rows=[rows[0] | dict(query="other"), *rows[1:]]),
        dict(config=AnswerConfig(max_new_tokens=7, batch_size=2)),
        dict(policy=Scripted(Policy("other", *toy_family("qwen2_5_vl", seed=1)), lambda key: "x")),
    ):
        told = dict(policy=stand_in, rows=rows, config=QUICK) | change
        header = answer_all(told["policy"], told["rows"], out, told["config"], progress=False)
        assert header["config_hash"] != first["config_hash"] and read_jsonl(out)[0] == header


def test_quarantine(toys, tmp_path):
    "Rows that cannot be read or asked are set aside with their reason, each alone; the others are answered."
    rows = rows_of(tmp_path, 6)
    (tmp_path / "torn.mp4").write_bytes((tmp_path / "0.mp4").read_bytes()[:300])
    rows[1] |= dict(video=str(tmp_path / "torn.mp4"))
    rows[2] |= dict(video=str(tmp_path / "absent.mp4"))
    rows[3] |= dict(query="who <|im_end|> waves")
    rows[4] |= dict(database=str(tmp_path / "absent.masks.json.gz"))

    def reply(key):
        if key == "row 5":
            raise FloatingPointError("hidden states are not finite")
        return format_answer("stvg", [1], 0, 1)

    header = answer_all(
        Scripted(toys["qwen2_5_vl"], reply),
        rows,
        tmp_path / "out.jsonl",
        AnswerConfig(batch_size=6),
        progress=False,
    )
    reasons = {a["key"]: a["reason"] for a in header["quarantined"]}
    assert (
        set(reasons) == {f"row {k}" for k in range(1, 6)}
        and header["counts"]["answered"] == 1
        and header["counts"]["quarantined"] == 5
    )
    assert (
        "no such video" in reasons["row 2"]
        and "reserved text" in reasons["row 3"]
        and "not finite" in reasons["row 5"]
    )
    assert str(tmp_path) not in json.dumps(header["quarantined"]) and header["rows"] == 6


def test_clip_is_read_once(toys, tmp_path, monkeypatch):
    "Twelve rows on three videos: three readings, however the rows are ordered, and records in the rows' order."
    import stvg_nb.policies as policies

    rows, read = rows_of(tmp_path), []

    def counted(path, *more):
        read.append(path)
        return real(path, *more)

    real = policies.prompted_clip
    monkeypatch.setattr(policies, "prompted_clip", counted)
    stand_in = Scripted(toys["qwen2_5_vl"], lambda key: "x")
    answer_all(stand_in, rows, tmp_path / "out.jsonl", AnswerConfig(batch_size=3), progress=False)
    assert len(read) == 3 and [r["key"] for r in read_jsonl(tmp_path / "out.jsonl")[1:]] == [
        r["key"] for r in rows
    ]


def test_refused_rows(toys, tmp_path):
    for wrong in (dict(frames="true"), dict(batch_size=0), dict(method="nowhere.to.be.found")):
        with pytest.raises(InputError):
            answer_all(
                toys["qwen2_5_vl"],
                [dict(key="a", video="x", query="q")],
                tmp_path / "out.jsonl",
                AnswerConfig(**wrong),
                progress=False,
            )
    for rows, reason in (
        ([dict(key="a", video="x")], "lacks its query"),
        ([dict(key="", video="x", query="q")], "lacks its key"),
        ([dict(key="a", video="x", query="q")] * 2, "occurs 2 times"),
    ):
        with pytest.raises(InputError, match=reason):
            answer_all(toys["qwen2_5_vl"], rows, tmp_path / "out.jsonl", progress=False)
    assert not list(tmp_path.glob("*.jsonl*"))


def test_windows_in_frames(video):
    "Windows come in frames, whether a benchmark has them in frames or in seconds."
    sample = Sample("k", "vidstg", "stvg", "who", "clip.mp4", fps=10.0, window=(2, 20))
    assert window_frames(sample, 10.0) == (2, 20)
    sample = Sample("k", "tvgbench", "vtg", "who", "clip.mp4", window=(0.5, 2.5))
    assert window_frames(sample, 10.0) == (5, 25)
    assert window_frames(Sample("k", video="clip.mp4"), 10.0) is None


def test_short_form_of_a_sample(video):
    "A dictionary as it is written by hand becomes the same sample."
    row = dict(key="k", video=video, query="who", database="db.json", window=[2, 20])
    sample = as_sample(row | dict(interval=[4, 9], shuffled=3))
    assert (sample.video, sample.window, sample.database) == (str(video), (2, 20), "db.json")
    assert sample.interval == Interval.frames(4, 9) and sample.asked == {"shuffled": 3}


def test_two_stage_file_is_a_predictions_file(toys, tmp_path):
    rows = [r | dict(task="stvg") for r in rows_of(tmp_path, 3)]
    stand_in = Scripted(
        toys["qwen3_vl"],
        lambda key: (
            "[100, 100, 500, 500]" if "@" in key else format_answer("vtg", start=0.2, end=1.6)
        ),
    )
    header = answer_all(
        stand_in,
        rows,
        tmp_path / "out.jsonl",
        AnswerConfig(method="two_stage", batch_size=2),
        progress=False,
        benchmark="hcstvg",
    )
    found = read_predictions(tmp_path / "out.jsonl", "hcstvg")
    assert len(found) == 3 and found["row 0"].frames == (2, 16) and len(found["row 0"].boxes) == 14
    assert (
        header["counts"]["stills"] == header["counts"]["calls"] - 3
        and header["benchmark"] == "hcstvg"
    )


def test_questions_about_frames(toys):
    "The unit is the family's own, the size that of the frame as shown, the sentence normalised."
    ask = {kind: box_question("The Man waves.", p.family, (28, 56)) for kind, p in toys.items()}
    assert (
        "56 wide and 28 high" in ask["qwen2_5_vl"]
        and "0 to 1000" in ask["qwen3_vl"]
        and "<ref>the man waves</ref>" in ask["internvl"]
    )
    some = Sample("k", video="a.mp4", window=(10, 20))
    facts = dict(fps=10.0, frame_count=30)
    assert still_frames(some, facts, Interval.frames(0, 30)) == [10, 13, 16, 19]
    assert isinstance(toys["internvl"].family.still(np.zeros((48, 64, 3), np.uint8)), Still)


if __name__ == "__main__":
    folder, count = Path(sys.argv[1]), 0

    def tell(n):
        global count
        count += n
        if count >= 6:
            os.kill(os.getpid(), signal.SIGKILL)

    answer_all(make("qwen2_5_vl"), rows_of(folder), folder / "broken.jsonl", QUICK, progress=tell)
