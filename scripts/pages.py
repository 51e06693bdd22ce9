"""What is done to the rendered pages of the site, without network and idle parts."""

import html
import re
from pathlib import Path

MATH = re.compile(r'<span class="math (inline|display)">\\[(\[](.+?)\\[)\]]</span>', re.S)
KATEX = re.compile(r"<(?:link|script)[^>]*katex[^>]*>(?:</script>)?")
EMPTY = re.compile(r"<p><em>Call self as a function\.</em></p>\n?")
# a bar that stands still, in the text of an output
BAR = re.compile(r"^.*\d+%\|.*$\n?", re.M)


def mathml(kind: str, tex: str) -> str:
    "An equation as MathML, which browsers draw themselves."
    from latex2mathml.converter import convert

    drawn = convert(html.unescape(tex).strip(), display="block" if kind == "display" else "inline")
    return f'<span class="math {kind}">{drawn}</span>'


def finished(text: str) -> str:
    "A page as it is published."
    text = EMPTY.sub("", text)
    text = MATH.sub(lambda m: mathml(*m.groups()), text)
    return KATEX.sub("", text)


def faults(text: str) -> list:
    "What no page may show."
    plain = re.sub(r"<[^>]+>", "", re.sub(r"<(script|style).*?</\1>", "", text, flags=re.S))
    out = ["a progress bar that stands still"] if BAR.search(plain) else []
    out += ["'Call self as a function.'"] if "Call self as a function" in plain else []
    if re.search(r'<(?:script|link)[^>]+(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css)"', text):
        out.append("a script or style from the network")
    return out


def finish(site: Path) -> list:  # (page, fault)
    "Finish all pages of a site; what is wrong with them."
    found = []
    for path in sorted(site.rglob("*.html")):
        text = finished(path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
        found += [(str(path.relative_to(site)), fault) for fault in faults(text)]
    return found
