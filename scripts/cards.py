"""The last part of a shipped policy's card: what it scored, by figures/tiny, and how it is asked.

`python scripts/derived.py` writes it below the part that was written when the policy was trained.
"""

import csv
import re
from pathlib import Path

BEGIN = "<!-- scores and use: written by scripts/derived.py -->"
FOLDER = Path("stvg_nb/weights")
TABLES = Path("figures/tiny")
# policy -> tables and rows that it alone makes; {seed} is the end of its name
ROWS = {
    r"base": [("r1-table07", "base"), ("r1-table07", "marks")],
    r"early|reasoning": [("r1-table01", "{name}, two stages"), ("r1-table01", "{name}, marks")],
    r"plain-\d": [("x-seeds", "GRPO, seed {seed}")],
    r"sft-\d": [("x-seeds", "marks+SFT, seed {seed}")],
    r"sft-long-\d": [("x-seeds", "marks+SFT, equal expense, seed {seed}")],
    r"grpo-\d": [("x-seeds", "marks+GRPO, seed {seed}")],
    r"cold-0": [("x-cold-start", "marks+SFT+GRPO")],
    r"coupled-0": [("r1-rewards", "coupled")],
    r"continuous-0": [("r1-rewards", "continuous")],
    r"no-format-0": [("x-reward-terms", "r_t + r_s")],
    r"no-spatial-0": [("x-reward-terms", "r_t + r_f")],
    r"no-temporal-0": [("x-reward-terms", "r_s + r_f")],
    r"numbers-even": [("x-numbers-or-boxes", "numbers, GRPO")],
}
BOXES = {  # the same for policies that write boxes; a row of a table is the mean of its seeds
    r"base": [("o1-table05", "no training")],
    r"sft-\d": [("o1-table05", "SFT")],
    r"rft-\d": [("o1-table05", "RFT")],
    r"rft-thinking-\d": [("o1-table05", "RFT, thinking")],
    r"no-think-reward-0": [("o1-table06", "without think reward")],
    r"giou-0": [("o1-table07", "GIoU")],
    r"l1-0": [("o1-table07", "L1")],
    r"lambda-0.2-0": [("o1-table08", "lambda 0.2")],
    r"lambda-1-0": [("o1-table08", "lambda 1")],
    r"(stage|street)-0": [("o1-table04", "trained on the {domain}")],
    r"even-0": [("x-numbers-or-boxes", "boxes, RFT with thinking")],
}
KINDS = {"policy-": ("embedded:", ROWS), "boxes-": ("boxes:", BOXES)}  # folder -> name, rows
METRICS = {"m_tiou": "m_tIoU", "m_viou": "m_vIoU", "id_accuracy": "ID accuracy"}
CARD = """{begin}

## Scores

300 clips of the Puppets test split, greedy, protocol `clean`; where a row has marks, they are
drawn from exact masks. 95 % bootstrap intervals over the clips{seeds}.

| row of a table in `figures/tiny` | {heads} |
|---|{rules}|
{rows}

## Use

```python
{use}
```
"""
USE = {
    "embedded:": """import stvg_nb

answer = stvg_nb.ground("clip.mp4", "Who waves?", profile="tiny", model="embedded:{name}")
print(*answer.explain())""",
    "boxes:": """from stvg_nb.box_answers import ground_boxes
from stvg_nb.foundations.settings import load_profile

answer = ground_boxes("clip.mp4", ["Who waves?"], "boxes:{name}", load_profile("tiny"))
print(answer["results"][0]["text"])""",
}


def rows_of(name: str, known: dict = ROWS) -> list[tuple[str, str]]:
    "(table, row) pairs of a policy; a policy without any is an error."
    for pattern, rows in known.items():
        if re.fullmatch(pattern, name):
            told = dict(name=name, seed=name[-1], domain=name.split("-")[0])
            return [(table, row.format(**told)) for table, row in rows]
    raise SystemExit(f"scripts/cards.py: no table is named for policy {name}; add it to ROWS")


def _line(table, row):
    with (TABLES / f"{table}.csv").open(encoding="utf-8", newline="") as f:
        for line in csv.DictReader(f):
            if (line["row"], line["kind"], line["n"]) == (row, "measured", "300"):
                return line
    raise SystemExit(f"figures/tiny/{table}.csv: has no measured row {row!r} over 300 clips")


def _cell(line, metric):
    parts = [line.get(f"measured {metric}{end}") for end in ("", " low", " high")]
    if not all(parts):
        return ""
    value, low, high = (f"{float(v):.3f}" for v in parts)
    return f"{value} [{low}, {high}]"


def scores(name: str, kind: str = "policy-") -> str:
    "What stands below a card."
    rows, (start, known) = [], KINDS[kind]
    for table, row in rows_of(name, known):
        cells = (_cell(_line(table, row), metric) for metric in METRICS)
        rows.append(f"| {table}: {row} | {' | '.join(cells)} |")
    heads, rules = " | ".join(METRICS.values()), "|".join(["---"] * len(METRICS))
    told = dict(seeds=" and the seeds of the row" if kind == "boxes-" else "")
    told |= dict(use=USE[start].format(name=name), rows="\n".join(rows))
    return CARD.format(begin=BEGIN, heads=heads, rules=rules, **told)


def cards() -> dict[str, str]:  # path -> text
    "Every card as it should be."
    out = {}
    for kind in KINDS:
        for folder in sorted(FOLDER.glob(f"{kind}*")):
            path = folder / "README.md"
            head = path.read_text(encoding="utf-8").split(BEGIN)[0].rstrip()
            out[str(path)] = f"{head}\n\n{scores(folder.name.removeprefix(kind), kind)}"
    return out
