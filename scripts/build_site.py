"""Build the documentation into _docs/ and fail on a broken link.

Quarto builds it where it is installed. Elsewhere smalldocs reads the same processed notebooks
and the same _quarto.yml; that second route checks the site, Quarto stays the publisher.
"""

import argparse
import html.parser
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import pages
import reference
from notebooks import at_root, by_need, notebooks, part, title

PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "NOTICE", "LICENSE")
START = ("00_start", "00a_explore")  # first steps
RUNNING = ("11", "12")  # chapters about running it, apart from those about the method
HEADINGS = {"foundations": "Foundations", "theatre": "Theatre"}


def sidebar(nbs: dict) -> dict:
    "The chapters by parts, out of the folders: a new notebook appears by itself."
    of = {}
    for p in nbs:
        of.setdefault(part(p), []).append(p)

    def hrefs(found):
        return ["/".join(p.parts[1:]) for p in found]

    def numbered_hrefs(found):
        return [{"text": label(p, nbs[p]), "href": h} for p, h in zip(found, hrefs(found))]

    numbered = [p for p in of.pop("method", []) if p.stem != "index"]
    start = [p for p in numbered if p.stem.startswith(START)]
    running = [p for p in numbered if p.stem.startswith(RUNNING)]
    method = [p for p in numbered if p not in start + running]
    sections = [("Method", numbered_hrefs(method))]
    sections += [(HEADINGS.get(k, k), hrefs(by_need(nbs, of[k]))) for k in sorted(of)]
    sections += [("Running it", numbered_hrefs(running)), ("Papers", papers())]
    return {
        "style": "floating",
        "contents": [
            {"section": "Start", "contents": ["index.ipynb", *numbered_hrefs(start)]},
            *({"section": s, "contents": c} for s, c in sections if c),
            {"text": "Commands", "href": "commands.md"},
            {"text": "Settings", "href": "settings.md"},
            {"text": "Contributing", "href": "CONTRIBUTING.md"},
            {"text": "Changelog", "href": "CHANGELOG.md"},
        ],
    }


def label(path: Path, nb: dict) -> str:
    "A chapter's number, where it has one, and its title."
    number = re.match(r"\d+[a-z]*(?=_)", path.stem)
    return " ".join(filter(None, [number and number.group(), title(nb)]))


def papers() -> list:
    "The pages about papers, their index first."
    return sorted(map(str, Path("papers").glob("*.md")), key=lambda p: ("index" not in p, p))


def write_sidebar() -> None:
    "nbs/sidebar.yml, which nbs/_quarto.yml includes; JSON is YAML."
    text = json.dumps({"website": {"sidebar": sidebar(notebooks())}}, indent=2)
    Path("nbs/sidebar.yml").write_text(text + "\n", encoding="utf-8")


class Page(html.parser.HTMLParser):
    "Links and anchors of one page."

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8", errors="replace"))

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        self.anchors |= {a[k] for k in ("id", "name") if a.get(k)}
        self.links += [a[k] for k in ("href", "src") if a.get(k)]


def broken_links(site: Path) -> list:
    "Links inside the site that lead nowhere, as (page, link)."
    pages, out = {p.resolve(): Page(p) for p in site.rglob("*.html")}, []
    for path, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc or link.startswith("//"):
                continue
            name = urllib.parse.unquote(url.path)
            target = (
                path
                if not name
                else (
                    site.resolve() / name.lstrip("/")
                    if name.startswith("/")
                    else path.parent / name
                ).resolve()
            )
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file() or (
                url.fragment
                and target in pages
                and urllib.parse.unquote(url.fragment) not in pages[target].anchors
            ):
                out.append((str(path.relative_to(site.resolve())), link))
    return sorted(set(out))


def build() -> Path:
    "Process the notebooks and render them; the folder of the site."
    from nbdev.config import get_config
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs

    refresh_quarto_yml()
    write_sidebar()
    cache = proc_nbs(force=True, n_workers=2)
    # what the chapters link to
    linked = [*Path("papers").glob("*"), *map(Path, PAGES)]
    for page in linked:
        (cache / page).parent.mkdir(exist_ok=True)
        shutil.copy(page, cache / page)
    for name in ("commands", "settings"):
        (cache / f"{name}.md").write_text(getattr(reference, name)(), encoding="utf-8")
    quarto = shutil.which("quarto")
    smalldocs = Path(sys.executable).with_name("smalldocs")
    command = ["quarto", "render", "--no-cache"] if quarto else [str(smalldocs), "render"]
    print("site: rendering with", "Quarto" if quarto else "smalldocs (Quarto is not installed)")
    subprocess.run(command, cwd=cache, check=True)
    site = cache / get_config().doc_path.name
    chapters = [Path(*p.parts[1:]) for p in notebooks()]
    missing = [str(p) for p in chapters if not (site / p).with_suffix(".html").is_file()]
    if missing:
        sys.exit(f"site: not rendered: {', '.join(missing)}")
    shutil.rmtree("_docs", ignore_errors=True)
    shutil.move(site, "_docs")
    return Path("_docs")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    at_root()
    site = build()
    faults = pages.finish(site)
    for page, fault in faults:
        print(f"site: {page}: {fault}", file=sys.stderr)
    broken = broken_links(site)
    for page, link in broken:
        print(f"site: {page}: broken link {link}", file=sys.stderr)
    if broken or faults:
        sys.exit(1)
    print(f"site: {len(list(site.rglob('*.html')))} pages in {site}/, no broken link")
