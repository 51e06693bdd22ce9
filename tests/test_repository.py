"""The packaging files agree, the build reads what it should, and the checks can fail."""

import configparser
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import build_site  # noqa: E402
import checks  # noqa: E402
import derived  # noqa: E402
import notebooks  # noqa: E402
import style  # noqa: E402

STACK = (
    "jupyterlab papermill nbdev torch transformers trl peft accelerate "
    "ultralytics-opencv-headless sam2 matplotlib ipywidgets pycocotools"
).split()


INSTALLED = ("requirements", *(f"{e}_requirements" for e in ("train", "yolo", "book", "dev")))


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


def installed(ini):
    "What `make install` sets up, by name."
    return names(r for key in INSTALLED for r in ini[key].split())


def test_files_that_follow_from_others_do(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert derived.stale() == []


def test_a_file_that_no_longer_follows_is_found(monkeypatch, tmp_path):
    for name in ("settings.ini", *derived.derived()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for path in (ROOT / "papers").glob("*.csv"):
        shutil.copy(path, tmp_path / "papers")
    (tmp_path / "figures/tiny").mkdir(parents=True)
    for path in (ROOT / "figures/tiny").glob("*.csv"):
        shutil.copy(path, tmp_path / "figures/tiny")
    monkeypatch.chdir(tmp_path)
    assert derived.stale() == []
    for name, old, new in (
        ("settings.ini", "user = open-stvg", "user = somebody"),
        ("papers/reported.csv", "\n", "\r\n"),
        (
            "figures/tiny/x-cold-start.csv",
            "+SFT+GRPO,measured,hcstvg,clean,zero,300,0.",
            "+SFT+GRPO,measured,hcstvg,clean,zero,300,1.",
        ),
        ("stvg_nb/weights/policy-grpo-1/README.md", "## Use", "## Usage"),
    ):
        path = tmp_path / name
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))
    stale = {line.split(":")[0] for line in derived.stale()}
    assert stale == {
        "pyproject.toml",
        "CITATION.cff",
        "nbs/nbdev.yml",
        "stvg_nb/data/reported.csv",
        "papers/results.md",  # its links hold the address
        "stvg_nb/weights/policy-cold-0/README.md",  # a score of its table
        "stvg_nb/weights/policy-grpo-1/README.md",
    }


def test_settings_and_pyproject_agree(ini, toml):
    project = toml["project"]
    assert ini["requirements"].split() == project["dependencies"]
    for name, requirements in project["optional-dependencies"].items():
        assert ini[f"{name}_requirements"].split() == requirements
    assert (ini["lib_name"], ini["description"]) == (project["name"], project["description"])
    assert project["requires-python"] == f">={ini['min_python']}"
    assert [f"{k}={v}" for k, v in project["scripts"].items()] == [ini["console_scripts"]]
    for name, value in toml["tool"]["nbdev"].items():
        assert ini[name] == (" ".join(value) if isinstance(value, list) else str(value))


def test_the_stack_is_declared_and_installed(ini):
    assert set(STACK) <= installed(ini)
    script = (ROOT / "scripts/bootstrap.sh").read_text()
    extras = re.search(r'-e "\.\[(.+)]"', script).group(1).split(",")
    assert {f"{e}_requirements" for e in extras} | {"requirements"} == set(INSTALLED)


def test_the_trainer_needs_no_book_and_only_yolo_is_agpl(ini):
    lean = names(f"{ini['requirements']} {ini['train_requirements']}".split())
    assert not lean & {"jupyterlab", "papermill", "nbdev", "ipywidgets"}
    assert not {n for n in lean if "ultralytics" in n}
    assert {"trl", "peft", "accelerate", "transformers", "torch"} <= lean


def test_every_requirement_is_pinned(ini):
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().split():
        name, equals, version = re.match(r"([^=]+)(={2,3})(.+)", line).groups()
        pins[name.lower().replace("_", "-")] = version
    assert not {n for n in installed(ini) if n.replace("_", "-") not in pins}


