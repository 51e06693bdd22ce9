"""No table, code or picture of the site is cut off: `python scripts/look.py [--shots DIR] [PAGE]`.

A headless Chromium opens each page of _docs/ at the width of a telephone and of a desktop and
says what reaches over the right edge without a scroll bar of its own. Without Chromium
nothing is looked at, and that is said.
"""

import argparse
import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SITE = Path(__file__).resolve().parent.parent / "_docs"
WIDTHS = (390, 1280)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# opens the pages one after another in a frame and lists what stands out
HARNESS = """<!doctype html><body>
<iframe id="f" style="border:0;height:900px"></iframe><pre id="out"></pre>
<script>
const [pages, widths] = JSON_HERE, found = [], frame = document.getElementById("f");
const scrolls = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
function outside(doc, width) {
  const out = doc.documentElement.scrollWidth > width + 1 ? ["the page"] : [];
  for (const e of doc.querySelectorAll("main table, main pre, main img, main svg, main math")) {
    let held = false;
    for (let a = e; a && a !== doc.body; a = a.parentElement) held ||= scrolls(a);
    const box = e.getBoundingClientRect();
    if (box.width && box.right > width + 1 && !held)
      out.push(e.tagName.toLowerCase() + " " + e.textContent.trim().slice(0, 40));
  }
  return out;
}
async function look() {
  for (const page of pages) for (const width of widths) {
    frame.style.width = width + "px";
    await new Promise((done) => { frame.onload = done; frame.src = page; });
    for (const what of outside(frame.contentDocument, width)) found.push([page, width, what]);
  }
  document.getElementById("out").textContent = JSON.stringify({looked: pages.length, found});
  document.title = "done";
}
look();
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    "A file server that says nothing."

    harness = ""

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path != "/__look__.html":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.harness.encode())


def served(site: Path, harness: str = "") -> http.server.ThreadingHTTPServer:
    "The site at a free port of this machine."
    kind = type("Served", (Quiet,), dict(harness=harness))
    handler = functools.partial(kind, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def chromium(browser: str, *options: str) -> str:
    "What a headless Chromium prints."
    with tempfile.TemporaryDirectory() as folder:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder}", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=1200).stdout


def look(browser: str, site: Path, pages: list, widths: tuple = WIDTHS) -> dict:
    "What reaches over the edge, as {looked, found: [(page, width, what)]}."
    told = json.dumps([[f"/{p}" for p in pages], widths])
    server = served(site, HARNESS.replace("JSON_HERE", told))
    address = f"http://127.0.0.1:{server.server_port}/__look__.html"
    budget = f"--virtual-time-budget={4000 * len(pages) * len(widths)}"
    text = chromium(browser, "--window-size=1300,1000", budget, "--dump-dom", address)
    server.shutdown()
    (said,) = re.findall(r'<pre id="out">(.*?)</pre>', text, re.S)
    if not said:
        raise RuntimeError("the browser did not finish; look at fewer pages")
    return json.loads(html.unescape(said))


def shoot(browser: str, site: Path, pages: list, folder: Path) -> None:
    "A picture of the top of each page at each width."
    server = served(site)
    folder.mkdir(parents=True, exist_ok=True)
    for page in pages:
        for width in WIDTHS:
            name = folder / f"{page.replace('/', '-').removesuffix('.html')}-{width}.png"
            address = f"http://127.0.0.1:{server.server_port}/{page}"
            size = f"--window-size={width},2400"
            chromium(browser, size, f"--screenshot={name}", "--virtual-time-budget=4000", address)
    server.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", nargs="*", help="below _docs/ (default: all)")
    parser.add_argument("--shots", type=Path, metavar="FOLDER", help="save pictures here")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("look: there is no Chromium here, so no page was looked at")
        return
    pages = args.page or sorted(str(p.relative_to(SITE)) for p in SITE.rglob("*.html"))
    if args.shots:
        shoot(browser, SITE, pages, args.shots)
    found = look(browser, SITE, pages)["found"]
    for page, width, what in found:
        print(f"look: {page[1:]} at {width} px: cut off: {what}", file=sys.stderr)
    print(f"look: {len(pages)} pages at {' and '.join(map(str, WIDTHS))} px, {len(found)} cut off")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
