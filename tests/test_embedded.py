"The embedded policy: its words, the form of its answers, its shipped weights, units that resume, differences that survive a round trip."

import json

import pytest

from stvg_nb import embedded as E
from stvg_nb import puppets as P
from stvg_nb.foundations.files import InputError, package_dir, read_json, sha256_file
from stvg_nb.foundations.geometry import Interval
from stvg_nb.rewards import Target, build_prompt, parse, score


@pytest.fixture(scope="module")
def processor():
    return E.new_processor()


@pytest.fixture(scope="module")
def scripts():
    return [
        P.make_script(split, domain, i)
        for split in ("train", "val")
        for domain in P.DOMAINS
        for i in range(12)
    ]


def test_tokenizer_knows_every_query_and_prompt(processor, scripts):
    tokens, plain = processor.tokenizer, set("a?.,-")
    for s in scripts:
        for text in [
            s.query,
            s.question,
            *(q["query"] for q in E.questions(s, P.Dice("test", s.name), 4)),
        ]:
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


def test_reply_earns_everything(processor, scripts):
    tokens, speech = processor.tokenizer, E.Speech(processor)
    for s in scripts:
        numbers = {k: n for k, n in enumerate((7, 2, 9, 1, 4, 3)[: len(s.puppets)])}
        for q in E.questions(s, P.Dice("test", s.name), 4):
            told = E.tell(E.Telling(speech), E.study(s, q["form"], q["answer"]), numbers)
            ids = tokens(told.text)["input_ids"]
            assert (
                tokens.decode(ids) == told.text
                and told.ids == [*ids, speech.end]
                and min(ids) > 40
                and len(ids) <= 320
            )
            assert len(told.ids) == len(told.weights) == len(told.kinds) and all(
                0 <= t < len(ids) and (p is None or 0 <= p < E.STEPS) for t, p, _ in told.looks
            )
            k, a, b = q["answer"]
            start, end = E.span(a, b, s.fps)
            target = Target(
                (numbers[k],),
                Interval(start, end),
                s.duration,
                s.fps,
                visible={numbers[k]: ((a, b),)},
            )
            assert score(told.text, target)["total"] == 3.0
            assert parse(told.text, "stvg", "strict").id == numbers[k]
            assert (
                E.reply(speech, E.study(s, q["form"], q["answer"]), numbers, think=False)
                == told.text[told.text.index("<answer>") :]
            )
            real = Interval(a / s.fps, b / s.fps)
            assert Interval(start, end).iou(real) > (0.75 if b - a >= 15 else 0.4)


def test_reasoning_judges_right(scripts):
    for s in scripts:
        facts = E.study(s, s.form, (s.target, s.start, s.end))
        hits = [
            k
            for k, events in facts["events"].items()
            if facts["fits"][k] and any(e[-1] for e in events)
        ]
        assert s.target in hits
        if "order" not in s.form:
            assert hits == [s.target]


def test_strips_say_what_the_script_does(scripts):
    for s in scripts:
        for k, strip in E.strips(s).items():
            assert len(strip) == E.STEPS
            for e in (
                e
                for e in s.events
                if e.puppet == k and e.action in E.VERBS and e.end - e.start >= 2 * s.fps
            ):
                inside = [
                    strip[t]
                    for t in range(E.STEPS)
                    if t * s.fps >= e.start and (t + 1) * s.fps <= e.end
                ]
                assert inside and set(inside) <= {E.VERBS[e.action]}, (s.name, e)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    "Two clips as an untrained tower sees them."
    folder = tmp_path_factory.mktemp("seen")
    needs = {n: folder / n for n in ("clips-train", "poses", "seen-train")}
    for path in needs.values():
        path.mkdir()
    E.make_clips(needs["clips-train"], {}, domains=("stage",), count=2)
    learner = E.calm(E.new_learner())
    E.save_learner(E.new_learner(), needs["poses"] / "weights.safetensors")
    E.see_clips(needs["seen-train"], needs, rounds=2)
    return learner, E.Seen(needs["seen-train"], E.Clips(needs["clips-train"]))


