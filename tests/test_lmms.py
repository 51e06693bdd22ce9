"""The task folders of chapter 11cd, asked and scored by the installed lmms-eval."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stvg_nb.cli import main as stvg
from stvg_nb.foundations.files import read_jsonl
from stvg_nb.foundations.samples import true_seconds, write_samples
from stvg_nb.foundations.settings import load_profile
from stvg_nb.foundations.sources import load_split
from stvg_nb.lmms import TUBE_BENCHMARKS, mevis_tracks
from stvg_nb.models import load_policy
from stvg_nb.policies import video_facts
from stvg_nb.predict import answer_config, predict
from stvg_nb.rows import number_split

pytestmark = pytest.mark.lmms
SHORT = {"data.limit": 3, "prompting.draw_at": "native", "train.max_completion_length": 32}
READ = (
    "<think>It moves.</think><answer>The target ID is {}, from {:.2f} to {:.2f} seconds.</answer>"
)


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def numbered(benchmark):
    "Three clips in a benchmark's lay-out: a whole profile, samples with databases, files."
    profile = load_profile("smoke", SHORT)
    split = load_split(profile.data, benchmark, options={"duration": 8.0, "fps": 5})
    made = number_split(split, profile.prompting, progress=False)
    return profile, [replace(s, benchmark=benchmark) for s in made.samples], split.files


def replies(samples):
    "A right time with the first number, a number that nobody has, and nothing that can be read."
    sample, rate = samples[0], video_facts(samples[0])["fps"]
    true = true_seconds(replace(sample, fps=sample.fps or rate))
    texts = [READ.format(1, true.start, true.end), READ.format(77, 0.5, 2.0), "I do not know."]
    return {s.key: t for s, t in zip(samples, texts)}


class Replayed:
    "A model of lmms-eval that says what it was given."

    def __new__(cls, said):
        from lmms_eval.api.model import lmms

        def generate_until(self, requests):
            docs = [self.task_dict[r.args[4]][r.args[5]][r.args[3]] for r in requests]
            assert all(r.args[2](d)[0].endswith(".mp4") for r, d in zip(requests, docs))
            self.asked += [r.args[0] for r in requests]
            return [said[d["key"]] for d in docs]

        body = dict(generate_until=generate_until, asked=[])
        body |= dict.fromkeys(("loglikelihood", "generate_until_multi_round"))
        return type("Replay", (lmms,), body)()


def scored_there(folder, task, said):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    model = Replayed(said)
    found = simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        batch_size=1,
    )
    return found["results"][task], model.asked


def scored_here(benchmark, samples, files, said, config, capsys, out):
    "`stvg predict`'s own road with a policy that says the same, then `stvg evaluate`."
    policy = load_policy("random")
    policy.generate = lambda prompts, *_: [[said[p.key]] for p in prompts]
    predict(policy, samples, out, config, benchmark=benchmark, progress=False)
    words = ["evaluate", "--benchmark", benchmark, "--annotations", str(files["annotations"])]
    words += ["--boxes", str(files["boxes"])] if "boxes" in files else []
    assert stvg([*words, "--predictions", str(out), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", TUBE_BENCHMARKS)
def test_scores_are_those_of_evaluate(benchmark, tmp_path, capsys):
    profile, samples, files = numbered(benchmark)
    said, data = replies(samples), tmp_path / "samples.jsonl"
    write_samples(data, samples)
    config = answer_config(profile)
    here = scored_here(benchmark, samples, files, said, config, capsys, tmp_path / "p.jsonl")
    folder = tmp_path / "tasks"
    words = ["export", str(data), "--form", "lmms-eval", "--output", str(folder)]
    words += ["--benchmark", benchmark, "--annotations", str(files["annotations"])]
    words += ["--boxes", str(files["boxes"])] if "boxes" in files else []
    words += ["--videos", str(files["videos"])]
    words += ["--databases", str(Path(samples[0].database).parent)]
    words += [w for k, v in SHORT.items() for w in ("--set", f"{k}={v}")]
    assert stvg([*words, "--profile", "smoke"]) == 0
    there, asked = scored_there(folder, f"stvg_{benchmark.replace('-', '_')}", said)
    assert sorted(asked) == sorted(d["question"] for d in read_jsonl(folder / "samples.jsonl"))
    measured = {k.split(",")[0]: v for k, v in there.items() if isinstance(v, float)}
    metrics = {k: v for k, v in here.items() if k != "id_accuracy"}
    assert metrics and {k: measured[k] for k in metrics} == metrics
    assert 0 < metrics["m_tiou"] < 1


@pytest.mark.slow
def test_mevis_tracks_are_read_and_lie_in_the_masks(tmp_path):
    from lmms_eval.tasks.rvos.utils import _evaluate_video_object_tracking, extract_tracks
    from stvg_nb.foundations.samples import open_database

    _, samples, _ = numbered("hcstvg")
    db = open_database(samples[0].database)
    ids, (height, width), fps = list(db.ids)[:2], db.size, 5.0
    text = mevis_tracks(db, ids, fps)
    read = extract_tracks(text, width, height, fps)
    seen = {
        f: [i for i in ids if db.mask(i, f) is not None] for f in range(0, db.frames["stop"], 5)
    }
    assert {t["frame"]: len(t["points"]) for t in read} == {f: len(i) for f, i in seen.items() if i}
    masks = {
        str(k): [db.rle(i, f) if db.mask(i, f) is not None else None for f in range(200)]
        for k, i in enumerate(ids)
    }
    whole = [t for t in read if len(t["points"]) == len(ids)]
    found = _evaluate_video_object_tracking(whole, whole, masks, height, width)
    assert found["f1"] > 0.999 and found["HOTA"] > 0.999, found
