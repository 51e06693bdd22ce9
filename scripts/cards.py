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
}
METRICS = {"m_tiou": "m_tIoU", "m_viou": "m_vIoU", "id_accuracy": "ID accuracy"}
CARD = """{begin}

## Scores

300 clips of the Puppets test split, greedy, protocol `clean`; where a row has marks, they are
drawn from exact masks. 95 % bootstrap intervals over the clips.

| row of a table in `figures/tiny` | {heads} |
|---|{rules}|
{rows}

## Use

```python
import stvg_nb

answer = stvg_nb.ground("clip.mp4", "Who waves?", profile="tiny", model="embedded:{name}")
print(*answer.explain())
```
"""


def rows_of(name: str) -> list[tuple[str, str]]:
    "(table, row) pairs of a policy; a policy without any is an error."
    for pattern, rows in ROWS.items():
        if re.fullmatch(pattern, name):
            told = dict(name=name, seed=name[-1])
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


def scores(name: str) -> str:
    "What stands below a card."
    rows = []
    for table, row in rows_of(name):
        cells = (_cell(_line(table, row), metric) for metric in METRICS)
        rows.append(f"| {table}: {row} | {' | '.join(cells)} |")
    heads, rules = " | ".join(METRICS.values()), "|".join(["---"] * len(METRICS))
    return CARD.format(begin=BEGIN, name=name, heads=heads, rules=rules, rows="\n".join(rows))


def cards() -> dict[str, str]:  # path -> text
    "Every card as it should be."
    out = {}
    for folder in sorted(FOLDER.glob("policy-*")):
        path = folder / "README.md"
        head = path.read_text(encoding="utf-8").split(BEGIN)[0].rstrip()
        out[str(path)] = f"{head}\n\n{scores(folder.name.removeprefix('policy-'))}"
    return out
