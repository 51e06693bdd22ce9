"""A chapter that somebody runs in a window of JupyterLab leaves the committed results alone."""

import json
import os
import subprocess
import sys

import pytest

from stvg_nb.foundations.files import repo_root

CELL = """
from stvg_nb.foundations.artefacts import Artefact, by_hand, figures_dir, write_table
row = dict(label="a", kind="measured", metrics=dict(m_viou=0.5))
print(by_hand(), (figures_dir("tiny") / "r1-table07.csv").is_file())
print(write_table(Artefact("x-by-hand", "tiny", "A table.", [row])))
"""


def run(variables, runs):
    "What a kernel prints and where it writes."
    code = f"import ipykernel\n{CELL}"
    env = {k: v for k, v in os.environ.items() if k not in ("STVG_FIGURES", "IN_TEST")}
    env |= dict(variables, STVG_RUNS=str(runs), PYTHONPATH=str(repo_root()))
    argv = [sys.executable, "-c", code]
    out = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, cwd=runs)
    return out.stdout.splitlines()


@pytest.mark.parametrize("window", ["JPY_SESSION_NAME", "VSCODE_PID"])
def test_a_kernel_in_a_window_writes_to_its_copy(tmp_path, window):
    before = sorted(p.name for p in (repo_root() / "figures/tiny").iterdir())
    said, path = run({window: "1"}, tmp_path)
    assert said == "True True"  # the committed tables are there to be read
    assert path == str(tmp_path / "tiny/figures/x-by-hand.csv")
    assert sorted(p.name for p in (repo_root() / "figures/tiny").iterdir()) == before


def test_another_kernel_writes_where_the_committed_results_lie(tmp_path):
    said, path = run(dict(STVG_FIGURES=str(tmp_path / "mine")), tmp_path)
    assert (said, path) == ("False False", str(tmp_path / "mine/x-by-hand.csv"))
    said, path = run(dict(STVG_FIGURES=str(tmp_path / "mine"), VSCODE_PID="1"), tmp_path)
    assert path == str(tmp_path / "mine/x-by-hand.csv")


def test_equal_results_keep_the_earlier_note(tmp_path):
    folder = dict(STVG_FIGURES=str(tmp_path / "mine"))
    run(folder, tmp_path)
    note = tmp_path / "mine/x-by-hand.provenance.json"
    made = json.loads(note.read_text()) | dict(git=dict(revision="an earlier one", dirty=False))
    note.write_text(json.dumps(made, indent=1) + "\n")
    earlier = note.read_bytes()
    run(folder, tmp_path)
    assert note.read_bytes() == earlier
    run(folder | dict(STVG_REPRODUCE="1"), tmp_path)
    assert json.loads(note.read_text())["git"] != made["git"]
