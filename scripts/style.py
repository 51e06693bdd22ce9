"""The measures of the house style, a line a notebook: `python scripts/style.py [notebook ...]`.

`--check` says what misses the aims, and exits 1 where more does than style.json counts;
`--lower` writes counts that have sunk into that file; `--at REVISION` measures a revision.
"""

import argparse
import ast
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from notebooks import at_root, exported, notebooks, python, source

LONGEST_CELL, WIDEST_LINE = 39, 100
MEDIAN_LINES, MEDIAN_CHARACTERS = 10, 400
COUNTS = Path(__file__).with_name("style.json")  # what misses the aims; may only sink, to 0
CHECKED = ("nbs", "scripts", "tests", "bench")
# rules of ruff that are counted; all others allow nothing (scripts/lint.sh)
COUNTED = ("E501", "E731", "E741")
TEST = re.compile(r"\bassert\b|\btest_\w+\(|\bExceptionExpected\b")


@dataclass
class Measures:
    "What is counted in the code cells of one notebook, or of several."

    lines: list = field(default_factory=list)  # of each cell, blank ones left out
    characters: list = field(default_factory=list)  # of each cell
    widths: list = field(default_factory=list)  # of each line that is not blank
    prose: int = 0  # Markdown cells
    picture: int | None = None  # cell of the first picture in the outputs
    run: int = 0  # most code cells without prose between them
    doubled: int = 0  # lines on which two statements start
    definitions: int = 0  # exported cells with a definition
    untested: list = field(default_factory=list)  # names at the head of such cells without a test
    arguments: int = 0  # of public exported functions
    annotated: int = 0
    room: int = 0  # exported lines
    printed: int = 0  # lines of text in the outputs
    tables: int = 0  # outputs in HTML

    def __add__(self, other):
        "Counts of both; the first picture of a sum means nothing."
        out = Measures(run=max(self.run, other.run))
        for name in vars(self):
            if name not in ("run", "picture"):
                setattr(out, name, getattr(self, name) + getattr(other, name))
        return out


