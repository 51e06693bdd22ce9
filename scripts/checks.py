"""What holds for the repository as a whole: clean notebooks, export in sync both ways, tags, cell lengths, README.

Run in a clean checkout: `python scripts/checks.py`. Prints one line a finding and exits 1 if there is any.
"""

import ast, json, os, re, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.chdir(ROOT)
sys.path.insert(0, str(ROOT / "scripts"))
LONGEST_CELL = 60


def notebooks():
    return {
        p: json.loads(p.read_text(encoding="utf-8")) for p in sorted(Path("nbs").glob("*.ipynb"))
    }


def code_cells(nb):
    return ["".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "code"]


def long_cells(nbs):
    "House rule: no code cell over 60 lines."
    return [
        f"{p}: a code cell of {n} lines, the limit is {LONGEST_CELL}"
        for p, nb in nbs.items()
        for c in code_cells(nb)
        if (n := sum(1 for line in c.split("\n") if line.strip())) > LONGEST_CELL
    ]


def missing_parameters(nbs):
    "A chapter that takes its size from a profile has papermill's `parameters` tag, on a cell that is not exported, with `profile`."
    out = []
    for p, nb in nbs.items():
        tagged = [
            "".join(c["source"])
            for c in nb["cells"]
            if "parameters" in c["metadata"].get("tags", [])
        ]
        reads = any(
            re.search(r"load_profile\(profile\b", c) for c in code_cells(nb) if "#| export" not in c
        )
        if reads and not tagged:
            out.append(
                f"{p}: reads a profile but has no cell tagged `parameters`; papermill -p would be ignored"
            )
        if len(tagged) > 1:
            out.append(f"{p}: {len(tagged)} cells tagged `parameters`, papermill reads one")
        if any("#| export" in c for c in tagged):
            out.append(f"{p}: the `parameters` cell is exported")
    return out


def artefact_parameters(nbs):
    "Each chapter that writes artefacts can be told its profile."
    from stvg_nb.reproduce import ARTEFACTS

    stems = {p.stem: nb for p, nb in nbs.items()}
    return [
        f"nbs/{c}.ipynb: writes {n} but has no cell tagged `parameters`"
        for n, c in ARTEFACTS.items()
        if not any("parameters" in cell["metadata"].get("tags", []) for cell in stems[c]["cells"])
    ]


def orphans(nbs):
    "Every module comes from a notebook, and every notebook's module is there."
    made = {
        m
        for nb in nbs.values()
        for c in code_cells(nb)
        for m in re.findall(r"^#\|\s*default_exp (\S+)", c, re.M)
    }
    have = {p.stem for p in Path("stvg_nb").glob("*.py")} - {"__init__", "_modidx"}
    return [f"stvg_nb/{m}.py: no notebook exports it" for m in sorted(have - made)] + [
        f"stvg_nb/{m}.py: missing, run nbdev_export" for m in sorted(made - have)
    ]


def upward_imports(nbs):
    "Imports of a chapter's module point to chapters with lower numbers only."
    order = {
        m: p.stem
        for p, nb in nbs.items()
        for c in code_cells(nb)
        for m in re.findall(r"^#\|\s*default_exp (\S+)", c, re.M)
    }
    out = []
    for p, nb in nbs.items():
        for c in code_cells(nb):
            if not re.search(r"^#\|\s*export", c, re.M):
                continue
            for m in re.findall(r"^(?:from|import) stvg_nb\.(\w+)", c, re.M):
                if order.get(m, "") >= p.stem:
                    out.append(f"{p}: imports {m}, which a later chapter defines")
    return out


def mixed_imports(nbs):
    "House rule: imports stand alone. nbdev runs every cell that imports when it renders the site, and only those."
    out = []
    for p, nb in nbs.items():
        for c in code_cells(nb):
            if re.search(r"^#\|\s*(export|eval:\s*false)", c, re.M) or c.lstrip().startswith(
                ("%", "!")
            ):
                continue
            kinds = {type(node) for node in ast.walk(ast.parse(c))}
            if kinds & {ast.Import, ast.ImportFrom} and kinds & {ast.Expr, ast.Assign}:
                out.append(
                    f"{p}: a cell mixes imports and other code: {c.strip().splitlines()[0][:80]}"
                )
    return out


def machine_paths(nbs):
    "No notebook shows where it was run."
    out = []
    for p, nb in nbs.items():
        shown = [
            "".join(o.get("text", o.get("data", {}).get("text/plain", "")))
            for c in nb["cells"]
            for o in c.get("outputs", [])
        ]
        out += [
            f"{p}: an output names a folder of one machine: {m.group(0)}"
            for text in shown
            for m in list(re.finditer(r"(?<![\w.])/(?:root|home|work|tmp|Users)/\S{3,60}", text))[
                :1
            ]
        ]
    return out


def changed_by(command, paths):
    "Run a command that should change nothing in a clean checkout; what it changed."

    def state():
        return subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=all", "--", *paths],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    before = state()
    subprocess.run([Path(sys.executable).with_name(command)], check=True, stdout=subprocess.DEVNULL)
    return [
        f"{command} changes {line}"
        for line in state().splitlines()
        if line not in before.splitlines()
    ]


def untracked():
    "Source files that git does not know."
    out = subprocess.run(
        [
            "git",
            "ls-files",
            "--others",
            "--exclude-standard",
            "nbs",
            "stvg_nb",
            "scripts",
            "bench",
            "tests",
            "papers",
        ],
        capture_output=True,
        text=True,
    ).stdout
    return [f"{line}: not tracked by git" for line in out.splitlines()]


def readme():
    from readme import render

    text, _ = render()
    return (
        []
        if Path("README.md").read_text() == text
        else ["README.md differs from nbs/index.ipynb; run python scripts/readme.py"]
    )


def main():
    nbs = notebooks()
    if not nbs:
        sys.exit("checks: no notebooks found")
    found = (
        long_cells(nbs)
        + missing_parameters(nbs)
        + artefact_parameters(nbs)
        + orphans(nbs)
        + upward_imports(nbs)
        + mixed_imports(nbs)
        + machine_paths(nbs)
        + untracked()
        + readme()
    )
    found += changed_by("nbdev_clean", ["nbs"]) + changed_by("nbdev_export", ["stvg_nb", "nbs"])
    for line in found:
        print(f"checks: {line}")
    print(f"checks: {len(nbs)} notebooks, {len(found)} findings")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
