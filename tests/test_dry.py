"""The profile a100-dry: a100's real classes, with small weights and made-up clips."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from stvg_nb.cli import main as stvg
from stvg_nb.dataset import Numberer
from stvg_nb.foundations.files import InputError
from stvg_nb.foundations.masks import MaskDatabase
from stvg_nb.foundations.needs import lacking, needs, numbering_needs
from stvg_nb.foundations.settings import load_profile
from stvg_nb.foundations.sources import load_split
from stvg_nb.models import load_policy
from stvg_nb.plan import ARTEFACTS, chapters, plan
from stvg_nb.process import code_cells, parameters

ROOT = Path(__file__).resolve().parent.parent
MAY_DIFFER = {  # weights, sizes and data
    "top": {"name", "about", "meaningful", "device", "policies"},
    "data": {"source", "limit"},
    "prompting": {"detector_weights", "tracker_config", "tracker_weights", "classes"},
    "train": {"base", "samples", "puppets", "numbering", "processes", "launch"}
    | {"num_generations", "max_completion_length", "max_steps", "save_steps"},
}


def test_only_weights_sizes_and_data_differ_from_a100():
    real, dry = (load_profile(n) for n in ("a100", "a100-dry"))
    differ = {"top": {k for k in MAY_DIFFER["top"] if getattr(real, k) != getattr(dry, k)}}
    for part in ("data", "sampling", "prompting", "train"):
        a, b = (asdict(getattr(p, part)) for p in (real, dry))
        differ[part] = {k for k in a if a[k] != b[k]}
    assert all(differ[k] <= MAY_DIFFER.get(k, set()) for k in differ), differ
    assert (dry.prompting.detector, dry.prompting.tracker) == ("yolo", "sam2")


def test_the_plan_is_complete_and_names_what_it_lacks():
    made = plan("a100-dry")
    assert {a["name"] for a in made["artefacts"]} == set(ARTEFACTS)
    missing = {n["name"] for a in made["artefacts"] for n in a["needs"] if not n["there"]}
    assert not missing


@pytest.mark.slow
def test_a_clip_goes_through_yolo_and_sam2(tmp_path, monkeypatch):
    monkeypatch.setenv("STVG_RUNS", str(tmp_path))
    profile = load_profile("a100-dry")
    split = load_split(profile.data, limit=1, options={"duration": 8.0, "fps": 5})
    numberer = Numberer(profile.prompting, profile.device)
    db = MaskDatabase.open(numberer(split.video(split.samples[0])))
    who = type(numberer.tracker.model).__name__, numberer.detector(split.video(split.samples[0]))
    assert who[0] == "SAM2VideoPredictor" and type(who[1][0].model).__name__ == "YOLO"
    assert len(db) > 0 and db.video["frame_count"] > 0


def test_three_families_are_asked_through_their_own_classes():
    named = load_profile("a100-dry").policies | {"base": "random"}
    kinds = {load_policy(name).model.config.model_type for name in named.values()}
    assert kinds == {"qwen2_5_vl", "qwen3_vl", "internvl"}


def test_doctor_lists_all_of_a100_at_once(capsys):
    assert stvg(["doctor", "--profile", "a100", "--json"]) == 3
    result = json.loads(capsys.readouterr().out)
    told = result["missing"]
    wanted = [n for n in needs(load_profile("a100")) if not n["there"]]
    assert len(told) > len(wanted) > 5
    for n in wanted:
        assert any(n["name"] in p["name"] for p in told), n
    for a in plan("a100")["artefacts"]:  # data of the other benchmarks
        for n in a["needs"]:
            own = n["there"] or n["kind"] != "data" or n["name"].startswith("hcstvg")
            assert own or any(n["name"] in p["name"] for p in told), n
    assert {"video-broken", "policy-missing"} <= {n["kind"] for n in result["notes"]}
    assert {c["chapter"] for c in result["costs"]} >= {"05_train", "07b_tables", "08_ablations"}
    assert sum(c["training"] for c in result["costs"]) > 100 and result["assumptions"]


@pytest.mark.slow
def test_the_first_hour_passes_on_a_processor(tmp_path, monkeypatch, capsys):
    "Every check at a tiny size, with cpu in the place of cuda."
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    words = ["doctor", "--profile", "a100-dry", "--first-hour", "--json", "--quiet"]
    few = {"train.processes": 1, "data.limit": 1, "train.samples": 2}
    words += [w for k, v in few.items() for w in ("--set", f"{k}={v}")]
    assert stvg([*words, "--output", str(tmp_path / "found.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "found.json").read_text())
    ran = {k for k, c in found["checks"].items() if c["ok"]}
    assert ran == {"attention", "masks", "logprobs", "clip", "step", "hours"}, found
    assert found["checks"]["vllm"]["ok"] is None and not found["meaningful"]


OF_NUMBERING = dict(training=False, looks=(numbering_needs,))
LOOKS = {  # what a chapter needs, where it is not all that scoring does
    "05_train": {},
    **dict.fromkeys(("00_start", "00a_explore", "01_prompting"), OF_NUMBERING),
}


def told_a_profile():
    "The chapters that are told a profile; 11e_results reads the committed tables of one."
    for path in chapters():
        given = parameters(path, load_profile("a100"))
        if "profile" in given and path.stem != "11e_results":
            yield path


def played(path, profile):
    "The cells of a chapter in order, the one with the parameters followed by this profile."
    space = {"__name__": "__main__"}
    for cell in code_cells(path):
        exec("".join(cell["source"]), space)
        if "parameters" in cell["metadata"].get("tags", []):
            space["profile"] = profile


@pytest.mark.parametrize("path", told_a_profile(), ids=lambda p: p.stem)
def test_a_chapter_begins_with_what_is_missing(path, monkeypatch, tmp_path, capsys):
    "Every chapter, told a100: the whole list, taken from the profile's own settings."
    monkeypatch.chdir(ROOT)
    for name in ("STVG_RUNS", "STVG_FIGURES"):
        monkeypatch.setenv(name, str(tmp_path / name))
    missing = lacking(load_profile("a100"), **LOOKS.get(path.stem, dict(training=False)))
    assert len(missing) >= 2
    with pytest.raises(InputError, match="profile a100: this machine lacks"):
        played(path, "a100")
    listed = capsys.readouterr().err
    assert [n for n in missing if n["name"] not in listed] == []


CHAPTERS = ["05_train", "07b_tables"]


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_ends_at_once_on_a_machine_without_anything(chapter, tmp_path):
    "papermill -p profile a100: not 0, with the list, before any lesson."
    if not lacking(load_profile("a100")):
        pytest.skip("this machine has everything")
    command = [sys.executable, "-m", "papermill", f"nbs/{chapter}.ipynb", str(tmp_path / "o.ipynb")]
    command += ["-p", "profile", "a100", "--no-progress-bar", "-k", "python3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ))
    assert done.returncode != 0 and "profile a100: this machine lacks" in done.stderr
    cells = json.loads((tmp_path / "o.ipynb").read_text())["cells"]
    ran = [c for c in cells if c["cell_type"] == "code" and c["outputs"]]
    text = json.dumps(ran)
    for n in lacking(load_profile("a100"), **LOOKS.get(chapter, dict(training=False))):
        assert n["name"] in text, n