def test_pins_install_on_the_oldest_python(ini):
    oldest = ini["min_python"] + ".0"
    newer = {}
    for package in importlib.metadata.distributions():
        wanted = package.metadata.get("Requires-Python")
        if wanted and not SpecifierSet(wanted).contains(oldest):
            newer[package.name] = wanted
    assert newer == {}


def test_no_address_is_the_papers_authors_own(ini):
    "Repository, site and citation are set in one place, settings.ini."
    for name in ("pyproject.toml", "CITATION.cff", "nbs/nbdev.yml", "stvg_nb/_modidx.py"):
        text = (ROOT / name).read_text()
        assert ini["git_url"] in text
        assert not re.search(r"stvg-r1\.github|github\.com/(stvg-r1|XiaowZhang00)", text)


def test_licences_are_all_there(ini, toml):
    assert toml["project"]["license"] == "Apache-2.0 AND AGPL-3.0-only"
    for pattern in toml["project"]["license-files"]:
        assert list(ROOT.glob(pattern)), pattern
    agpl = (ROOT / "LICENSES/AGPL-3.0-only.txt").read_text()
    assert agpl.strip() in (ROOT / "stvg_nb/weights/puppets-yolo12n.LICENSE.txt").read_text()
    assert "LICENSES/AGPL-3.0-only.txt" in (ROOT / "NOTICE").read_text()


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
    assert included == {"metadata-files": ["../_quarto.yml", "nbdev.yml", "sidebar.yml"]}
    assert "sidebar" not in yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]


def hrefs(entry):
    "All pages below an entry of the sidebar."
    if isinstance(entry, str):
        return [entry]
    return [h for e in entry.get("contents", [entry.get("href")]) for h in hrefs(e)]


def test_every_notebook_stands_in_the_sidebar_once(monkeypatch):
    monkeypatch.chdir(ROOT)
    listed = hrefs(build_site.sidebar(checks.notebooks()))
    chapters = {p.relative_to("nbs").as_posix() for p in notebooks.paths()}
    assert {h for h in listed if h.endswith(".ipynb")} == chapters
    assert len(listed) == len(set(listed)) and "papers/index.md" in listed


def test_sidebar_follows_the_folders():
    names = ("index", "00_start", "01_mark", "12_cli", "theatre/puppets")
    nbs = {Path(f"nbs/{n}.ipynb"): notebook("1") for n in names}
    nbs[Path("nbs/foundations/a.ipynb")] = made(
        "foundations.a", "from stvg_nb.foundations.b import x"
    )
    nbs[Path("nbs/foundations/b.ipynb")] = made("foundations.b", "x = 1")
    contents = build_site.sidebar(nbs)["contents"]
    of = {e["section"]: e["contents"] for e in contents if "section" in e}
    of.pop("Papers", None)
    assert list(of.items()) == [
        ("Start", ["index.ipynb", dict(text="00", href="00_start.ipynb")]),
        ("Method", [dict(text="01", href="01_mark.ipynb")]),
        ("Foundations", ["foundations/b.ipynb", "foundations/a.ipynb"]),
        ("Theatre", ["theatre/puppets.ipynb"]),
        ("Running it", [dict(text="12", href="12_cli.ipynb")]),
    ]


def test_workflows_call_the_project_s_own_commands():
    flows = {
        p.stem: yaml.safe_load(p.read_text()) for p in (ROOT / ".github/workflows").glob("*.yml")
    }

    def commands(job):
        return " ".join(s["run"] for s in flows["test"]["jobs"][job]["steps"] if "run" in s)

    assert "bash .ci/run lint checks" in commands("lint")
    assert "bash .ci/run tests" in commands("tests")
    assert "bash .ci/run reproduce" in commands("reproduce")
    assert "bash .ci/run transformers" in commands("transformers")
    assert "bash .ci/run nbdev3" in commands("nbdev3")
    assert "bash .ci/run wheel" in commands("wheel")
    assert "bash .ci/run install ${{ matrix.step }}" in commands("apart")
    apart = flows["test"]["jobs"]["apart"]["strategy"]["matrix"]["step"]
    assert apart == ["sharding", "ray", "lmms", "dry"]
    assert "make site" in (ROOT / ".github/workflows/site.yml").read_text()
    assert set(flows) == {"test", "site"}


