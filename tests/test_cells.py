"""Cells of the shipped tables, picked at random: `stvg evaluate` on the kept predictions prints them."""

import json
import random

import numpy as np
import pytest

from stvg_nb.cli import main
from stvg_nb.foundations.files import read_json, repo_root, sha256_file

FIGURES, SCORERS = repo_root() / "figures" / "tiny", {"hcstvg", "charades-sta", "mevis"}


def cells():  # (artefact, row, metric) of every measured cell that a scorer prints
    out = []
    for note in sorted(FIGURES.glob("*.provenance.json")):
        for row in read_json(note)["rows"]:
            if (
                "predictions" in row and row.get("truth", {}).get("benchmark") in SCORERS
            ):  # the rows about single words on signs have a metric of their own
                out += [
                    (note.name.split(".")[0], row, m)
                    for m in row["metrics"]
                    if not m.endswith((" low", " high"))
                ]
    return out


def test_tables_have_cells_of_every_scorer():
    assert len(cells()) > 100 and {row["truth"]["benchmark"] for _, row, _ in cells()} == SCORERS


@pytest.mark.parametrize("k", range(10))
def test_a_cell_is_what_stvg_evaluate_prints(k, capsys):
    name, row, metric = random.Random(f"cell {k}").choice(cells())
    truth, printed = row["truth"], []
    files = [
        x
        for kind in ("annotations", "masks")
        if kind in truth
        for x in (f"--{kind}", str(FIGURES / truth[kind]["path"]))
    ]
    for kept in row["predictions"]:
        assert sha256_file(FIGURES / kept["path"]) == kept["sha256"]
        assert (
            main(
                [
                    "evaluate",
                    "--benchmark",
                    truth["benchmark"],
                    *files,
                    "--predictions",
                    str(FIGURES / kept["path"]),
                    "--json",
                    "--quiet",
                ]
            )
            == 0
        )
        printed.append(json.loads(capsys.readouterr().out)["metrics"][metric])
    assert np.mean(printed) == pytest.approx(row["metrics"][metric], abs=1e-9), (
        name,
        row["label"],
        metric,
    )
