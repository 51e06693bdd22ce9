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


_WRITES = re.compile(
    r"^(write_\w+|savefig|to_csv|to_json|to_file|tofile|save|mkdir|unlink|rename|replace|rmtree"
    r"|copy\w*|move|touch|atomic_path)$"
)


def _from_checkout(node, names):
    "Does an expression name the folder of the repository, or something made from it?"
    named = any(isinstance(n, ast.Name) and n.id in {"repo_root", *names} for n in ast.walk(node))
    first = node.args[0] if isinstance(node, ast.Call) and node.args else node
    return named or (isinstance(first, ast.Constant) and str(first.value).startswith("figures/"))


def _bound(node):
    "(name, value) pairs that a node binds; value is None where it is no expression of one path."
    if isinstance(node, ast.arg):
        yield node.arg, None
        return
    value = node.value if isinstance(node, ast.Assign) else None
    targets = getattr(
        node, "targets", [getattr(node, "target", getattr(node, "optional_vars", None))]
    )
    for target in filter(None, targets):
        several = isinstance(target, ast.Tuple)
        values = getattr(value, "elts", []) if several else [value]
        for i, one in enumerate(target.elts if several else [target]):
            if isinstance(one, ast.Name):
                yield one.id, values[i] if i < len(values) else None


def _writes(tree, names):
    "Lines of calls that write below the folder of the repository; `names` grows with what is met."
    binds = ast.arg | ast.Assign | ast.For | ast.withitem
    place = {n.optional_vars: n for w in ast.walk(tree) if isinstance(w, ast.With) for n in w.items}
    nodes = [n for n in ast.walk(tree) if hasattr(n, "lineno")]
    for node in sorted(nodes, key=lambda n: (n.lineno, -isinstance(n, ast.Call))):
        node = place.get(node, node)
        if isinstance(node, binds):
            for name, value in _bound(node):
                path = value is not None and _from_checkout(value, names) and not _reads(value)
                (names.add if path else names.discard)(name)
        if isinstance(node, ast.Call) and _written(node, names):
            yield node.lineno


def _written(node, names):
    "Does a call write, and where to a path of the checkout?"
    f = node.func
    name = f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")
    where = [*([f.value] if isinstance(f, ast.Attribute) else []), *node.args]
    modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
    opened = name == "open" and any(str(m)[:1] in "wax" for m in modes)
    return (opened or _WRITES.match(name)) and any(_from_checkout(a, names) for a in where)


def _reads(node):
    "Is a path opened, so that what comes of it is no path?"
    called = (n.func for n in ast.walk(node) if isinstance(n, ast.Call))
    names = {getattr(f, "attr", getattr(f, "id", "")) for f in called}
    return bool(names - {"repo_root", "Path", "with_suffix", "with_name", "joinpath", "str"})


def writers(nbs):
    "Run All leaves the checkout as it is: chapters write through `write_table` and `write_figure`."
    out = []
    for p, nb in nbs.items():
        names = set()
        for c in code_cells(nb):
            if c.lstrip()[:1] in ("%", "!"):
                continue
            for line in _writes(ast.parse(c), names):
                out.append(
                    f"{p}: writes into the checkout: {c.splitlines()[line - 1].strip()[:80]}"
                )
    return out


_WHO = (
    "(?:systems?|trainers?|trackers?|projects?|tools?|librar(?:y|ies)|implementations?"
    "|repositor(?:y|ies)|papers?|benchmarks?|releases?)"
)
CLAIM = re.compile(  # what says that others have, or have not, something
    rf"\bno (?:other|public|published|open) (?:\w+ ){{0,2}}{_WHO}\b"
    rf"|\b(?:every|all|none of the) (?:public|published|open|existing|other) (?:\w+ )?{_WHO}\b"
    rf"|\b(?:the|we are the) (?:first|only) (?:public|published|open)\b"
    rf"|\b(?:first|only) (?:\w+ ){{0,2}}{_WHO} (?:that|which|to)\b"
    r"|\bto our knowledge\b|\bnobody (?:else )?(?:publishes|offers|reports|measures)\b"
    r"|\bunlike (?:all|any|every) other\b|\bstate[- ]of[- ]the[- ]art\b",
    re.I,
)
# "no state-of-the-art claims", and a claim of a paper that is quoted in order to be doubted
NO_CLAIM = re.compile(
    r"no (?:priority and no\s+)?state[- ]of[- ]the[- ]art|\"State of the art", re.I
)
DATE = re.compile(r"\b20\d\d-\d\d(?:-\d\d)?\b|\b[A-Z][a-z]+ 20\d\d\b")
SOURCE = re.compile(
    r"https?://|\]\(|\barXiv\b|\bgithub\b|\bissues? \d|\bpackage \w|\[paper\]", re.I
)


def claims(texts):  # {path: prose}
    "A sentence about what others have or lack stands in a paragraph with a date and a source."
    out = []
    for p, text in texts.items():
        for paragraph in re.split(r"\n\s*\n", text):
            found = CLAIM.search(NO_CLAIM.sub("", paragraph))
            if found and not (DATE.search(paragraph) and SOURCE.search(paragraph)):
                said = " ".join(found.group().split())
                out.append(f"{p}: says {said!r} without a date and a source in the same paragraph")
    return out


def prose(nbs):
    "All that is written for readers: path -> text."
    texts = {p: Path(p).read_text("utf-8") for p in ("README.md", "CONTRIBUTING.md")}
    texts |= {str(p): p.read_text("utf-8") for p in sorted(Path("papers").glob("*.md"))}
    for p, nb in nbs.items():
        cells = (c["source"] for c in nb["cells"] if c["cell_type"] == "markdown")
        texts[str(p)] = "\n\n".join(map("".join, cells))
    return texts


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
        + writers(nbs)
        + claims(prose(nbs))
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
