"""Wrong command lines by the hundred: each is refused, exit 2 and one line, before a model runs."""

import json
import os
import shutil
from pathlib import Path

import pytest

from stvg_nb.cli import main

DATA = Path(__file__).resolve().parent / "data"
ROAD = DATA / "road/hcstvg"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    "A folder with one sound file of each kind, and with what stands in the way."
    folder = tmp_path_factory.mktemp("shop")
    shutil.copytree(ROAD / "videos", folder / "videos")
    shutil.copyfile(ROAD / "videos/0_clip.mp4", folder / "v.mp4")
    shutil.copyfile(ROAD / "v1_test.json", folder / "annotations.json")
    (folder / "predictions.jsonl").write_text('{"schema": "stvg.predictions/1"}\n')
    sample = dict(video="v.mp4", query="the red square", start=1.0, end=3.0)
    (folder / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    (folder / "mine.yaml").write_text("inherits: smoke\n")
    (folder / "folder").mkdir()
    (folder / "folder/thesis.txt").write_text("precious")
    (folder / "empty").touch()
    (folder / "bytes.bin").write_bytes(bytes(range(256)) * 20)
    (folder / "text.txt").write_text("some words\n")
    (folder / "list.json").write_text("[1, 2]")
    (folder / "utf16.json").write_text("{}", "utf-16")
    (folder / "cut.json.gz").write_bytes(b"\x1f\x8b\x08\x00")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    return folder


SOUND = {
    "evaluate": "--benchmark hcstvg --annotations annotations.json --predictions predictions.jsonl",
    "doctor": "--benchmark hcstvg --annotations annotations.json --no-decode",
    "prompt": "v.mp4 --output out.mp4 --profile smoke",
    "ground": "v.mp4 words --profile smoke --model embedded:base",
    "dataset": "--benchmark hcstvg --annotations annotations.json --videos videos --output o.jsonl"
    " --profile smoke",
    "train": "--profile smoke --data samples.jsonl --method sft --steps 1 --output run",
    "predict": "--benchmark hcstvg --annotations annotations.json --videos videos --output p.jsonl"
    " --profile smoke --model embedded:base",
    "puppets": "--output clips --count 1",
    "demo": "--output demo",
    "reproduce": "--profile smoke --plan",
}
# files that are read, and what may stand there in their place
READ = {
    "evaluate": ["--annotations", "--predictions", "--boxes", "--masks"],
    "doctor": ["--annotations", "--boxes", "--masks", "--train", "--profile"],
    "prompt": ["VIDEO", "--config", "--profile"],
    "ground": ["VIDEO", "--config", "--profile", "--model"],
    "dataset": ["--annotations", "--profile", "--held-out"],
    "train": ["--data", "--config", "--profile", "--base"],
    "predict": ["--annotations", "--profile", "--data"],
    "reproduce": ["--profile"],
}
UNREADABLE = [
    "gone.json",
    "folder",
    "empty",
    "bytes.bin",
    "text.txt",
    "list.json",
    "utf16.json",
    "cut.json.gz",
    "loop",
    "pipe",
    "/dev/zero",
    "text.txt/below.json",
    "x" * 300 + ".json",
    "a\0b.json",
    "",
]
WRITTEN = {
    "prompt": ["--output", "--database"],
    "ground": ["--output", "--render", "--database"],
    "dataset": ["--output"],
    "predict": ["--output"],
}
FOLDERS = {
    "train": ["--output"],
    "puppets": ["--output"],
    "demo": ["--output"],
    "dataset": ["--databases"],
}
UNWRITABLE = ["folder", "text.txt/below.mp4", "x" * 300 + ".mp4", "a\0b.mp4", "pipe", "loop/x"]
NO_FOLDERS = ["text.txt", "text.txt/below", "x" * 300, "a\0b", "pipe", "loop/x"]
VALUES = {
    "--seed": ["x", "1.5", "", "-1e3"],
    "--device": ["tpu", "", "CPU"],
    "--set": [
        "seed",
        "=1",
        "sed=1",
        "prompting.mark_size=1000000",
        "sampling.rate=.nan",
        "seed=[1",
    ],
    "--profile": ["huge", "../tiny", "", "gone.yaml"],
}
COUNTS = {
    ("puppets", "--count"): ["0", "-1", "x", "1.5", ""],
    ("train", "--steps"): ["0", "-1", "x", ""],
    ("reproduce", "--jobs"): ["0", "-1", "x"],
    ("reproduce", "--only"): ["r1-table99", ""],
    ("evaluate", "--protocol"): ["vidstg", "", "CLEAN!"],
    ("evaluate", "--benchmark"): ["hcstvgg", ""],
    ("evaluate", "--missing"): ["ignore", ""],
    ("dataset", "--shard"): ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", ""],
    ("predict", "--shard"): ["0/2", "3/2", "1", "a/b", "1/0", ""],
    ("predict", "--task"): ["mot", ""],
    ("predict", "--repair"): ["best", ""],
    ("ground", "--task"): ["mot", ""],
    ("train", "--method"): ["ppo", ""],
    ("puppets", "--domain"): ["moon", ""],
    ("puppets", "--split"): ["all", ""],
}


def lines():
    "(command, option, value) of every wrong command line."
    for command, options in READ.items():
        yield from ((command, o, v) for o in options for v in UNREADABLE)
    for command, options in WRITTEN.items():
        yield from ((command, o, v) for o in options for v in UNWRITABLE)
    for command, options in FOLDERS.items():
        yield from ((command, o, v) for o in options for v in NO_FOLDERS)
    for command in ("doctor", "prompt", "train", "predict", "ground"):
        for option, values in VALUES.items():
            yield from ((command, option, v) for v in values)
    for (command, option), values in COUNTS.items():
        yield from ((command, option, v) for v in values)
    for command in SOUND:
        yield command, "--no-such-option", "x"
        yield command, "", "one-word-too-many\0"


LINES = list(lines())


def arguments(command, option, value):
    words = SOUND[command].split()
    if option in ("--jobs", "--only"):
        words = ["--profile", "smoke", "--only", "x-fragmentation"]
    if option == "VIDEO":
        return [command, value, *words[1:]]
    if option in words:
        k = words.index(option)
        words[k + 1] = value
    else:
        words += [option, value] if option else [value]
    return [command, *words]


def kept_files(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("command, option, value", LINES)
def test_one_line_and_nothing_lost(shop, monkeypatch, capsys, command, option, value):
    monkeypatch.chdir(shop)
    monkeypatch.setenv("STVG_RUNS", str(shop.parent / "runs"))
    before = kept_files(shop)
    code = main([*arguments(command, option, value), "--quiet"])
    out, err = capsys.readouterr()
    if command in ("doctor", "prompt") and code == 3:  # a report of what is missing, or set aside
        assert out and not err
        # who took which item of a list is told in the folder of leases
        now = {p: v for p, v in kept_files(shop).items() if ".leases" not in p.parts}
        assert now == before
        return
    assert (code, out) == (2, ""), (code, out[:300], err)
    assert err.startswith("stvg: error: ") and err.count("\n") == 1, err
    assert kept_files(shop) == before


def test_so_many():
    assert len(set(LINES)) >= 300 and os.environ.get("HF_HUB_OFFLINE") == "1"
