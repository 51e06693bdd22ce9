"""Build the documentation into _docs/ and fail on a broken link.

Quarto builds it where it is installed. Elsewhere smalldocs reads the same processed notebooks and the same
_quarto.yml; that second route checks the site, Quarto stays the publisher.
"""

import html.parser, os, shutil, subprocess, sys, urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.chdir(ROOT)


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
    cache = proc_nbs(force=True, n_workers=2)
    for page in (
        *Path("papers").glob("*"),
        Path("CONTRIBUTING.md"),
        Path("NOTICE"),
        Path("LICENSE"),
    ):  # what the chapters link to
        (cache / page).parent.mkdir(exist_ok=True)
        shutil.copy(page, cache / page)
    chapters = sorted(p.name for p in get_config().nbs_path.glob("*.ipynb"))
    quarto = shutil.which("quarto")
    command = (
        ["quarto", "render", "--no-cache"]
        if quarto
        else [str(Path(sys.executable).with_name("smalldocs")), "render"]
    )
    print("site: rendering with", "Quarto" if quarto else "smalldocs (Quarto is not installed)")
    subprocess.run(command, cwd=cache, check=True)
    site = cache / get_config().doc_path.name
    missing = [c for c in chapters if not (site / c).with_suffix(".html").is_file()]
    if missing:
        sys.exit(f"site: not rendered: {', '.join(missing)}")
    shutil.rmtree("_docs", ignore_errors=True)
    shutil.move(site, "_docs")
    return Path("_docs")


if __name__ == "__main__":
    site = build()
    broken = broken_links(site)
    for page, link in broken:
        print(f"site: {page}: broken link {link}", file=sys.stderr)
    if broken:
        sys.exit(1)
    print(f"site: {len(list(site.rglob('*.html')))} pages in {site}/, no broken link")
