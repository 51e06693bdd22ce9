"The embedded policy: its words, its traces, its features and losses, jobs that resume, its weights."

import copy
import json

import numpy as np
import pytest

from stvg_nb.foundations.files import InputError, package_dir, read_json, sha256_file
from stvg_nb.foundations.geometry import Interval
from stvg_nb.questions import build_prompt, parse
from stvg_nb.rewards import Target, score
from stvg_nb.theatre import curriculum, facts, features, jobs, lessons, policy, traces
from stvg_nb.theatre.scripts import DOMAINS, Dice
from stvg_nb.theatre.stories import make_script
from stvg_nb.theatre.seeing import PAIRS, RenderedClips, render_clips
from stvg_nb.theatre.vocabulary import (
    VERBS,
    TextEncoder,
    new_model,
    new_processor,
    special_ids,
    spoken_interval,
)


@pytest.fixture(scope="module")
def processor():
    return new_processor()


@pytest.fixture(scope="module")
def scripts():
    return [
        make_script(split, domain, i)
        for split in ("train", "val")
        for domain in DOMAINS
        for i in range(12)
    ]


def asked(script):
    return facts.clip_questions(script, Dice("test", script.name), 4)


# ------------------------------------------------------------------------------ words and traces


def test_tokenizer_knows_every_query_and_prompt(processor, scripts):
    tokens, plain = processor.tokenizer, set("a?.,-")
    texts = [t for s in scripts for t in (s.query, s.question, *(q["query"] for q in asked(s)))]
    for text in texts:
        for task in ("stvg", "vtg"):
            for think in (True, False):
                prompt = build_prompt(task, text, think=think, colour="green")
                ids = tokens(prompt)["input_ids"]
                assert tokens.decode(ids) == prompt
                spelt = {tokens.decode([i]) for i in ids if i < 256}
                assert spelt <= plain, (text, spelt)
                assert len(ids) < 40


@pytest.mark.parametrize(
    "text", ["", "scarlet zebra 12:30", "naïve é 人", " 1234 7.25 ", "<think>x</think>"]
)
def test_tokenizer_takes_any_text(processor, text):
    assert processor.tokenizer.decode(processor.tokenizer(text)["input_ids"]) == text


def test_a_trace_fits_its_tokens(processor, scripts):
    tokens, encoder = processor.tokenizer, TextEncoder(processor)
    for s in scripts:
        numbers = dict(enumerate((7, 2, 9, 1, 4, 3)[: len(s.puppets)]))
        for q in asked(s):
            about = facts.trace_facts(s, q["form"], q["answer"])
            trace = traces.reasoning_trace(traces.Trace(encoder), about, numbers)
            ids = tokens(trace.text)["input_ids"]
            assert tokens.decode(ids) == trace.text
            assert trace.ids == [*ids, encoder.end]
            assert min(ids) > 40 and len(ids) <= 320
            assert len(trace.ids) == len(trace.truth) == len(trace.weights) == len(trace.kinds)
            for token, pair, _ in trace.attend:
                assert 0 <= token < len(ids)
                assert pair is None or 0 <= pair < PAIRS
            at_once = traces.trace_text(encoder, about, numbers, think=False)
            assert at_once == trace.text[trace.text.index("<answer>") :]


def test_a_true_trace_earns_everything(processor, scripts):
    encoder = TextEncoder(processor)
    for s in scripts:
        numbers = dict(enumerate((7, 2, 9, 1, 4, 3)[: len(s.puppets)]))
        for q in asked(s):
            text = traces.trace_text(encoder, facts.trace_facts(s, q["form"], q["answer"]), numbers)
            k, a, b = q["answer"]
            spoken = Interval(*spoken_interval(a, b, s.fps))
            visible = {numbers[k]: ((a, b),)}
            target = Target((numbers[k],), spoken, s.duration, s.fps, visible=visible)
            assert score(text, target)["total"] == 3.0
            assert parse(text, "stvg", "strict").id == numbers[k]
            real = Interval(a / s.fps, b / s.fps)
            assert spoken.iou(real) > (0.75 if b - a >= 15 else 0.4)


