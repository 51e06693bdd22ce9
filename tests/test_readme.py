"""What README.md shows runs: its Python, its picture and list, and each command of its road."""

import contextlib
import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from try_readme import CODES, ELSEWHERE, at_small_scale, commands, lines_of

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def block(heading):
    "The first block of commands below a heading."
    return re.search(rf"^## {heading}\n.*?^```sh\n(.+?)^```", TEXT, re.M | re.S).group(1)


def test_the_ten_lines_print_what_is_shown(tmp_path, monkeypatch):
    pytest.importorskip("ultralytics")
    monkeypatch.chdir(tmp_path)
    code, shown = lines_of(TEXT)
    assert len([line for line in code.splitlines() if line]) <= 11
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    assert said.getvalue() == shown


def test_the_commands_below_the_lines_run(tmp_path, monkeypatch, capsys):
    "Every other `stvg` command of the README, as it stands there, with profile smoke."
    from stvg_nb.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STVG_PROFILE", "smoke")
    for line in block("Ten lines").splitlines():
        stvg, *words = shlex.split(line, comments=True)
        assert stvg == "stvg" and main([*words, "--quiet"]) == 0, capsys.readouterr().err
    for made in ("clips/v1_test.json", "answer.mp4"):
        assert (tmp_path / made).stat().st_size > 0, made


def test_no_command_is_left_untried():
    "`scripts/try_readme.py`, a step of CI, runs them all, or names the step that does."
    asked = [command for _, command in commands(TEXT)]
    assert len(asked) == len(set(asked)) == 11
    for block in re.findall(r"^```(\w*)\n", TEXT, re.M):
        assert block in ("sh", "python", ""), block
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    steps = re.search(r"^\[ \$# -gt 0 \] \|\| steps=\((.+)\)$", ci, re.M).group(1).split()
    assert set(ELSEWHERE) <= set(asked)
    assert {*ELSEWHERE.values(), "readme"} <= set(steps)
    for command, step in ELSEWHERE.items():
        assert command in re.search(rf"^{step}\(\) {{(.+?)}}$", ci, re.M | re.S).group(1)
    assert "scripts/try_readme.py" in ci


def test_the_road_is_driven(tmp_path, monkeypatch, capsys):
    from stvg_nb.cli import main

    shutil.copytree(ROOT / "tests/data/road/hcstvg", tmp_path / "hcstvg")
    monkeypatch.chdir(tmp_path / "hcstvg")
    monkeypatch.setenv("PWD", str(tmp_path / "hcstvg"))
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    results = {}
    for line in block("The road").splitlines():
        stvg, command, *words = at_small_scale(line)
        assert stvg == "stvg" and command not in results
        code = main([command, *words, "--json", "--quiet"])
        out, err = capsys.readouterr()
        assert code == CODES.get(command, 0), (line, out, err)
        results[command] = json.loads(out)
    assert results["dataset"]["counts"]["kept"] == 2
    assert results["train"]["steps"] == 1
    assert (results["evaluate"]["n_samples"], results["evaluate"]["n_missing"]) == (1, 0)


def test_every_command_that_is_named_is_one():
    from stvg_nb.commands import COMMANDS

    named = set(re.findall(r"`stvg ([\w-]+)|^stvg ([\w-]+)", TEXT, re.M))
    assert {a or b for a, b in named} - set(COMMANDS) == set()
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"\bmake ([a-z]+)", block("Two commands"))) <= set(targets)


def test_every_chapter_is_listed_and_every_link_leads_somewhere(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from readme import INDEX, index, render

    assert json.loads(INDEX.read_text(encoding="utf-8")) == index()
    text, pictures = render()
    assert text == TEXT
    assert {name: (ROOT / name).read_bytes() for name in pictures} == pictures
    for path in re.findall(r"\]\((?!http)([^)#]+)", TEXT):
        assert (ROOT / path).exists(), path
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        if path.name != "index.ipynb" and ".ipynb_checkpoints" not in str(path):
            assert f"({path.relative_to(ROOT)})" in TEXT, path


def test_the_extras_are_all_named():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (listed,) = re.findall(r"lists all extras: (.+?)\)", TEXT)
    assert set(re.findall(r"`(\w+)`", listed)) == set(extras)
