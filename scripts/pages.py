"""What is done to the rendered pages of the site, without network and idle parts."""

import html
import re
from pathlib import Path

MATH = re.compile(r'<span class="math (inline|display)">\\[(\[](.+?)\\[)\]]</span>', re.S)
KATEX = re.compile(r"<(?:link|script)[^>]*katex[^>]*>(?:</script>)?")
EMPTY = re.compile(r"<p><em>Call self as a function\.</em></p>\n?")
EQUATION = re.compile(r"<math.*?</math>", re.S)
# the text of an element of an equation
ELEMENT = re.compile(r"(<(m(?:i|o|n|text))(?: [^>]*[^>/])?>)(.*?)</\2>", re.S)
# a link of Markdown in the comment of a signature, which nothing renders
IN_COMMENT = re.compile(r"\[`([^`\]]+)`\]\(https?://[^)\s]+\)")
# a bar that stands still, in the text of an output
BAR = re.compile(r"^.*\d+%\|.*$\n?", re.M)


def mathml(kind: str, tex: str) -> str:
    "An equation as MathML, which browsers draw themselves."
    from latex2mathml.converter import convert

    drawn = convert(html.unescape(tex).strip(), display="block" if kind == "display" else "inline")
    drawn = ELEMENT.sub(lambda m: f"{m[1]}{_written(m[3])}</{m[2]}>", drawn)
    return f'<span class="math {kind}">{drawn}</span>'


def _written(text):
    "What stands in an element of an equation: tags as text, `\\_` and `\\arg` plain."
    plain = re.sub(r"\\(?=_|arg$)", "", html.unescape(text))
    return html.escape(plain, quote=False)


def finished(text: str) -> str:
    "A page as it is published."
    text = EMPTY.sub("", text)
    text = MATH.sub(lambda m: mathml(*m.groups()), text)
    text = IN_COMMENT.sub(r"\1", text)
    return KATEX.sub("", text)


def faults(text: str) -> list:
    "What no page may show."
    plain = re.sub(r"<[^>]+>", "", re.sub(r"<(script|style).*?</\1>", "", text, flags=re.S))
    out = ["a progress bar that stands still"] if BAR.search(plain) else []
    out += ["'Call self as a function.'"] if "Call self as a function" in plain else []
    if re.search(r'<(?:script|link)[^>]+(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css)"', text):
        out.append("a script or style from the network")
    if any("\\" in m[3] for m in ELEMENT.finditer(" ".join(EQUATION.findall(text)))):
        out.append("LaTeX that was not drawn")
    if IN_COMMENT.search(plain):
        out.append("a link that was not drawn")
    return out


def finish(site: Path) -> list:  # (page, fault)
    "Finish all pages of a site; what is wrong with them."
    found = []
    for path in sorted(site.rglob("*.html")):
        text = finished(path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
        found += [(str(path.relative_to(site)), fault) for fault in faults(text)]
    return found