@pytest.mark.parametrize("m", [1, 2, 7, 20])
def test_looks_go_to_the_number_that_is_said(seen, m):
    "Every look of a scene falls on tokens that carry its number, at the second that the words before it name."
    import numpy as np

    learner, kept = seen
    rng, times = np.random.default_rng(m), learner.speech.times
    for make in (E.practice_scene, E.collage_scene):
        scene = make(kept, learner.speech, rng, m)
        packed, _, seconds, looks = E.pack_scenes(learner, [scene, scene])
        assert (
            len(seconds) == 2 * scene.cells.shape[0] * scene.cells.shape[1]
            and (np.diff(scene.times) > 0).all()
        )
        rows = packed.layout.keep.tolist()
        for told in scene.said:
            for token, pair, number in told.looks:
                if pair is None:
                    continue
                before = [t for t in told.ids[: token + 1] if t in times]
                assert times.index(before[-1]) == 2 * scene.times[pair]
        for row, right, (a, b) in looks:
            assert row in rows and a <= min(right) <= max(right) < b
        assert len(looks) % 2 == 0


def test_new_numbers_are_consistent(seen):
    "After an exchange of numbers the cells say of each puppet what they said before."
    import numpy as np

    learner, kept = seen
    rng = np.random.default_rng(4)
    for i in range(len(kept)):
        order = rng.permutation(E.STEPS)
        features, cells, numbers = E.renumbered(kept, i, order, rng, 9)
        assert features.shape == kept.features[i].shape and np.isfinite(features).all()
        for k, n in kept.numbers[i].items():
            if n <= 9:
                assert (cells[..., numbers[k] - 1] == kept.cells[i][order][..., n - 1]).all()


def test_scenes_stand_numbers_that_no_token_can_name(seen, monkeypatch):
    import numpy as np

    learner, kept = seen
    monkeypatch.setattr(
        kept, "numbers", [{k: n + 8 for k, n in row.items()} for row in kept.numbers]
    )
    for seed in range(6):
        scene = E.practice_scene(kept, learner.speech, np.random.default_rng(seed), 20)
        assert len(scene.said) == 2
        E.question_scene(kept, learner.speech, np.random.default_rng(seed), 3, "green")


def test_shown_looks_lower_the_looking_loss(seen):
    "A few steps on the looking loss alone turn the looking heads to the right tokens."
    import numpy as np
    import torch

    learner, kept = seen
    rng = np.random.default_rng(0)
    scene = E.practice_scene(kept, learner.speech, rng, 2)

    def gaze():
        packed, inputs, _, looks = E.pack_scenes(learner, [scene])
        learner.looking.watch = True
        learner.base(input_ids=packed.ids, position_ids=packed.positions, use_cache=False, **inputs)
        return E.gaze_loss(*learner.looking.watch, looks)

    optimizer = torch.optim.AdamW(learner.words().values(), lr=2e-3)
    first = gaze()[0].item()
    for _ in range(15):
        optimizer.zero_grad()
        gaze()[0].backward()
        optimizer.step()
    assert gaze()[0].item() < 0.7 * first


def test_size_of_the_model(processor):
    tokens = {t: processor.tokenizer.convert_tokens_to_ids(t) for t in E.SPECIALS}
    model = E.new_model(len(processor.tokenizer), tokens)
    n = sum(p.numel() for p in model.parameters())
    assert 2_000_000 < n and 2 * n <= 6_000_000 and len(processor.tokenizer) < 1000


def test_clips_are_made_once_and_units_resume(tmp_path, monkeypatch):
    calls = []

    def work(out, needs, value):
        calls.append(value)
        (out / "result.txt").write_text(str(value))

    monkeypatch.setattr(E, "work_of_test", work, raising=False)

    def units(a, b):
        return [
            E.Unit("a", "stvg_nb.embedded.work_of_test", dict(value=a)),
            E.Unit("b", "stvg_nb.embedded.work_of_test", dict(value=b), ("a",)),
        ]

    def run(a, b):
        plan = units(a, b)
        keys = E.unit_keys(plan)
        return [E.run_unit(u, keys, tmp_path) for u in plan]

    assert run(1, 2) == [True, True] and run(1, 2) == [False, False] and calls == [1, 2]
    assert run(1, 3) == [False, True]
    assert run(5, 3) == [True, True] and calls == [
        1,
        2,
        3,
        5,
        3,
    ]  # what a unit needs is part of its hash
    done = sorted(tmp_path.glob("*/provenance.json"))
    assert len(done) == 5 and all(json.loads(p.read_text())["cpu_seconds"] >= 0 for p in done)
    with pytest.raises(InputError, match="not finished"):
        E.run_unit(units(8, 9)[1], E.unit_keys(units(8, 9)), tmp_path)
    with pytest.raises(InputError, match="come before"):
        E.unit_keys(units(1, 2)[1:])


