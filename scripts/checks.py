"""What holds for the repository as a whole: clean notebooks, export and files that follow
from others in sync, layers, tags, README.

Run in a clean checkout: `python scripts/checks.py`. Prints one line a finding and exits 1 if
there is any.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import derived
from notebooks import (
    PACKAGE,
    PARTS,
    at_root,
    code_cells,
    exported,
    graph,
    module,
    notebooks,
    part,
)

# Imports against the order of the parts, until their notebooks have moved. Only ever shorter.
MOVING: set = set()


def missing_parameters(nbs):
    "A chapter that reads a profile has papermill's `parameters` tag, on a cell not exported."
    out = []
    for p, nb in nbs.items():
        tagged = [
            "".join(c["source"])
            for c in nb["cells"]
            if "parameters" in c["metadata"].get("tags", [])
        ]
        reads = any(
            re.search(r"load_profile\(profile\b", c) for c in code_cells(nb) if not exported(c)
        )
        if reads and not tagged:
            out.append(
                f"{p}: reads a profile, has no cell tagged `parameters`; papermill -p is ignored"
            )
        if len(tagged) > 1:
            out.append(f"{p}: {len(tagged)} cells tagged `parameters`, papermill reads one")
        if any(exported(c) for c in tagged):
            out.append(f"{p}: the `parameters` cell is exported")
    return out


def artefact_parameters(nbs):
    "Each chapter that writes artefacts can be told its profile."
    from stvg_nb.plan import ARTEFACTS

    def told(chapter):
        return any(
            "parameters" in cell["metadata"].get("tags", [])
            for p, nb in nbs.items()
            if p.stem == Path(chapter).stem
            for cell in nb["cells"]
        )

    return [
        f"{chapter}.ipynb: writes {name} but has no cell tagged `parameters`"
        for name, chapter in ARTEFACTS.items()
        if not told(chapter)
    ]


def orphans(nbs, package=Path(PACKAGE)):
    "Every module comes from one notebook in the folder of its part; each notebook's is there."
    made, out = {}, []
    for p, nb in nbs.items():
        if part(p) not in PARTS:
            out.append(
                f"{p}: no part of the project; notebooks lie in nbs/ or {', '.join(PARTS[1:])}"
            )
        if (m := module(nb)) is None:
            continue
        if m in made:
            out.append(f"{p}: exports {m}, which {made[m]} exports too")
        made[m] = p
        folder = "/".join(m.split(".")[:-1]) or "method"
        if folder != part(p):
            out.append(f"{p}: lies in {part(p)} but exports {m}")
    have = {
        ".".join(p.relative_to(package).with_suffix("").parts)
        for p in package.rglob("*.py")
        if p.name not in ("__init__.py", "_modidx.py")
    }
    bare = {m.rpartition(".")[0] for m in made if "." in m}
    return (
        out
        + [
            f"{package}/{m.replace('.', '/')}.py: no notebook exports it"
            for m in sorted(have - set(made))
        ]
        + [
            f"{package}/{m.replace('.', '/')}.py: missing, run nbdev_export"
            for m in sorted(set(made) - have)
        ]
        + [
            f"{package}/{b.replace('.', '/')}/__init__.py: missing, so the wheel lacks it"
            for b in sorted(bare)
            if not (package / b.replace(".", "/") / "__init__.py").is_file()
        ]
    )


def _forbidden(here, there):  # two notebooks' paths, importer and imported -> why, or None
    above, below = part(here), part(there)
    if below == "theatre" and above != "theatre":
        return "only the theatre imports the theatre"
    if above == "foundations" and below != "foundations":
        return "foundations import only foundations"
    if above == below == "method" and there.stem >= here.stem:
        return "a later chapter defines it"
    return None


def layers(nbs):
    """Foundations import foundations, the method these and lower numbers, the theatre everything.

    Nothing else imports the theatre. All exported code counts: imports inside functions too, and
    modules named in strings outside the registries.
    """
    modules, out = graph(nbs), []
    for m, (p, real, named) in modules.items():
        for verb, found in (("imports", real), ("names", named - real)):
            for other in sorted(found):
                if other not in modules:
                    out.append(f"{p}: {verb} {PACKAGE}.{other}, which no notebook makes")
                elif (why := _forbidden(p, modules[other][0])) and f"{m} -> {other}" not in MOVING:
                    out.append(f"{p}: {verb} {PACKAGE}.{other}: {why}")
    return out + circles(modules)


def circles(modules):
    "Modules that import one another, in foundations and theatre, where no number orders them."
    out, done = [], set()

    def visit(m, way):
        if m in way:
            ring = way[way.index(m) :]
            out.append(f"{modules[m][0]}: a circle of imports: {' -> '.join([*ring, m])}")
        elif m not in done:
            done.add(m)
            for other in sorted(modules[m][1] & set(modules)):
                visit(other, [*way, m])

    for m in modules:
        if m not in done:
            visit(m, [])
    return out


def moved(nbs):
    "Entries of `MOVING` that stand for nothing any more."
    modules = graph(nbs)
    left = {
        f"{m} -> {other}"
        for m, (p, real, named) in modules.items()
        for other in (real | named) & set(modules)
        if _forbidden(p, modules[other][0])
    }
    return [
        f"scripts/checks.py: `{line}` has gone, take it out of MOVING"
        for line in sorted(MOVING - left)
    ]


def mixed_imports(nbs):
    "Imports stand alone: to render the site, nbdev runs every cell that imports, and only those."
    out = []
    for p, nb in nbs.items():
        for c in code_cells(nb):
            if re.search(r"^#\|\s*(export|eval:\s*false)", c, re.M) or c.lstrip()[0] in "%!":
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
    at_root()
    nbs = notebooks()
    if not nbs:
        sys.exit("checks: no notebooks found")
    found = (
        missing_parameters(nbs)
        + artefact_parameters(nbs)
        + orphans(nbs)
        + layers(nbs)
        + moved(nbs)
        + mixed_imports(nbs)
        + machine_paths(nbs)
        + untracked()
        + readme()
        + derived.stale()
    )
    found += changed_by("nbdev_clean", ["nbs"]) + changed_by("nbdev_export", ["stvg_nb", "nbs"])
    for line in found:
        print(f"checks: {line}")
    print(f"checks: {len(nbs)} notebooks, {len(found)} findings")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