def test_reasoning_judges_right(scripts):
    for s in scripts:
        about = facts.trace_facts(s, s.form, (s.target, s.start, s.end))
        hits = [
            k
            for k, events in about.events.items()
            if about.fits[k] and any(e.is_answer for e in events)
        ]
        assert s.target in hits
        if "order" not in s.form:
            assert hits == [s.target]


def test_action_tracks_say_what_the_script_does(scripts):
    for s in scripts:
        tracks = facts.action_tracks(s)
        assert all(len(track) == PAIRS for track in tracks.values())
        for e in s.events:
            if e.action not in VERBS or e.end - e.start < 2 * s.fps:
                continue
            inside = [
                tracks[e.puppet][t]
                for t in range(PAIRS)
                if t * s.fps >= e.start and (t + 1) * s.fps <= e.end
            ]
            assert inside and set(inside) <= {VERBS[e.action]}, (s.name, e)


# ------------------------------------------------------------------------------ features, attention


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    "Two clips as an untrained tower sees them."
    folder = tmp_path_factory.mktemp("seen")
    needs = {n: folder / n for n in ("clips-train", "poses", "features-train")}
    for path in needs.values():
        path.mkdir()
    render_clips(needs["clips-train"], {}, domains=("stage",), count=2)
    lessons.save_learner(lessons.new_learner(), needs["poses"] / "weights.safetensors")
    curriculum.extract_features(needs["features-train"], needs, rounds=2)
    clips = RenderedClips(needs["clips-train"])
    learner = lessons.scale_tower_output(lessons.new_learner())
    return learner, features.ClipFeatures(needs["features-train"], clips)


@pytest.mark.parametrize("m", [1, 2, 7, 20])
def test_looks_go_to_the_number_that_is_said(seen, m):
    "Every look falls on tokens that carry its number, at the second that the words before it name."
    learner, kept = seen
    rng, times = np.random.default_rng(m), learner.encoder.times
    for make in (features.retrieval_example, features.collage_example):
        example = make(kept, learner.encoder, rng, m)
        packed, _, seconds, looks = lessons.pack_examples(learner, [example, example])
        assert len(seconds) == 2 * example.cells.shape[0] * example.cells.shape[1]
        assert (np.diff(example.times) > 0).all()
        for trace in example.traces:
            for token, pair, number in trace.attend:
                if pair is not None:
                    before = [t for t in trace.ids[: token + 1] if t in times]
                    assert times.index(before[-1]) == 2 * example.times[pair]
        rows = packed.layout.keep.tolist()
        for row, right, (a, b) in looks:
            assert row in rows and a <= min(right) <= max(right) < b
        assert len(looks) % 2 == 0


def test_new_numbers_are_consistent(seen):
    "After an exchange of numbers the cells say of each puppet what they said before."
    _, kept = seen
    rng = np.random.default_rng(4)
    for i in range(len(kept)):
        order = rng.permutation(PAIRS)
        tokens, cells, numbers = features.swap_ids(kept, i, order, rng, 9)
        assert tokens.shape == kept.features[i].shape and np.isfinite(tokens).all()
        for k, n in kept.numbers[i].items():
            if n <= 9:
                assert (cells[..., numbers[k] - 1] == kept.cells[i][order][..., n - 1]).all()


def test_examples_stand_numbers_that_no_token_can_name(seen, monkeypatch):
    learner, kept = seen
    large = [{k: n + 8 for k, n in row.items()} for row in kept.numbers]
    monkeypatch.setattr(kept, "numbers", large)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        example = features.retrieval_example(kept, learner.encoder, rng, 20)
        assert len(example.traces) == 2
        rng = np.random.default_rng(seed)
        features.question_example(kept, learner.encoder, rng, 3, "green")


