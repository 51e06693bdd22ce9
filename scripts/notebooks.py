"""The notebooks of the project: where they lie, what they export, which modules that imports."""

import ast
import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "stvg_nb"
PARTS = ("method", "foundations", "theatre")
# tables from a name to the dotted path of an object: the one way to reach something above oneself
REGISTRIES = {
    "SOURCES",
    "CLIPS",
    "VIEWS",
    "FORMS",
    "READERS",
    "BASES",
    "LABORATORY",
    "DETECTORS",
    "TRACKERS",
    "TRACK_SOURCES",
    "POLICIES",
    "REWARDS",
    "PROTOCOLS",
    "SECTIONS",
}


def paths(folder: Path = Path("nbs")) -> list[Path]:
    "Notebooks below a folder, as nbdev finds them: nothing whose name starts with `_` or `.`."
    return sorted(
        p
        for p in Path(folder).rglob("*.ipynb")
        if not any(name[0] in "_." for name in p.relative_to(folder).parts)
    )


def notebooks(folder: Path = Path("nbs")) -> dict:
    "Path -> parsed notebook."
    return {p: json.loads(p.read_text(encoding="utf-8")) for p in paths(folder)}


def source(cell: dict) -> str:
    return "".join(cell["source"])


def code_cells(nb: dict) -> list[str]:
    "Sources of the code cells that hold something."
    return [s for c in nb["cells"] if c["cell_type"] == "code" and (s := source(c)).strip()]


def exported(cell: str) -> bool:
    "Does a cell go into the module?"
    return bool(re.search(r"^#\|\s*export", cell, re.M))


def module(nb: dict) -> str | None:
    "Dotted name below the package, `foundations.geometry`; None where a notebook makes no module."
    found = [m for c in code_cells(nb) for m in re.findall(r"^#\|\s*default_exp (\S+)", c, re.M)]
    return found[0] if found else None


def part(path: Path) -> str:
    "`method` for a notebook in nbs/ itself, else the name of its folder."
    return "/".join(path.parts[1:-1]) or "method"


def title(nb: dict) -> str:
    "The heading of a notebook without its mark-up."
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            if m := re.search(r"^# (.+)$", source(cell), re.M):
                return m.group(1).strip()
    return ""


def _of(dotted: str, known: set) -> str | None:
    "The longest beginning of a dotted name that is a module of ours."
    names = [n for n in dotted.split(".")[1:] if n]
    for k in range(len(names), 0, -1):
        if (name := ".".join(names[:k])) in known:
            return name
    return None


def _docstrings(tree: ast.AST) -> set:
    "Ids of the string constants that stand as a statement."
    return {
        id(n.value)
        for n in ast.walk(tree)
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
    }


def _registers(statement: ast.stmt) -> bool:
    "Does a statement fill a registry?"
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        targets = [getattr(statement.value.func, "value", None)]  # SOURCES.update(...)
    else:
        targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    names = [t.value if isinstance(t, ast.Subscript) else t for t in targets]
    return bool(names) and all(isinstance(n, ast.Name) and n.id in REGISTRIES for n in names)


def imports(cell: str, here: str, known: set) -> tuple[set, set]:
    """Modules of ours that the code of a cell imports, and those that it names in strings.

    Imports inside functions count, and so does a string that starts with a module's dotted name,
    except as an entry of a registry. A module that no notebook makes comes back as it is named.
    """
    tree, real, named = ast.parse(cell), set(), set()
    spared = _docstrings(tree) | {
        id(n)
        for s in tree.body
        if _registers(s)
        for n in ast.walk(s)
        if isinstance(n, ast.Constant)
    }
    package = f"{PACKAGE}.{here}".split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            dotted = [f"{base}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in spared and re.match(rf"{PACKAGE}\.\w", node.value):
                named |= {m for m in [_of(node.value, known)] if m}
            continue
        else:
            continue
        for name in dotted:
            if re.match(rf"{PACKAGE}\.\w", name) and not name.startswith(f"{PACKAGE}.__"):
                real.add(_of(name, known) or ".".join(name.split(".")[1:]))
    return real - {here}, named - {here}


def graph(nbs: dict) -> dict:
    "Module -> (its notebook's path, modules it imports, modules it names in strings)."
    made = {p: m for p, nb in nbs.items() if (m := module(nb))}
    known, out = set(made.values()), {}
    for p, m in made.items():
        found = [imports(python(c), m, known) for c in code_cells(nbs[p]) if exported(c)]
        real, named = (set().union(*(f[k] for f in found)) for k in (0, 1))
        out[m] = (p, real, named)
    return out


def python(cell: str) -> str:
    "A cell without lines that only IPython understands."
    return "\n".join("" if re.match(r"\s*[%!]", line) else line for line in cell.split("\n"))


def by_need(nbs: dict, names: list[Path]) -> list[Path]:
    "Notebooks, each after those that it imports; by name where that leaves a choice."
    modules = graph(nbs)
    of = {p: m for m, (p, _, _) in modules.items()}
    left, out = sorted(names), []
    while left:
        waiting = {of[p] for p in left if p in of}
        ready = [p for p in left if not (p in of and modules[of[p]][1] & waiting)]
        out.append((ready or left)[0])  # a circle is reported by the checks, not here
        left.remove(out[-1])
    return out


def at_root() -> None:
    "Paths of these scripts are relative to the root of the repository, and so is the package."
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