def test_two_processes_train_one_model(tmp_path):
    "Together they make one batch; one of them writes, and both counted their CPU time."
    E.make_clips(tmp_path, {}, domains=("stage",), count=2)
    (tmp_path / "provenance.json").write_text("{}")
    from safetensors.torch import load_file

    lines, weights = {}, {}
    for processes in (1, 2):
        unit, out = (
            E.Unit(
                "marks",
                "stvg_nb.embedded.learn_marks",
                dict(steps=2, batch=4),
                ("clips-train",),
                processes,
            ),
            tmp_path / f"by-{processes}",
        )
        out.mkdir()
        E.work(unit, out, {"clips-train": tmp_path})
        lines[processes] = [
            json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()
        ]
        weights[processes] = load_file(out / "weights.safetensors")
    assert [len(v) for v in lines.values()] == [1, 1] and all(
        v[0]["loss"] > 0 for v in lines.values()
    )
    assert weights[1].keys() == weights[2].keys() and all(
        v.isfinite().all() for v in weights[2].values()
    )
    keys = [
        E.unit_keys([E.Unit("marks", "stvg_nb.embedded.learn_marks", {}, (), n)])["marks"]
        for n in (1, 2)
    ]
    assert keys[0] != keys[1]


def test_difference_round_trip(processor, tmp_path):
    import copy
    import torch

    tokens = {t: processor.tokenizer.convert_tokens_to_ids(t) for t in E.SPECIALS}
    base = E.new_model(len(processor.tokenizer), tokens)
    trained = copy.deepcopy(base)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in trained.named_parameters():
            if ".q_proj.weight" in name:
                p += torch.randn(p.shape[0], 4) @ torch.randn(4, p.shape[1]) * 0.01
            if p.ndim == 1:
                p += 0.01 * torch.randn_like(p)
    told = E.save_delta(trained, base, tmp_path / "delta.safetensors")
    assert told["bytes"] <= E.DELTA_BYTES and told["share"] > 0.999
    back = E.add_delta(copy.deepcopy(base), tmp_path / "delta.safetensors")
    far = sum(
        float((a - b).detach().square().sum())
        for a, b in zip(trained.parameters(), base.parameters())
    )
    left = sum(
        float((a - b).detach().square().sum())
        for a, b in zip(trained.parameters(), back.parameters())
    )
    assert left < 1e-4 * far


def test_a_difference_of_full_rank_keeps_to_its_bytes(processor, tmp_path):
    import copy
    import torch

    base = E.new_model(
        len(processor.tokenizer),
        {t: processor.tokenizer.convert_tokens_to_ids(t) for t in E.SPECIALS},
    )
    trained = copy.deepcopy(base)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in trained.parameters():
            p += 0.01 * torch.randn_like(p)
    told = E.save_delta(trained, base, tmp_path / "delta.safetensors")
    assert (
        0.9 * E.DELTA_BYTES
        < told["bytes"]
        == (tmp_path / "delta.safetensors").stat().st_size
        <= E.DELTA_BYTES
        and 0 < told["share"] < 1
    )


def test_unknown_name_is_refused():
    with pytest.raises(InputError, match="make weights"):
        E.load("no such policy")


def test_shipped_files():
    if "base" not in E.available():  # then its absence is said in one line
        with pytest.raises(InputError, match="make weights"):
            E.load("base")
        return
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = E.weights_dir()
    assert (folder / "model.safetensors").stat().st_size <= 6_000_000
    with safe_open(folder / "model.safetensors", "pt") as f:
        assert {f.get_tensor(k).dtype for k in f.keys()} == {torch.bfloat16}
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder),
    )
    assert (
        type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
        and type(processor).__name__ == "Qwen2_5_VLProcessor"
    )
    assert model.generation_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids(
        "<|im_end|>"
    )
    assert "license" in (folder / "README.md").read_text().lower()
    assert (
        sum(p.stat().st_size for p in (package_dir() / "weights").rglob("*") if p.is_file()) < 60e6
    )


def test_shipped_differences_are_small_and_load():
    import torch
    from stvg_nb.ablations import BASES

    base = dict(E.load("base")[0].named_parameters()) if "base" in E.available() else {}
    for name in set(E.available()) - {"base"}:
        folder = E.weights_dir(name)
        assert (folder / "delta.safetensors").stat().st_size <= (
            3e6 if name in BASES else E.DELTA_BYTES
        ), name
        assert read_json(folder / "provenance.json")["base"] == sha256_file(
            E.weights_dir() / "model.safetensors"
        ), f"{name} is a difference to another base"
        model = E.load(name)[0]
        assert any(not torch.equal(p, base[n]) for n, p in model.named_parameters()), name
