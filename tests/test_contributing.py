"""The examples of chapter 11f are run, and what CONTRIBUTING.md names exists."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


REGISTERED = {
    "DETECTORS": "bright",
    "TRACKERS": "still",
    "TRACK_SOURCES": "bright",
    "POLICIES": "mine",
    "LOADERS": "mine",
    "PROTOCOLS": ("charades-sta", "middle"),
    "SOURCES": "mine",
    "VIEWS": "statements",
    "FORMS": "brief",
    "READERS": "half-rate",
    "BASES": "frozen-embeddings",
}


@pytest.fixture(scope="module")
def examples():
    "The chapter's cells, run one after another; what they register is taken out again."
    names = {}
    for cell in json.loads((ROOT / "nbs/11f_extend.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            code = "".join(cell["source"])
            defined = re.search(r"^(?:class|def) ", code, re.M)
            assert not defined or len(list(filter(None, code.splitlines()))) <= 15, code
            exec(code, names)
    yield names
    for registry, name in REGISTERED.items():
        table = names[registry]
        getattr(table, "entries", table).pop(name)


def test_the_detector(examples):
    from stvg_nb.foundations.prompting_config import PromptingConfig, make_part

    look = make_part(examples["DETECTORS"], "bright", PromptingConfig(confidence=0.5))
    dark, light = np.zeros((2, 7, 9, 3), np.uint8)
    light[2:5, 3:8] = 200
    nothing, found = look([dark, light])
    assert len(nothing) == 0 and found.labels == ["thing"]
    assert found.boxes.tolist() == [[3, 2, 8, 5]] and found.scores.tolist() == [1]


def test_the_tracker(examples):
    from stvg_nb.foundations.prompting_config import PromptingConfig, make_part
    from stvg_nb.sessions import drive

    tracker = make_part(examples["TRACKERS"], "still", PromptingConfig())
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = True
    found, _ = drive(tracker, np.zeros((3, 4, 5, 3), np.uint8), {1: {7: mask}})
    assert sorted(found) == [(0, 7), (1, 7), (2, 7)]
    assert all((m == mask).all() for m in found.values())


def test_the_track_source(examples, tmp_path):
    from stvg_nb.foundations.prompting_config import PromptingConfig
    from stvg_nb.foundations.video import write_video
    from stvg_nb.prompting import build_database

    frames = np.zeros((4, 32, 48, 3), np.uint8)
    frames[1:, 8:16, 16:32] = 250
    write_video(tmp_path / "light.mp4", iter(frames), 10.0)
    config = PromptingConfig(tracker="bright", confidence=0.5)
    db, _ = build_database(tmp_path / "light.mp4", config)
    assert (db.ids, db.frames_of(1)) == ([1], [1, 2, 3])
    assert db.tube(1).boxes[0] == pytest.approx([16, 8, 32, 16], abs=1)


def test_the_policy(examples):
    from stvg_nb.models import load_policy

    three, again, four = (load_policy(f"mine:{n}").fingerprint for n in (3, 3, 4))
    assert three == again != four


def test_the_reward(examples):
    from stvg_nb.foundations.geometry import Interval
    from stvg_nb.rewards import Target, target_json

    target = target_json(Target((2,), Interval(5.0, 11.0), 20.0, 10.0))
    reply = "<think>x</think><answer>Target ID: 2\nTime range: {} seconds to {} seconds</answer>"
    said = [reply.format("6.00", "9.00"), reply.format("12.00", "19.00"), "I cannot say."]
    assert examples["reward_middle"](None, said, target=[target] * 3) == [1.0, 0.0, 0.0]


def test_the_benchmark_and_its_source(examples, tmp_path):
    from stvg_nb.foundations.settings import DataConfig
    from stvg_nb.foundations.sources import load_split

    record = dict(id="a", file="a.mp4", text="she sits down", seconds=[2, 7.5])
    (tmp_path / "test.json").write_text(json.dumps([record]))
    split = load_split(DataConfig(source="mine", root=str(tmp_path)), "mine", "test")
    (sample,) = split.samples
    assert (sample.key, sample.interval.start, sample.interval.end) == ("a", 2, 7.5)
    assert split.facts["name"] == "Mine"


def test_the_protocol(examples, tmp_path):
    from stvg_nb.foundations.scoring import evaluate

    times = {"A": dict(duration=30, timestamps=[[4, 8], [4, 8]], sentences=["a", "b"])}
    (tmp_path / "times.json").write_text(json.dumps(times))
    said = [dict(key="A#0", start=5, end=8.0), dict(key="A#1", start=1, end=2)]
    (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, said)))
    files = dict(annotations=tmp_path / "times.json", predictions=tmp_path / "said.jsonl")
    result = evaluate(benchmark="charades-sta", protocol="middle", **files)
    assert result["metrics"]["m_distance"] == pytest.approx((0.5 + 4.5) / 2)


def test_the_view(examples):
    from dataclasses import fields

    from stvg_nb.foundations.samples import Sample
    from stvg_nb.rows import NumberedSplit

    sample = Sample("a", "mine", "vtg", "who waves?", "a.mp4")
    given = {f.name: None for f in fields(NumberedSplit) if f.init}
    split = NumberedSplit(**given | dict(name="test", samples=[sample]))
    asked = examples["VIEWS"]["statements"](split)
    assert (asked.name, asked.samples[0].query) == ("test, statements", "who waves.")


@pytest.fixture
def trained_sample(tmp_path, monkeypatch):
    "A voted sample of the made-up HC-STVG, and a profile in which it is small."
    from stvg_nb.cli import main
    from stvg_nb.foundations.samples import read_samples
    from stvg_nb.foundations.settings import load_profile

    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    files = ROOT / "tests/data/road/hcstvg"
    words = ["--benchmark", "hcstvg", "--annotations", files / "v1_train.json"]
    words += ["--videos", files / "videos", "--databases", tmp_path / "masks"]
    words += ["--output", tmp_path / "samples.jsonl", "--profile", "smoke", "--quiet"]
    assert main(["dataset", *map(str, words)]) == 0
    small = {"sampling.longer_side": 56, "sampling.max_frames": 4}
    profile = load_profile("smoke", small)
    samples, _ = read_samples(tmp_path / "samples.jsonl", files / "videos", tmp_path / "masks")
    return samples[0], profile


def test_form_and_reader(examples, trained_sample):
    from stvg_nb.examples import make_row, numbered_form, numbered_reader
    from stvg_nb.rewards import reward_id, reward_time

    sample, profile = trained_sample
    form = examples["FORMS"]["brief"]
    plain, brief = (f(sample, profile, profile.train) for f in (numbered_form, form))
    assert brief["text"] == plain["text"] + " Be brief."
    row = make_row(sample, profile, profile.train, form)
    for reward in (reward_id, reward_time):
        assert reward(None, [row["answer"]], target=[row["target"]]) == [1.0]
    (frames, rate), (half, slow) = (
        make(profile, profile.train)(row)
        for make in (numbered_reader, examples["READERS"]["half-rate"])
    )
    assert (half == frames[::2]).all() and slow == rate / 2


def test_the_base_loader(examples):
    from stvg_nb.train_settings import TrainConfig

    model, _ = examples["BASES"]["frozen-embeddings"]("toy", TrainConfig())
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert [n.rpartition(".embed_")[2] for n in frozen] == ["tokens.weight"]


def test_every_example_is_one_of_a_seam_and_all_registries_are_told():
    rows = re.findall(r"^\|[^|]+\| (`[A-Z]+.+?) \|", TEXT, re.M)
    seams = {name for cell in rows for name in re.findall(r"`([A-Z]+(?:_[A-Z]+)*)", cell)}
    (inner,) = re.findall(r"^\w+ further registries are no seams: (.+?)\.", TEXT, re.M | re.S)
    inner = set(re.findall(r"`([A-Z_]+)`", inner))
    made = {
        name
        for path in (ROOT / "stvg_nb").rglob("*.py")
        for name in re.findall(r"^([A-Z_]+) = Registry\(", path.read_text("utf-8"), re.M)
    }
    assert not seams & inner
    assert made - seams == inner, "a registry needs a row of the table of seams, and an example"
    assert set(REGISTERED) >= made - inner


def test_the_seams_that_are_named_exist():
    import importlib

    rows = re.findall(r"^\|[^|]+\| (`[A-Z]+.+?) \|", TEXT, re.M)
    assert len(rows) == 12
    module = "foundations.prompting_config"
    for cell in rows:
        module = (re.findall(r"in `([a-z_.]+)`", cell) or [module])[0]
        found = importlib.import_module(f"stvg_nb.{module}")
        for name in re.findall(r"`([A-Z]+(?:_[A-Z]+)*)", cell):
            assert hasattr(found, name), (module, name)


def test_old_names_do_not_occur():
    old = ("benchmarks", "metrics", "puppets", "embedded", "tracking", "tracks")
    assert not re.findall(rf"stvg_nb\.(?:{'|'.join(old)})\b", TEXT)


def test_paths_and_targets_that_are_named_exist():
    named = set(re.findall(r"`((?:nbs|scripts|tests|papers|stvg_nb)/[\w./]*\w)`", TEXT))
    commands = set(re.findall(r"(?:bash|python) ((?:scripts/|\.ci/)[\w.]+)", TEXT))
    gone = {n for n in named | commands if not (ROOT / n).exists()}
    assert gone <= {"nbs/NN_name.ipynb", "nbs/foundations", "nbs/theatre"}
    make = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z]+)", TEXT, re.M))
    assert {t for t in targets if not re.search(rf"^{t}:", make, re.M)} == set()