def middle(values: list) -> int:
    return sorted(values)[len(values) // 2] if values else 0


def ninety(values: list) -> int:
    return sorted(values)[len(values) * 9 // 10] if values else 0


def doubled(tree: ast.AST) -> int:
    "Statements that start on the line of another, except a body of three dots."
    out = 0
    for node in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if not isinstance(statements, list) or ast.unparse(statements) == "...":
                continue
            starts = [s.lineno for s in statements]
            if block == "body" and hasattr(node, "lineno"):
                starts.append(node.lineno)
            out += len(starts) - len(set(starts))
    return out


def of_arguments(tree: ast.AST) -> tuple[int, int]:
    "Arguments of the public functions, and how many of them are annotated."
    found = [
        a
        for d in ast.walk(tree)
        if isinstance(d, ast.FunctionDef) and not d.name.startswith("_")
        for a in d.args.args + d.args.kwonlyargs
        if a.arg not in ("self", "cls")
    ]
    return len(found), sum(a.annotation is not None for a in found)


def measure(nb: dict) -> Measures:
    "One notebook."
    m, run = Measures(), 0
    cells = nb["cells"]
    code = [source(c) for c in cells if c["cell_type"] == "code" and source(c).strip()]
    for i, cell in enumerate(cells):
        run = run + 1 if cell["cell_type"] == "code" else 0
        m.run = max(m.run, run)
        m.prose += cell["cell_type"] == "markdown"
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if m.picture is None and any(k.startswith("image/") for k in data):
                m.picture = i
            m.tables += "text/html" in data
            m.printed += "".join(output.get("text", "")).count("\n")
    for k, text in enumerate(code):
        lines = [line for line in text.split("\n") if line.strip()]
        m.lines.append(len(lines))
        m.characters.append(len(text))
        m.widths += map(len, lines)
        tree = ast.parse(python(text))
        m.doubled += doubled(tree)
        if exported(text):
            m.room += len(text.split("\n"))
            arguments, annotated = of_arguments(tree)
            m.arguments += arguments
            m.annotated += annotated
            names = [d.name for d in tree.body if isinstance(d, ast.FunctionDef | ast.ClassDef)]
            behind = [c for c in code[k + 1 : k + 3] if not exported(c)]
            m.definitions += bool(names)
            if names and not any(TEST.search(c) for c in behind):
                m.untested.append(names[0])
    return m


COLUMNS = {  # heading -> value of a line
    "code": lambda m: len(m.lines),
    "prose": lambda m: m.prose,
    "lines": lambda m: middle(m.lines),
    "most": lambda m: max(m.lines, default=0),
    "40+": lambda m: sum(n > LONGEST_CELL for n in m.lines),
    "chars": lambda m: middle(m.characters),
    "p90": lambda m: ninety(m.widths),
    "wide": lambda m: sum(w > WIDEST_LINE for w in m.widths),
    "double": lambda m: m.doubled,
    "picture": lambda m: "-" if m.picture is None else m.picture,
    "run": lambda m: m.run,
    "untested": lambda m: f"{len(m.untested)}/{m.definitions}",
    "typed": lambda m: f"{m.annotated}/{m.arguments}",
    "room": lambda m: m.room,
    "printed": lambda m: m.printed,
    "tables": lambda m: m.tables,
}
LEGEND = """\
code, prose: cells; lines, chars: medians of a code cell; most: lines of the longest cell;
40+: cells of 40 lines and more; p90: line length that one line in ten exceeds;
wide: lines over 100; double: lines with two statements; picture: cell of the first one;
run: most code cells without prose; untested: exported cells with a definition and no test in
the two behind it; typed: annotated arguments of public functions; room: exported lines;
printed, tables: lines of text and HTML tables in the outputs"""


def table(measured: dict) -> str:
    "One line a notebook, and a total where there are several."
    rows = {str(p.relative_to("nbs").with_suffix("")): m for p, m in measured.items()}
    if len(rows) > 1:
        rows["total"] = sum(measured.values(), Measures())
        rows["total"].room = max(m.room for m in measured.values())
    lines = [["", *COLUMNS]] + [
        [n, *(str(f(m)) for f in COLUMNS.values())] for n, m in rows.items()
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(v.ljust(w) if k == 0 else v.rjust(w) for k, (v, w) in enumerate(zip(x, widths)))
        for x in lines
    )


def findings(measured: dict) -> list[tuple[str, str]]:  # (what is counted, a line about it)
    "What misses the aims of the style, one entry for each thing that counts."
    out = []
    for p, m in measured.items():
        longest = max(m.lines, default=0)
        told = {
            "cells": (
                sum(n > LONGEST_CELL for n in m.lines),
                f"cells of more than {LONGEST_CELL} lines, the longest {longest}",
            ),
            "wide": (
                sum(w > WIDEST_LINE for w in m.widths),
                f"lines of more than {WIDEST_LINE} columns",
            ),
            "doubled": (m.doubled, "lines with two statements"),
            "untested": (
                len(m.untested),
                f"definitions without a test in the two cells behind: {', '.join(m.untested)}",
            ),
        }
        out += [(name, f"{p}: {n} {text}") for name, (n, text) in told.items() for _ in range(n)]
        if (n := middle(m.lines)) > MEDIAN_LINES:
            out.append(("lines", f"{p}: the median cell has {n} lines, the aim is {MEDIAN_LINES}"))
        if (n := middle(m.characters)) > MEDIAN_CHARACTERS:
            aim = f"the aim is {MEDIAN_CHARACTERS}"
            out.append(("characters", f"{p}: the median cell has {n} characters, {aim}"))
    return out


def of_ruff() -> dict:  # rule -> number
    "How often the counted rules are broken."
    command = ["ruff", "check", "--quiet", "--output-format", "json", "--select", ",".join(COUNTED)]
    told = subprocess.run([*command, *CHECKED], capture_output=True, text=True)
    return Counter(f["code"] for f in json.loads(told.stdout))


def risen(counts: dict, kept: dict) -> list[str]:
    "Where more misses the aims than is kept; what is not listed may not occur."
    out = []
    for name in sorted(counts | kept):
        now, before = counts.get(name, 0), kept.get(name, 0)
        if now > before:
            out.append(f"{name}: {now}, may not be more than {before}")
    return out


def at(revision: str) -> dict:
    "The notebooks of a revision."
    git = ["git", "-c", "core.quotepath=off"]
    run = dict(capture_output=True, text=True, check=True)
    listed = [*git, "ls-tree", "-r", "--name-only", revision, "nbs/"]
    names = [n for n in subprocess.run(listed, **run).stdout.splitlines() if n.endswith(".ipynb")]
    read = {n: subprocess.run([*git, "show", f"{revision}:{n}"], **run).stdout for n in names}
    return {Path(n): json.loads(text) for n, text in read.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", nargs="*", type=Path, help="default: all")
    parser.add_argument("--check", action="store_true", help="exit 1 where a count has risen")
    parser.add_argument("--lower", action="store_true", help="write counts that have sunk")
    parser.add_argument("--at", metavar="REVISION", help="measure the notebooks of a revision")
    args = parser.parse_args()
    chosen = [p.resolve() for p in args.notebook]
    at_root()
    nbs = at(args.at) if args.at else notebooks()
    if chosen:
        nbs = {p: nb for p, nb in nbs.items() if p.resolve() in chosen}
    if not nbs:
        sys.exit("style: no such notebook")
    measured = {p: measure(nb) for p, nb in nbs.items()}
    print(table(measured), LEGEND, sep="\n\n")
    if not args.check and not args.lower:
        return
    found = findings(measured)
    print()
    for line in dict.fromkeys(text for _, text in found):
        print(f"style: {line}")
    if chosen or args.at:
        return
    counts = Counter(name for name, _ in found) + of_ruff()
    kept = json.loads(COUNTS.read_text("utf-8"))
    print("style:", ", ".join(f"{n} {counts[n]}" for n in sorted(counts | kept)), "(the aim is 0)")
    higher = risen(counts, kept)
    for line in higher:
        print(f"style: error: {line}; see the lines above, or scripts/style.py --at HEAD~1")
    if args.lower and not higher:
        COUNTS.write_text(json.dumps(dict(sorted(counts.items())), indent=2) + "\n", "utf-8")
    sys.exit(bool(higher))


if __name__ == "__main__":
    main()
