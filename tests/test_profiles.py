"""Each shipped profile: artefacts planned, every setting read by something, training accepted."""

import ast
import json
import re
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml

from stvg_nb.cli import build_parser
from stvg_nb.foundations.files import InputError, package_dir
from stvg_nb.foundations.needs import settings_of_profiles
from stvg_nb.foundations.settings import DataConfig, Profile, SamplingConfig, load_profile, profiles
from stvg_nb.plan import ARTEFACTS, plan
from stvg_nb.train_settings import TrainConfig, check_train

ROOT = Path(__file__).resolve().parent.parent
PROFILES = profiles()


@pytest.mark.parametrize("name", PROFILES)
def test_training_is_accepted(name):
    check_train(load_profile(name).train)


@pytest.mark.parametrize("name", PROFILES)
def test_every_artefact_is_planned(name):
    made = plan(name)
    assert {a["name"] for a in made["artefacts"]} == set(ARTEFACTS)
    for a in made["artefacts"]:
        assert a["title"] and a["runs"] == all(n["there"] for n in a["needs"]), a["name"]


def test_real_profiles_name_what_they_lack():
    missing = {n["name"] for a in plan("a100")["artefacts"] for n in a["needs"] if not n["there"]}
    text = "\n".join(missing)
    for word in ("yolo12x.pt", "sam2.1_hiera_large.pt", "Qwen/Qwen2.5-VL-7B-Instruct", "hcstvg"):
        assert word in text, word


def sources():
    "The code of the package, without the dataclasses that declare settings."
    out = []
    for path in sorted(package_dir().rglob("*.py")):
        if path.name == "_modidx.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        declared = [n for n in ast.walk(tree) if isinstance(n, ast.AnnAssign)]
        lines = path.read_text(encoding="utf-8").split("\n")
        for node in declared:
            for k in range(node.lineno - 1, node.end_lineno):
                lines[k] = ""
        out.append("\n".join(lines))
    return "\n".join(out)


def used(names, text):
    "Those of the names that the code reads, as an attribute or by getattr."
    return {n for n in names if re.search(rf"\.{n}\b|[\"']{n}[\"']", text)}


def test_every_setting_is_read_by_something():
    text = sources()
    for cls in (Profile, DataConfig, SamplingConfig, TrainConfig):
        names = {f.name for f in fields(cls)}
        assert names - used(names, text) == set(), cls.__name__
    prompting = {f.name for f in fields(type(load_profile("tiny").prompting))}
    assert prompting - used(prompting, text) == set()


@pytest.mark.parametrize("name", PROFILES)
def test_no_setting_of_a_shipped_profile_is_an_old_name(name):
    values = yaml.safe_load((package_dir() / "profiles" / f"{name}.yaml").read_text()) or {}
    assert not set(values.get("train", {})) & set(TrainConfig.ALIASES)


def test_old_names_are_read_and_new_ones_kept():
    profile = load_profile("smoke", {"train.generations": 3, "train.keep": 7})
    assert (profile.train.num_generations, profile.train.save_total_limit) == (3, 7)
    assert "generations" not in asdict(profile.train)
    with pytest.raises(InputError, match="unknown setting 'generation'"):
        load_profile("smoke", {"train.generation": 3})


def words_of_the_route():
    "The texts of the chapters 11, and the batch scripts: (file, text)."
    for path in sorted((ROOT / "nbs").glob("11*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path.name, "\n".join("".join(c["source"]) for c in cells if c["cell_type"] != "code")
    for path in sorted((ROOT / "slurm").glob("*.sbatch")):
        yield path.name, path.read_text()


@pytest.mark.parametrize("name, text", words_of_the_route(), ids=lambda x: x[:12])
def test_commands_and_settings_of_the_route_exist(name, text):
    commands = next(a for a in build_parser()._actions if a.dest == "command").choices
    for command, rest in re.findall(r"\bstvg ([a-z]+)((?: [^`\n]*)?)", text):
        known = {o for a in commands[command]._actions for o in a.option_strings}
        assert set(re.findall(r"--[a-z][a-z-]+", rest)) <= known, command
    named = set(re.findall(r"\b(?:train|data|prompting|sampling)\.(?!sbatch)[a-z_]+\b", text))
    assert named <= settings_of_profiles(load_profile("a100"))