def test_shown_looks_lower_the_attention_loss(seen):
    "A few steps on the attention loss alone turn the supervised heads to the right tokens."
    import torch

    learner, kept = seen
    example = features.retrieval_example(kept, learner.encoder, np.random.default_rng(0), 2)

    def loss():
        packed, inputs, _, looks = lessons.pack_examples(learner, [example])
        _, recorded = lessons.record_attention(learner, packed, inputs)
        return lessons.attention_loss(*recorded, looks)[0]

    optimizer = torch.optim.AdamW(learner.language_weights().values(), lr=2e-3)
    first = loss().item()
    for _ in range(15):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.7 * first


def test_size_of_the_model(processor):
    model = new_model(len(processor.tokenizer), special_ids(processor))
    n = sum(p.numel() for p in model.parameters())
    assert 2_000_000 < n and 2 * n <= 6_000_000 and len(processor.tokenizer) < 1000


# ------------------------------------------------------------------------------ jobs


def test_jobs_resume(tmp_path, monkeypatch):
    calls = []

    def work(out, needs, value):
        calls.append(value)
        (out / "result.txt").write_text(str(value))

    monkeypatch.setattr(jobs, "work_of_test", work, raising=False)

    def pair(a, b):
        path = "stvg_nb.theatre.jobs.work_of_test"
        return [
            jobs.TrainingJob("a", path, dict(value=a)),
            jobs.TrainingJob("b", path, dict(value=b), ("a",)),
        ]

    def run(a, b):
        keys = jobs.job_keys(pair(a, b))
        return [jobs.run_job(job, keys, tmp_path) for job in pair(a, b)]

    assert run(1, 2) == [True, True]
    assert run(1, 2) == [False, False] and calls == [1, 2]
    assert run(1, 3) == [False, True]
    assert run(5, 3) == [True, True]  # what a job needs is part of its key
    assert calls == [1, 2, 3, 5, 3]
    done = sorted(tmp_path.glob("*/provenance.json"))
    assert len(done) == 5
    assert all(json.loads(p.read_text())["cpu_seconds"] >= 0 for p in done)
    with pytest.raises(InputError, match="not finished"):
        jobs.run_job(pair(8, 9)[1], jobs.job_keys(pair(8, 9)), tmp_path)
    with pytest.raises(InputError, match="come before"):
        jobs.job_keys(pair(1, 2)[1:])


def test_two_processes_train_one_model(tmp_path):
    "Together they make one batch; one of them writes."
    from safetensors.torch import load_file

    render_clips(tmp_path, {}, domains=("stage",), count=2)
    lines, weights, keys = {}, {}, {}
    path, settings = "stvg_nb.theatre.curriculum.train_marks", dict(steps=2, batch=4)
    for n in (1, 2):
        job = jobs.TrainingJob("marks", path, settings, ("clips-train",), n)
        out = tmp_path / f"by-{n}"
        out.mkdir()
        jobs.run_function(job, out, {"clips-train": tmp_path})
        lines[n] = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        weights[n] = load_file(out / "weights.safetensors")
        keys[n] = jobs.job_keys([jobs.TrainingJob("marks", path, {}, (), n)])["marks"]
    assert [len(v) for v in lines.values()] == [1, 1]
    assert all(v[0]["loss"] > 0 for v in lines.values())
    assert weights[1].keys() == weights[2].keys()
    assert all(v.isfinite().all() for v in weights[2].values())
    assert keys[1] != keys[2]


def test_every_job_of_the_shipped_base_is_one_of_todays():
    "Nothing but names has changed since the shipped base was trained: settings and defaults count."
    made = read_json(policy.weights_dir() / "provenance.json")
    listed = curriculum.training_jobs()
    keys = curriculum.recorded_keys(listed)
    same = [job.name for job in listed if curriculum.is_recorded(job, keys, made)]
    assert len(same) == len(made)
    assert {job.name for job in listed} - set(same) == {"detector", "policy-base"}


# ------------------------------------------------------------------------------ weights


def distance(a, b):
    pairs = zip(a.parameters(), b.parameters())
    return sum(float((x - y).detach().square().sum()) for x, y in pairs)