def test_ci_refuses_a_step_that_it_does_not_have():
    out = subprocess.run(["bash", ROOT / ".ci/run", "fly"], capture_output=True, text=True)
    assert out.returncode == 2 and "no step 'fly'" in out.stderr


def test_pre_commit_needs_no_network():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    hooks = {h["id"]: h for h in repo["hooks"]}
    assert set(hooks) == {"nbdev-clean", "nbdev-export", "ruff-format", "ruff"}
    assert {h["language"] for h in hooks.values()} == {"system"}


def test_make_help_lists_every_target():
    out = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {"install", "test", "reproduce", "site", "lab", "bench", "clean"} <= {
        line.split()[0] for line in out.splitlines()
    }


FAKE_PYTHON = """#!/bin/bash
printf '%s\\n' "$PWD|$*" >>"$LOG"
if [ "$1 $2" = "-m venv" ]; then
  [ -z "${NO_VENV:-}" ] || exit 1
  mkdir -p "$3/bin"
  cp "$0" "$3/bin/python"
  touch "$3/pyvenv.cfg"
fi
"""
PLACE = "a place with 'quotes' and $signs"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    "Makefile and scripts in a folder with an odd name; a Python that only notes what it is told."
    place = tmp_path / PLACE
    (place / "nbs").mkdir(parents=True)
    shutil.copytree(ROOT / "scripts", place / "scripts")
    for name in ("Makefile", "settings.ini", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, place)
    (tmp_path / "bin").mkdir()
    for name, text in {"python": FAKE_PYTHON, "apt-get": "#!/bin/sh\nexit 1\n"}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("VENV", raising=False)
    return place


def make(place, *arguments):
    command = ["make", f"PYTHON={place.parent / 'bin/python'}", *map(str, arguments)]
    return subprocess.run(command, cwd=place, capture_output=True, text=True)


