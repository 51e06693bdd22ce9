"""The packaging files agree, the build reads what it should, and the repository's own checks can fail."""

import configparser, re, subprocess, sys, tomllib
from pathlib import Path

import pytest, yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import checks  # noqa: E402

STACK = (
    "jupyterlab papermill nbdev torch transformers trl peft accelerate ultralytics-opencv-headless sam2 matplotlib ipywidgets pycocotools"
).split()


@pytest.fixture(scope="module")
def ini():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "settings.ini")
    return parser["DEFAULT"]


@pytest.fixture(scope="module")
def toml():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def names(requirements):
    return {re.split(r"[<>=!~\[; ]", r)[0].lower() for r in requirements}


def test_settings_and_pyproject_agree(ini, toml):
    project = toml["project"]
    assert ini["requirements"].split() == project["dependencies"]
    assert ini["dev_requirements"].split() == project["optional-dependencies"]["dev"]
    assert (ini["lib_name"], ini["description"]) == (project["name"], project["description"])
    assert project["requires-python"] == f">={ini['min_python']}"
    assert [f"{k} = {v}" for k, v in project["scripts"].items()] == [
        ini["console_scripts"].replace("=", " = ", 1)
    ]


def test_the_stack_is_declared(ini):
    assert set(STACK) <= names(ini["requirements"].split())


def test_every_requirement_is_pinned(ini):
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().split():
        name, equals, version = re.match(r"([^=]+)(={2,3})(.+)", line).groups()
        pins[name.lower().replace("_", "-")] = version
    missing = {
        n
        for n in names(ini["requirements"].split() + ini["dev_requirements"].split())
        if n.replace("_", "-") not in pins
    }
    assert not missing


def test_version_is_the_one_in_settings(ini):
    import stvg_nb

    assert stvg_nb.__version__ == ini["version"]


def test_nbdev_reads_settings_ini(ini):
    from nbdev.config import get_config

    config = get_config(path=ROOT)
    assert config.lib_name == ini["lib_name"] and Path(config.config_file).name == "settings.ini"
    assert "tags" in config.allowed_cell_metadata_keys.split()


def test_root_quarto_file_is_the_one_that_is_read():
    included = yaml.safe_load((ROOT / "nbs/_quarto.yml").read_text())
    assert included == {"metadata-files": ["../_quarto.yml", "nbdev.yml"]}
    chapters = {p.name for p in (ROOT / "nbs").glob("*.ipynb")}
    listed = re.findall(r"[\w.]+\.ipynb", (ROOT / "_quarto.yml").read_text())
    assert set(listed) == chapters


@pytest.mark.parametrize("name", ["test", "site"])
def test_workflows_call_the_project_s_own_commands(name):
    text = (ROOT / f".github/workflows/{name}.yml").read_text()
    assert (
        yaml.safe_load(text)["jobs"] and {"test": "bash .ci/run", "site": "make site"}[name] in text
    )


def test_make_help_lists_every_target():
    out = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {"install", "test", "reproduce", "site", "lab", "bench", "clean"} <= {
        line.split()[0] for line in out.splitlines()
    }


def test_light_imports():
    "Neither the package nor the help text imports anything heavy."
    heavy = "torch transformers trl peft ultralytics sam2 cv2 av pandas matplotlib pycocotools scipy IPython nbdev papermill yaml"
    code = f"import sys, stvg_nb; first = set(sys.modules); from stvg_nb.cli import build_parser; build_parser().format_help(); print([m for m in {heavy.split()} if m in sys.modules], 'numpy' in first)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[] False"
    )


def notebook(*sources, tags=()):
    return {
        "cells": [
            {
                "cell_type": "code",
                "metadata": {"tags": list(tags)} if i == 0 else {},
                "source": s,
                "outputs": [],
            }
            for i, s in enumerate(sources)
        ]
    }


def test_checks_find_what_they_look_for():
    path = Path("nbs/x.ipynb")
    assert checks.long_cells({path: notebook("\n".join(["a = 1"] * 61))}) and not checks.long_cells(
        {path: notebook("\n".join(["a = 1"] * 60))}
    )
    assert checks.missing_parameters({path: notebook("p = load_profile(profile)")})
    assert not checks.missing_parameters(
        {path: notebook("profile = None", "p = load_profile(profile)", tags=["parameters"])}
    )
    assert checks.missing_parameters(
        {path: notebook("#| export\nprofile = None", tags=["parameters"])}
    )
    assert any("no notebook exports it" in line for line in checks.orphans({}))
    assert checks.mixed_imports({path: notebook("import os\nx = 1")}) and not checks.mixed_imports(
        {path: notebook("import os", "x = 1")}
    )
    shown = notebook("1")
    shown["cells"][0]["outputs"] = [{"text": ["saved in /home/somebody/x.json"]}]
    assert checks.machine_paths({path: shown}) and not checks.machine_paths({path: notebook("1")})
    early, late = (
        notebook("#| default_exp core", "#| export\nfrom stvg_nb.cli import main"),
        notebook("#| default_exp cli"),
    )
    assert checks.upward_imports({Path("nbs/00_core.ipynb"): early, Path("nbs/12_cli.ipynb"): late})


def test_checks_hold_for_this_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    nbs = checks.notebooks()
    assert len(nbs) >= 6
    assert (
        checks.long_cells(nbs)
        + checks.missing_parameters(nbs)
        + checks.artefact_parameters(nbs)
        + checks.orphans(nbs)
        + checks.upward_imports(nbs)
        + checks.mixed_imports(nbs)
        + checks.machine_paths(nbs)
        == []
    )


def test_broken_links_are_found(tmp_path):
    import importlib.util

    spec = importlib.util.spec_from_file_location("build_site", ROOT / "scripts/build_site.py")
    site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site)
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#there">b</a><a href="gone.html">x</a><a href="https://example.org">e</a>'
    )
    (tmp_path / "b.html").write_text(
        '<p id="here"></p><a href="a.html#top">a</a><img src="gone.png">'
    )
    assert site.broken_links(tmp_path) == [
        ("a.html", "b.html#there"),
        ("a.html", "gone.html"),
        ("b.html", "gone.png"),
    ]
