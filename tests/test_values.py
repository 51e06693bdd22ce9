"""Nothing measured changes by rewriting: the tables of profile `tiny` hold the digits of d21ad17.

`python tests/test_values.py REVISION` prints the measured cells of a revision; the ones frozen
here were written so.
"""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REVISION = "d21ad17"
FROZEN = ROOT / f"tests/data/values-{REVISION}.json"
TABLES = ROOT / "figures/tiny"

# tables whose digits may change, with the reason
LEFT_OUT = {"x-preprocessing": "durations and memory of one run on one machine"}
# (table, label then) -> label now; (table, column then) -> column now
RENAMED_ROWS, RENAMED_COLUMNS = {}, {}


def measured(text: str) -> dict:
    "The measured columns of a table, and its measured rows: the label, then a value a column."
    rows = [r for r in csv.DictReader(io.StringIO(text)) if r["kind"] == "measured"]
    columns = [c for c in (rows[0] if rows else ()) if c.startswith("measured ")]
    return dict(
        columns=[c.removeprefix("measured ") for c in columns],
        rows=[[r["row"], *(r[c] for c in columns)] for r in rows],
    )


def cells(table: dict) -> dict:
    "(label, how often it stood above, column) -> digits; empty cells left out."
    out, seen = {}, {}
    for label, *values in table["rows"]:
        k = seen[label] = seen.get(label, -1) + 1
        pairs = zip(table["columns"], values, strict=True)
        out |= {(label, k, column): v for column, v in pairs if v != ""}
    return out


THEN = json.loads(FROZEN.read_text(encoding="utf-8")) if FROZEN.is_file() else {}


def test_the_frozen_values_are_all_there():
    counted = {name: len(cells(table)) for name, table in THEN.items()}
    assert len(counted) == 22 and sum(counted.values()) > 3000
    assert set(LEFT_OUT) <= set(counted) and all(counted.values())


def test_every_table_is_still_declared():
    from stvg_nb.plan import ARTEFACTS

    assert sorted(set(THEN) - set(ARTEFACTS) - set(LEFT_OUT)) == []


@pytest.mark.parametrize("name", sorted(set(THEN) - set(LEFT_OUT)))
def test_a_table_holds_the_same_digits(name):
    now = cells(measured((TABLES / f"{name}.csv").read_text(encoding="utf-8")))
    then = {
        (RENAMED_ROWS.get((name, row), row), k, RENAMED_COLUMNS.get((name, column), column)): v
        for (row, k, column), v in cells(THEN[name]).items()
    }
    changed = {cell: (v, now.get(cell)) for cell, v in then.items() if now.get(cell) != v}
    assert changed == {}


def at(revision: str) -> dict:
    "The measured cells of all tables of a revision."
    git = ["git", "-C", str(ROOT)]

    def told(*arguments):
        command = [*git, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    listed = told("ls-tree", "--name-only", revision, "figures/tiny/").splitlines()
    names = [n for n in listed if n.endswith(".csv")]
    return {Path(n).stem: measured(told("show", f"{revision}:{n}")) for n in names}


if __name__ == "__main__":
    lines = [
        f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}"
        for k, v in at(sys.argv[1]).items()
    ]
    print("{\n" + ",\n".join(lines) + "\n}")