def precious(folder):
    "A folder of somebody's, with their work and what a virtual environment of theirs holds."
    for name in ("thesis.txt", "pyvenv.cfg", ".installed"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    return folder


def test_clean_removes_what_install_made_and_nothing_else(checkout):
    assert make(checkout, "install").returncode == 0
    assert (checkout / ".venv/.installed").is_file()
    for name in ("runs", "build", "papers"):
        (checkout / name).mkdir()
    assert make(checkout, "clean").returncode == 0
    left = {p.name for p in checkout.iterdir()}
    assert "papers" in left and not left & {".venv", "runs", "build"}


def test_no_folder_named_by_the_caller_s_environment_is_touched(checkout, tmp_path, monkeypatch):
    theirs = precious(tmp_path / "theirs")
    monkeypatch.setenv("VENV", str(theirs))
    assert make(checkout, "install", "clean").returncode == 0
    assert make(checkout, "-e", "install", "clean").returncode == 0
    assert sorted(p.name for p in theirs.iterdir()) == [".installed", "pyvenv.cfg", "thesis.txt"]


def test_clean_leaves_a_folder_that_it_did_not_make(checkout, tmp_path):
    theirs = precious(tmp_path / "theirs")
    (tmp_path / "link").symlink_to(theirs)
    for name in (theirs, "../theirs", tmp_path / "link", "", ".", "/"):
        out = make(checkout, "clean", f"VENV={name}")
        assert out.returncode == 0 and (name == "" or "is left" in out.stdout)
    assert (theirs / "thesis.txt").is_file() and (checkout / "Makefile").is_file()
    # a marker that was copied along names another folder
    assert make(checkout, "install").returncode == 0
    shutil.copytree(checkout / ".venv", tmp_path / "copy")
    make(checkout, "clean", f"VENV={tmp_path / 'copy'}")
    assert (tmp_path / "copy/pyvenv.cfg").is_file()
    assert "another place" in make(checkout, "install", f"VENV={tmp_path / 'copy'}").stderr


def test_install_never_removes_a_folder_that_was_there(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_VENV", "1")
    theirs = precious(tmp_path / "theirs")
    out = make(checkout, "install", f"VENV={theirs}")
    assert out.returncode == 2 and "was there before" in out.stderr
    (checkout / ".venv").mkdir()
    assert make(checkout, "install").returncode == 2 and (checkout / ".venv").is_dir()
    (checkout / ".venv").rmdir()
    assert make(checkout, "install").returncode == 2 and not (checkout / ".venv").exists()
    assert (theirs / "thesis.txt").is_file()


def test_a_folder_of_ours_that_is_broken_is_made_again(checkout):
    assert make(checkout, "install").returncode == 0
    (checkout / ".venv/bin/python").unlink()
    assert make(checkout, "install").returncode == 0
    assert (checkout / ".venv/bin/python").is_file()


def test_an_environment_of_theirs_can_be_used_and_is_not_removed(checkout, tmp_path):
    theirs = precious(tmp_path / "their environment")
    (theirs / "bin").mkdir()
    shutil.copy(tmp_path / "bin/python", theirs / "bin")
    assert make(checkout, "install", f"VENV={theirs}").returncode == 0
    assert make(checkout, "clean", f"VENV={theirs}").returncode == 0
    assert (theirs / "thesis.txt").is_file()


def test_a_second_install_does_nothing(checkout, tmp_path):
    assert make(checkout, "install").returncode == 0
    before = (tmp_path / "log").read_text()
    assert make(checkout, "install").returncode == 0 and (tmp_path / "log").read_text() == before
    os.utime(checkout / "settings.ini", (2**31, 2**31))
    assert make(checkout, "install").returncode == 0 and (tmp_path / "log").read_text() != before


@pytest.mark.parametrize("uid", [0, 1000])
def test_lab_opens_the_index_as_root_too(checkout, tmp_path, uid):
    (tmp_path / "bin/id").write_text(f"#!/bin/sh\necho {uid}\n")
    (tmp_path / "bin/id").chmod(0o755)
    assert make(checkout, "lab").returncode == 0
    told = (tmp_path / "log").read_text().splitlines()[-1]
    inside = any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv")))
    options = ["--allow-root"] * (uid == 0) + ["--no-browser", "--ip=0.0.0.0"] * inside
    assert told == " ".join([f"{checkout / 'nbs'}|-m jupyterlab", *options, "index.ipynb"])


def test_the_profile_is_one_word(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("PROFILE", "tiny; touch pwned $(touch pwned) $(shell touch pwned)")
    assert make(checkout, "reproduce").returncode == 0
    assert not (checkout / "pwned").exists()
    told = (tmp_path / "log").read_text().splitlines()[-1]
    assert told.endswith(
        "reproduce --profile tiny; touch pwned $(touch pwned) $(shell touch pwned)"
    )


def test_light_imports():
    "Neither the package nor the help text imports anything heavy."
    heavy = (
        "torch transformers trl peft ultralytics sam2 cv2 av pandas matplotlib pycocotools scipy "
        "IPython nbdev papermill yaml"
    )
    code = f"""
import sys, stvg_nb
first = set(sys.modules)
from stvg_nb.cli import build_parser
build_parser().format_help()
print([m for m in {heavy.split()} if m in sys.modules], 'numpy' in first)
"""
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


def made(module, *exported):
    "A notebook that makes a module."
    return notebook(f"#| default_exp {module}", *(f"#| export\n{code}" for code in exported))


def test_checks_find_what_they_look_for():
    path = Path("nbs/x.ipynb")
    assert checks.missing_parameters({path: notebook("p = load_profile(profile)")})
    assert not checks.missing_parameters(
        {path: notebook("profile = None", "p = load_profile(profile)", tags=["parameters"])}
    )
    assert checks.missing_parameters(
        {path: notebook("#| export\nprofile = None", tags=["parameters"])}
    )
    assert any("no notebook exports it" in line for line in checks.orphans({}))
    assert checks.mixed_imports({path: notebook("import os\nx = 1")})
    assert not checks.mixed_imports({path: notebook("import os", "x = 1")})
    shown = notebook("1")
    shown["cells"][0]["outputs"] = [{"text": ["saved in /home/somebody/x.json"]}]
    assert checks.machine_paths({path: shown}) and not checks.machine_paths({path: notebook("1")})


def test_orphans_are_found_in_every_folder(tmp_path):
    place = Path("nbs/foundations/geometry.ipynb")
    for name in ("a.py", "__init__.py", "foundations/__init__.py", "foundations/geometry.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    nbs = {Path("nbs/00_a.ipynb"): made("a"), place: made("foundations.geometry")}
    assert checks.orphans(nbs, tmp_path) == []
    (tmp_path / "foundations/old.py").touch()
    (tmp_path / "foundations/__init__.py").unlink()
    (tmp_path / "a.py").unlink()
    found = "\n".join(checks.orphans(nbs, tmp_path))
    for part in (
        "foundations/old.py: no notebook exports it",
        "a.py: missing",
        "foundations/__init__.py: missing",
    ):
        assert part in found
    assert (
        "lies in foundations but exports geometry" in checks.orphans({place: made("geometry")})[0]
    )
    assert "no part of the project" in checks.orphans({Path("nbs/attic/x.ipynb"): notebook("1")})[0]
    twice = {Path("nbs/00_a.ipynb"): made("a"), Path("nbs/01_b.ipynb"): made("a")}
    assert any("exports too" in line for line in checks.orphans(twice))


PROJECT = {
    "nbs/foundations/files.ipynb": "foundations.files",
    "nbs/foundations/masks.ipynb": "foundations.masks",
    "nbs/01_prompting.ipynb": "prompting",
    "nbs/02_voting.ipynb": "voting",
    "nbs/theatre/puppets.ipynb": "theatre.puppets",
}


def findings(module, code):
    "What `layers` says of a project in which one module holds this code."
    nbs = {Path(p): made(m, *([code] if m == module else [])) for p, m in PROJECT.items()}
    return checks.layers(nbs)


@pytest.mark.parametrize(
    "module, code",
    [
        ("foundations.masks", "from stvg_nb.foundations.files import read"),
        ("foundations.masks", "from .files import read"),
        ("foundations.masks", "from stvg_nb.foundations import files"),
        ("voting", "import stvg_nb.prompting as P\nfrom stvg_nb.foundations.files import read"),
        ("voting", 'here = "stvg_nb.voting.rule"'),
        ("voting", '"stvg_nb.theatre.puppets is only spoken of in a text"'),
        ("voting", 'SOURCES = {"puppets": "stvg_nb.theatre.puppets.samples"}'),
        ("voting", 'SOURCES: dict = {"puppets": "stvg_nb.theatre.puppets.samples"}'),
        ("voting", 'SOURCES["puppets"] = "stvg_nb.theatre.puppets.samples"'),
        ("voting", 'SOURCES.update(puppets="stvg_nb.theatre.puppets.samples")'),
        ("voting", "from stvg_nb import __version__"),
        ("theatre.puppets", "from stvg_nb.voting import rule\nfrom ..prompting import mark"),
    ],
)
def test_imports_that_point_down(module, code):
    assert findings(module, code) == []


@pytest.mark.parametrize(
    "module, code, why",
    [
        ("foundations.files", "from stvg_nb.voting import rule", "foundations import only"),
        ("foundations.files", "from ..voting import rule", "foundations import only"),
        ("foundations.files", "from stvg_nb.theatre import puppets", "only the theatre"),
        ("prompting", "from stvg_nb.voting import rule", "a later chapter"),
        ("prompting", "def f():\n    from stvg_nb.voting import rule", "a later chapter"),
        ("prompting", "def f():\n    import stvg_nb.voting", "a later chapter"),
        ("prompting", 'def f():\n    return resolve("stvg_nb.voting.rule")', "a later chapter"),
        ("prompting", 'def f(n):\n    return resolve(f"stvg_nb.voting.{n}")', "a later chapter"),
        ("prompting", 'class A:\n    rule: str = "stvg_nb.voting.rule"', "a later chapter"),
        ("voting", "from stvg_nb.theatre.puppets import draw", "only the theatre"),
        ("voting", 'dict(source="stvg_nb.theatre.puppets")', "only the theatre"),
        ("voting", 'OTHERS = {"puppets": "stvg_nb.theatre.puppets.draw"}', "only the theatre"),
        ("voting", "from stvg_nb.gone import x", "no notebook makes"),
    ],
)
def test_imports_that_point_up(module, code, why):
    (line,) = findings(module, code)
    assert why in line


def test_circles_are_found():
    nbs = {
        Path("nbs/foundations/a.ipynb"): made("foundations.a", "import stvg_nb.foundations.b"),
        Path("nbs/foundations/b.ipynb"): made("foundations.b", "from .a import x"),
    }
    (line,) = checks.layers(nbs)
    assert "a circle of imports: foundations.a -> foundations.b -> foundations.a" in line


def test_checks_hold_for_this_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    nbs = checks.notebooks()
    assert len(nbs) >= 6
    assert (
        checks.missing_parameters(nbs)
        + checks.artefact_parameters(nbs)
        + checks.orphans(nbs)
        + checks.layers(nbs)
        + checks.moved(nbs)
        + checks.mixed_imports(nbs)
        + checks.machine_paths(nbs)
        == []
    )


def measured(*cells):
    return {Path("nbs/x.ipynb"): style.measure(notebook(*cells))}


def test_style_counts_what_it_names():
    definition = "#| export\ndef f(a: int, b):\n    return a"
    (m,) = measured(definition, "x = 1", "assert f(1, 2) == 1", "%time f(1, 2)").values()
    assert (m.lines, m.room, m.untested) == ([3, 1, 1, 1], 3, [])
    assert (m.arguments, m.annotated, m.definitions, m.run) == (2, 1, 1, 4)
    (m,) = measured(definition, "x = 1", "y = 1", "assert f(1, 2) == 1").values()
    assert m.untested == ["f"]
    (m,) = measured(definition, "#| export\nassert True", "x = 1").values()
    assert m.untested == ["f"]
    total = style.table(measured("a = 1") | {Path("nbs/y.ipynb"): m}).splitlines()
    assert [line.split()[0] for line in total] == ["code", "x", "y", "total"]


@pytest.mark.parametrize(
    "code, n",
    [
        ("a = 1; b = 2", 1),
        ("if a: b", 1),
        ("if a:\n    b\nelif c:\n    d\nelse:\n    e", 0),
        ("class P:\n    def f(self) -> int: ...", 0),
        ("@f\ndef g():\n    return [x for x in y if x]", 0),
        ("for a in b: c; d", 2),
    ],
)
def test_two_statements_on_a_line_are_counted(code, n):
    (m,) = measured(code).values()
    assert m.doubled == n


@pytest.mark.parametrize(
    "cells, said",
    [
        (["\n".join(["a = 1"] * 40), "1", "1"], "cells of more than 39 lines"),
        (["x = 1  # " + "a" * 92, "1", "1"], "lines of more than 100 columns"),
        (["a = 1; b = 2"], "two statements"),
        (["\n".join(["a = 1"] * 11)], "the median cell has 11 lines"),
        (["a = '''" + "\n".join(["a" * 80] * 5) + "'''"], "characters, the aim is 400"),
        (["#| export\ndef f():\n    pass"], "1 definitions without a test"),
    ],
)
def test_style_says_what_misses_the_aims(cells, said):
    assert any(said in line for _, line in style.findings(measured(*cells)))
    assert style.findings(measured("a = 1", "assert a")) == []


def test_counts_of_the_style_may_only_sink():
    two = style.findings(measured("a = 1; b = 2\nc = 3; d = 4"))
    assert [name for name, _ in two] == ["doubled"] * 2
    assert style.risen(dict(wide=3), dict(wide=3, cells=1)) == []
    assert style.risen(dict(wide=4, new=1), dict(wide=3)) == [
        "new: 1, may not be more than 0",
        "wide: 4, may not be more than 3",
    ]


def test_pictures_have_one_format_and_every_figure_its_provenance():
    folder = ROOT / "figures/tiny"
    told = set()
    for note in folder.glob("*.provenance.json"):
        written = json.loads(note.read_text())
        files = {written["artefact"]: written["sha256"]}
        files |= {a["path"]: a["sha256"] for a in written["also"]}
        for name, digest in files.items():
            content = (folder / name).read_bytes()
            assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}", name
        told |= {note.name, *files}
    there = {p.name for p in folder.iterdir() if p.is_file()}
    assert there == told and {Path(n).suffix for n in there} == {".csv", ".json", ".md", ".png"}


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#there">b</a><a href="gone.html">x</a><a href="https://example.org">e</a>'
    )
    (tmp_path / "b.html").write_text(
        '<p id="here"></p><a href="a.html#top">a</a><img src="gone.png">'
    )
    assert build_site.broken_links(tmp_path) == [
        ("a.html", "b.html#there"),
        ("a.html", "gone.html"),
        ("b.html", "gone.png"),
    ]


@pytest.mark.parametrize(
    "said",
    [
        "No other trainer\nreads video.",
        "Every public trainer encodes it twice.",
        "This is the only open implementation.",
        "It is the first library that bans vision tokens.",
        "To our knowledge it is new.",
        "A state-of-the-art tracker.",
    ],
)
def test_a_claim_about_others_needs_a_date_and_a_source(said):
    assert len(checks.claims({"a.md": f"Before.\n\n{said}\n\n2026-11-28, arXiv 2602.00482"})) == 1
    assert (
        checks.claims({"a.md": f"{said} As of 2026-11: github huggingface/trl, issue 4144."}) == []
    )
    assert len(checks.claims({"a.md": f"{said} As of 2026-11."})) == 1


def test_words_that_claim_nothing_about_others_pass():
    said = "The only puppet that waves. No other frame. We make no state-of-the-art claims."
    assert checks.claims({"a.md": said}) == []
    assert checks.claims(checks.prose(notebooks.notebooks(ROOT / "nbs"))) == []


def _notebook(code):
    cell = dict(cell_type="code", source=code, metadata={})
    return {Path("nbs/a.ipynb"): dict(cells=[cell])}


@pytest.mark.parametrize(
    "code",
    [
        '(repo_root() / "figures/tiny/x.csv").write_text("")',
        'folder = repo_root() / "figures"\nfig.savefig(folder / "a.png")',
        'with open(repo_root() / "a", "w") as f:\n    f.write("")',
        'write_json("figures/tiny/x.json", {})',
        'a, b = 1, repo_root() / "x"\nb.mkdir()',
        'Path("figures/tiny/x.csv").write_text("")',
    ],
)
def test_a_chapter_that_writes_into_the_checkout_is_found(code):
    assert len(checks.writers(_notebook(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        'text = (repo_root() / "a.json").read_text()\nPath(place).write_text(text)',
        "folder = repo_root()\nwith TemporaryDirectory() as folder:\n    Path(folder).mkdir()",
        'write_table(Artefact("x", "tiny", "", []))',
        'figures = work / "figures"\nfigures.mkdir()\n(work / "figures/a.csv").write_text("")',
    ],
)
def test_a_chapter_that_reads_there_or_writes_elsewhere_is_not(code):
    assert checks.writers(_notebook(code)) == []
