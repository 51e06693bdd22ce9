"""The pages of the site: those made from the code, and what is done to all of them."""

import argparse
import shutil
import sys
from dataclasses import fields
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import look  # noqa: E402
import pages  # noqa: E402
import reference  # noqa: E402


def test_every_option_of_every_command_is_listed():
    from stvg_nb.cli import build_parser
    from stvg_nb.commands import COMMANDS

    text = reference.commands()
    (commands,) = (
        a.choices for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)
    )
    assert set(commands) == set(COMMANDS)
    for name, parser in commands.items():
        assert f"\n## stvg {name}\n" in text
        options = {s for a in parser._actions for s in a.option_strings} - {"-h", "--help"}
        assert [s for s in options if f"`{s}" not in text] == []
    assert [
        line for line in text.splitlines() if line.startswith("| `") and line.endswith("|  |")
    ] == []


def test_every_setting_is_listed_with_its_comment():
    from stvg_nb.train_settings import TrainConfig

    text = reference.settings()
    assert [f.name for f in fields(TrainConfig) if f"| `train.{f.name}` |" not in text] == []
    assert "| `train.reader` | `numbered` | of READERS:" in text  # from a class that is inherited
    assert [
        line for line in text.splitlines() if line.startswith("| `") and line.endswith("|  |")
    ] == []


def test_a_page_is_finished():
    pytest.importorskip("latex2mathml")
    katex = '<script src="https://cdn.example/katex.min.js" defer></script>'
    empty = "<p><em>Call self as a function.</em></p>\n"
    inline = '<span class="math inline">\\(a_i &lt; b\\)</span>'
    display = '<span class="math display">\\[\\frac{a}{b}\\]</span>'
    done = pages.finished(katex + empty + inline + display)
    assert "katex" not in done and "Call self" not in done and "\\(" not in done
    assert done.count("<math ") == 2 and "<mfrac>" in done and "<mo>&lt;</mo>" in done
    assert pages.faults(done) == []


def test_text_in_an_equation_stays_text():
    pytest.importorskip("latex2mathml")
    tex = "\\texttt{&lt;s&gt;} = \\texttt{st\\_frame}, \\arg\\max_k x, \\unknown"
    done = pages.finished(f'<span class="math inline">\\({tex}\\)</span>')
    assert ">&lt;s&gt;</mtext>" in done and ">st_frame</mtext>" in done and "<mi>arg</mi>" in done
    assert pages.faults(done) == ["LaTeX that was not drawn"]  # the unknown name alone
    assert pages.faults(done.replace("\\unknown", "")) == []


def test_a_name_in_the_comment_of_a_signature_is_a_name():
    link = (
        '<span class="co"># of [`ground`](https://site.example/ground.html#ground), or None</span>'
    )
    assert pages.finished(link) == '<span class="co"># of `ground`, or None</span>'.replace("`", "")
    assert pages.faults(link) == ["a link that was not drawn"]


@pytest.mark.parametrize(
    "text, fault",
    [
        ("<pre>rows:  40%|####      | 2/5</pre>", "a progress bar that stands still"),
        ("<p><em>Call self as a function.</em></p>", "'Call self as a function.'"),
        ('<script src="https://a.example/x.js"></script>', "a script or style from the network"),
    ],
)
def test_what_no_page_may_show(text, fault):
    assert pages.faults(text) == [fault]


@pytest.mark.slow
def test_what_is_cut_off_is_found(tmp_path):
    browser = next(filter(None, map(shutil.which, look.BROWSERS)), None)
    if browser is None:
        return  # said by scripts/look.py too: without a browser nothing can be looked at
    wide = '<table style="width:900px"><tr><td>wide</td></tr></table>'
    page = "<!doctype html><meta name=viewport content='width=device-width'><main>{}</main>"
    (tmp_path / "bad.html").write_text(page.format(wide))
    held = f'<div style="overflow-x:auto">{wide}</div>'
    (tmp_path / "good.html").write_text(page.format(held))
    found = look.look(browser, tmp_path, ["bad.html", "good.html"])
    assert {(p, w) for p, w, _ in found["found"]} == {("/bad.html", 390)}
    assert {what for *_, what in found["found"]} == {"the page", "table wide"}