def test_difference_round_trip(processor, tmp_path):
    import torch

    base = new_model(len(processor.tokenizer), special_ids(processor))
    trained = copy.deepcopy(base)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in trained.named_parameters():
            if ".q_proj.weight" in name:
                p += torch.randn(p.shape[0], 4) @ torch.randn(4, p.shape[1]) * 0.01
            if p.ndim == 1:
                p += 0.01 * torch.randn_like(p)
    written = policy.save_delta(trained, base, tmp_path / "delta.safetensors")
    assert written["bytes"] <= policy.DELTA_BYTES and written["share"] > 0.999
    back = policy.add_delta(copy.deepcopy(base), tmp_path / "delta.safetensors")
    assert distance(trained, back) < 1e-4 * distance(trained, base)


def test_a_difference_of_full_rank_keeps_to_its_bytes(processor, tmp_path):
    import torch

    base = new_model(len(processor.tokenizer), special_ids(processor))
    trained, path = copy.deepcopy(base), tmp_path / "delta.safetensors"
    torch.manual_seed(1)
    with torch.no_grad():
        for p in trained.parameters():
            p += 0.01 * torch.randn_like(p)
    written = policy.save_delta(trained, base, path)
    assert 0.9 * policy.DELTA_BYTES < written["bytes"] <= policy.DELTA_BYTES
    assert written["bytes"] == path.stat().st_size
    assert 0 < written["share"] < 1


def test_shipped_files():
    if "base" not in policy.available():  # then its absence is said in one line
        with pytest.raises(InputError, match="make weights"):
            policy.load("base")
        return
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = policy.weights_dir()
    assert (folder / "model.safetensors").stat().st_size <= 6_000_000
    with safe_open(folder / "model.safetensors", "pt") as f:
        assert {f.get_tensor(k).dtype for k in f.keys()} == {torch.bfloat16}
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.eos_token_id == end
    assert "license" in (folder / "README.md").read_text().lower()
    files = [p for p in (package_dir() / "weights").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 60e6


def test_shipped_tokenizer_is_todays(processor):
    "A word more or less in the vocabulary would give every shipped weight another meaning."
    shipped = policy.load("base")[1]
    assert shipped.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert shipped.chat_template == processor.chat_template


def test_shipped_differences_are_small_and_load():
    import torch

    from stvg_nb.theatre.row_training import BASES

    base = {}
    if "base" in policy.available():
        base = dict(policy.load("base")[0].named_parameters())
    for name in set(policy.available()) - {"base"}:
        folder = policy.weights_dir(name)
        limit = 3e6 if name in BASES else policy.DELTA_BYTES
        assert (folder / "delta.safetensors").stat().st_size <= limit, name
        of_base = sha256_file(policy.weights_dir() / "model.safetensors")
        recorded = read_json(folder / "provenance.json")["base"]
        assert recorded == of_base, f"{name} is a difference to another base"
        model = policy.load(name)[0]
        assert any(not torch.equal(p, base[n]) for n, p in model.named_parameters()), name


def test_the_lines_of_every_card_name_their_policy_and_run(tmp_path, monkeypatch, capsys):
    "The lines are the same but for the name, so those of one card are run."
    pytest.importorskip("ultralytics")
    import re

    from stvg_nb.front import made_clip

    codes = {}
    for card in sorted((package_dir() / "weights").glob("policy-*/README.md")):
        name = card.parent.name.removeprefix("policy-")
        (code,) = re.findall(
            r"^```python\n(.+?)^```", card.read_text(encoding="utf-8"), re.M | re.S
        )
        assert f'model="embedded:{name}"' in code, card
        codes[name] = code.replace(f":{name}", ":NAME")
    assert len(codes) > 20 and len(set(codes.values())) == 1
    made_clip(tmp_path / "made").video.rename(tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    exec(codes["grpo-0"].replace(":NAME", ":early"), {})
    assert "embedded:early answers: number" in capsys.readouterr().out
