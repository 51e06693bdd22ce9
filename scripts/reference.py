"""Pages of the site that are made from the code: the options of the commands, the settings."""

import argparse
from dataclasses import MISSING, fields, is_dataclass


def cell(text: object) -> str:
    "Text as a cell of a table."
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def table(heads: list, rows: list) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def option_row(action: argparse.Action) -> list:
    "How an option is written, and what it means."
    name = ", ".join(action.option_strings)
    value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    if action.choices:
        value = " or ".join(map(str, action.choices))
    written = f"`{name} {value}`" if name and value else f"`{name or value}`"
    return [written, action.help or ""]


def options(parser: argparse.ArgumentParser) -> list:
    "The options of a parser, its commands and its help left out."
    left = (argparse._HelpAction, argparse._SubParsersAction)
    return [a for a in parser._actions if not isinstance(a, left)]


def commands() -> str:
    "All commands with all their options, as Markdown."
    from stvg_nb.cli import build_parser

    parser = build_parser()
    (choices,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    shared = options(parser)
    common = {s for a in shared for s in a.option_strings}
    out = [
        "# Commands",
        "Made from the parser of `stvg`; `stvg COMMAND --help` prints the same.",
        "## Options of every command",
        table(["option", "meaning"], map(option_row, shared)),
    ]
    for about in choices._choices_actions:
        own = [a for a in options(choices.choices[about.dest]) if not common & {*a.option_strings}]
        out += [f"## stvg {about.dest}", f"{about.help}."]
        out += [table(["option", "meaning"], map(option_row, own))]
    return "\n\n".join(out) + "\n"


def comments(cls: type) -> dict:
    "Comment of each field of a dataclass, also of those that it inherits."
    from fastcore.docments import docments

    return {
        name: said
        for base in reversed(cls.__mro__)
        if is_dataclass(base)
        for name, said in docments(base).items()
        if said
    }


def default(field) -> str:
    "What a setting is where nobody sets it."
    if field.default is not MISSING:
        return "" if field.default in (None, "") else f"`{field.default}`"
    if field.default_factory is MISSING:
        return ""
    made = field.default_factory()
    return "" if is_dataclass(made) or not made else f"`{made}`"


def settings() -> str:
    "All settings of a profile with their comments, as Markdown."
    from stvg_nb.foundations.settings import SECTIONS, Profile, DataConfig, SamplingConfig, resolve

    parts = {"": Profile, "data": DataConfig, "sampling": SamplingConfig}
    parts |= {name: resolve(path) for name, path in SECTIONS.items()}
    out = [
        "# Settings",
        "What a profile can set, in YAML or with `--set KEY=VALUE`; made from the code.",
    ]
    for name, cls in parts.items():
        said = comments(cls)
        rows = [
            [f"`{name + '.' * bool(name)}{f.name}`", default(f), said.get(f.name, "")]
            for f in fields(cls)
            if name or f.name not in (*parts, "sections")
        ]
        out += [f"## {name or 'The profile'}", table(["setting", "default", "meaning"], rows)]
    return "\n\n".join(out) + "\n"
