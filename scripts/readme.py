"""README.md out of nbs/index.ipynb: `python scripts/readme.py`.

The list of the chapters is made from the notebooks, by parts as in the site's sidebar, and the
table of results from figures/tiny; both are written into both. The pictures are the outputs that
are stored in nbs/index.ipynb.
"""

import base64
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from build_site import sidebar
from notebooks import PACKAGE, ROOT, at_root, module, source, title

INDEX = ROOT / "nbs/index.ipynb"
MADE = ("chapters", "results")  # between <!-- chapters --> and <!-- end of chapters -->


def subtitle(nb: dict) -> str:
    "The line under the title, without its mark."
    text = "\n".join(source(c) for c in nb["cells"] if c["cell_type"] == "markdown")
    found = re.search(r"^# .+\n+((?:> ?.*\n?)+)", text, re.M)
    lines = found.group(1).splitlines() if found else []
    return " ".join(line.lstrip("> ").strip() for line in lines).replace("|", "\\|")


def row(href: str) -> str:  # path below nbs/
    "A chapter as a line of the table."
    nb = json.loads((ROOT / "nbs" / href).read_text(encoding="utf-8"))
    number = re.match(r"\d+[a-z]* *", Path(href).stem.replace("_", " "))
    name = (number.group() if number else "") + title(nb)
    made = module(nb)
    return f"| [{name}]({href}) | {f'`{PACKAGE}.{made}`' if made else ''} | {subtitle(nb)} |"


def chapters(nbs: dict) -> str:  # path -> notebook
    "The list of all chapters, one table a part, with links that hold in nbs/."
    out = []
    for part in sidebar(nbs)["contents"]:
        listed = [e if isinstance(e, str) else e["href"] for e in part.get("contents", ())]
        hrefs = [h for h in listed if h.endswith(".ipynb") and h != "index.ipynb"]
        if hrefs:
            head = (
                f"### {part['section']}\n\n| chapter | module | what it is about |\n|---|---|---|"
            )
            out.append("\n".join([head, *map(row, hrefs)]))
    return "\n\n".join(out)


def index() -> dict:
    "nbs/index.ipynb with the chapters as they are now."
    from notebooks import paths

    nbs = {p.relative_to(ROOT): json.loads(p.read_text("utf-8")) for p in paths(ROOT / "nbs")}
    from stvg_nb.results import short_table

    made = dict(zip(MADE, (chapters(nbs), short_table()), strict=True))
    nb = json.loads(INDEX.read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        text = source(cell)
        for name, content in made.items():
            first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
            if first in text:
                before, after = text.split(first)[0], text.split(last)[1]
                text = f"{before}{first}\n\n{content}\n\n{last}{after}"
        cell["source"] = text.splitlines(keepends=True)
    return nb


def _local(text):
    "Links from nbs/ as links from the root of the repository."
    text = re.sub(r"\]\((?:\./)?((?:\w+/)?\w+\.ipynb)", r"](nbs/\1", text)
    return text.replace("](../", "](")


def render() -> tuple:  # (text, {file name: bytes})
    "The README and its pictures."
    parts, pictures = [], {}
    for cell in index()["cells"]:
        text = source(cell)
        if cell["cell_type"] == "markdown":
            parts.append(_local(text))
            continue
        if cell["cell_type"] != "code" or re.search(r"^#\|\s*hide", text, re.M):
            continue
        if not re.search(r"^#\|\s*echo:\s*false", text, re.M):
            shown = re.sub(r"^#\|.*\n", "", text, flags=re.M)
            parts.append(f"```python\n{shown}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"README_files/figure-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![]({name})")
            elif "text" in output:
                parts.append("    " + "".join(output["text"]).rstrip().replace("\n", "\n    "))
    return "\n\n".join(parts).rstrip() + "\n", pictures


def main():
    "Write what follows from the notebooks."
    at_root()
    INDEX.write_text(json.dumps(index(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text, pictures = render()
    for name, data in pictures.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_bytes(data)
    (ROOT / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
