"""The rewards of chapter 10 against an implementation that was written independently."""

import math
import random
import re

import pytest

from stvg_nb.box_rewards import BoxReward, BoxTarget, box_terms
from stvg_nb.thinking_boxes import format_boxes


def overlap(a0, a1, b0, b1):
    return max(0.0, min(a1, b1) - max(a0, b0))


def plain_giou(p, g):
    """From areas alone, one pair of boxes at a time."""
    inter = overlap(p[0], p[2], g[0], g[2]) * overlap(p[1], p[3], g[1], g[3])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (p, g)]
    union = sum(areas) - inter
    hull = (max(p[2], g[2]) - min(p[0], g[0])) * (max(p[3], g[3]) - min(p[1], g[1]))
    iou = inter / union if union > 0 else 0.0
    return iou - ((hull - union) / hull if hull > 0 else 0.0)


def split_answer(text):
    """Blocks by string search, boxes by splitting; only for texts that `random_case` makes."""

    def block(name):
        start, stop = text.rfind(f"<{name}>"), text.rfind(f"</{name}>")
        return text[start + len(name) + 2 : stop] if -1 < start < stop else ""

    def boxes(name):
        out = []
        for piece in block(name).split("]"):
            if "[" not in piece:
                continue
            step, numbers = piece.split("[")
            x1, y1, x2, y2 = (float(v) for v in numbers.split(","))
            step = int(step.strip(" ,.\n"))
            out.append((step, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))))
        return out

    when = [w for w in block("time").replace("-", " ").split() if w]
    span = (int(when[0]), int(when[1])) if len(when) == 2 else None
    return span, boxes("think_bbox"), boxes("pred_bbox")


def plain_spatial(written, span, target, lambda_empty, part, mean):
    if span is None or span[0] > span[1]:
        return lambda_empty
    shared = set(range(span[0], span[1] + 1)) & set(range(target.steps[0], target.steps[1] + 1))
    if not shared:
        return lambda_empty
    total = 0.0
    table = dict(written)
    for step in shared:
        if step not in table:
            continue
        h, w = target.size
        p = [v / s for v, s in zip(table[step], (w, h, w, h))]
        g = target.boxes[step - target.steps[0]]
        l1 = sum(abs(a - b) for a, b in zip(p, g)) / (4 if mean else 1)
        total += {"both": plain_giou(p, g) - l1, "giou": plain_giou(p, g), "l1": -l1}[part]
    return total / len(shared)


def plain_terms(text, target, reward):
    span, draft, final = split_answer(text)
    order = [m.group(0) for m in re.finditer(r"</?\w+>", text)]
    names = ["time", "think_bbox", "pred_bbox"] if target.think else ["time", "pred_bbox"]
    tags = [t for n in names for t in (f"<{n}>", f"</{n}>")]
    outside = re.sub(r"<(\w+)>.*?</\1>", "", text, flags=re.S).strip()
    blocks = [draft, final] if target.think else [final]
    r_f = float(order == tags and not outside and span is not None and all(blocks))
    ok = span is not None and span[0] <= span[1]
    steps = list(range(span[0], span[1] + 1)) if ok else None
    r_c = float(ok and all(sorted(s for s, _ in b) == steps for b in blocks))
    r_t = 0.0
    if ok:
        a, b = set(steps), set(range(target.steps[0], target.steps[1] + 1))
        hull = max(max(a), max(b)) - min(min(a), min(b)) + 1
        r_t = len(a & b) / hull
    how = (span, target, reward.spa_empty, reward.part, reward.l1_reduce == "mean")
    spa_final = plain_spatial(final, *how)
    spa_draft = plain_spatial(draft, *how) if target.think else 0.0
    r_k = max(spa_final - spa_draft, 0) if target.think and draft and final else 0.0
    total = r_f + r_c + r_t + spa_draft + spa_final + reward.lambda_k * r_k
    return dict(
        r_f=r_f, r_c=r_c, r_t=r_t, spa_draft=spa_draft, spa_final=spa_final, r_k=r_k, total=total
    )


def random_box(dice, size):
    h, w = size
    x, y = sorted(dice.randint(0, w) for _ in "ab"), sorted(dice.randint(0, h) for _ in "ab")
    if dice.random() < 0.05:
        x.reverse()  # corners in the wrong order
    return x[0], y[0], x[1], y[1]


def random_case(dice):
    """A target and a text that is right, or wrong in one or several ways."""
    size = dice.choice([(112, 168), (336, 196), (1000, 1000)])
    first, n = dice.randint(0, 20), dice.randint(1, 8)
    truth = []
    for _ in range(n):
        x, y = sorted(dice.random() for _ in "ab"), sorted(dice.random() for _ in "ab")
        truth.append((x[0], y[0], x[1], y[1]))
    think = dice.random() < 0.75
    target = BoxTarget((first, first + n - 1), tuple(truth), size, think=think)
    a = max(0, first + dice.randint(-4, 4))
    b = max(a, a + dice.randint(0, 8))
    steps = list(range(a, b + 1))

    def sequence():
        kept = [s for s in steps if dice.random() < 0.93] or steps[:1]
        if dice.random() < 0.1:
            kept.append(b + 1)
        return {s: random_box(dice, size) for s in kept}

    text = format_boxes((a, b), sequence(), sequence() if dice.random() < 0.85 else None)
    faults = [
        lambda t: "So: " + t,
        lambda t: t.replace("</pred_bbox>", ""),
        lambda t: t.replace(f"<time> {a} - {b} </time>", ""),
        lambda t: t.replace(f"{a} - {b}", f"{b + 1} - {a}"),
        lambda t: t.replace("> ", ">\n  "),
        lambda t: t + " done",
        lambda t: "",
    ]
    if dice.random() < 0.3:
        text = dice.choice(faults)(text)
    return text, target


def test_terms_equal_an_independent_implementation_on_2000_random_answers():
    dice, seen = random.Random(14), {"r_f": set(), "r_c": set(), "positive_k": 0, "empty": 0}
    for _ in range(2000):
        text, target = random_case(dice)
        reward = BoxReward(
            dice.choice([0, 0.2, 0.5, 1.0]),
            dice.choice(["both", "both", "giou", "l1"]),
            dice.choice(["sum", "mean"]),
            dice.choice([0.0, -1.0]),
        )
        ours, theirs = box_terms(text, target, reward), plain_terms(text, target, reward)
        for name, value in theirs.items():
            assert math.isclose(ours[name], value, abs_tol=1e-9), (name, text, target, reward)
        seen["r_f"].add(ours["r_f"])
        seen["r_c"].add(ours["r_c"])
        seen["positive_k"] += ours["r_k"] > 0
        seen["empty"] += ours["empty"]
    assert seen["r_f"] == seen["r_c"] == {0.0, 1.0}
    assert seen["positive_k"] > 100 and seen["empty"] > 100


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 1.0, 1.3])
def test_slopes_are_one_minus_and_one_plus_lambda(weight):
    """Method 3.3: with the final boxes better, d/d(final) = 1 + lambda, d/d(draft) = 1 - lambda."""
    target = BoxTarget((0, 0), ((0.2, 0.2, 0.6, 0.6),), (1000, 1000))

    def at(draft, final):
        boxes = [{0: (200 + d, 200, 600 + d, 600)} for d in (final, draft)]
        text = format_boxes((0, 0), *boxes)
        return box_terms(text, target, BoxReward(weight))

    a, b = at(100, 10), at(120, 10)
    slope = (a["total"] - b["total"]) / (a["spa_draft"] - b["spa_draft"])
    assert slope == pytest.approx(1 - weight, abs=1e-9)
    a, b = at(100, 10), at(100, 20)
    slope = (a["total"] - b["total"]) / (a["spa_final"] - b["spa_final"])
    assert slope == pytest.approx(1 + weight, abs=1e-9)


def test_no_text_raises():
    target = BoxTarget((0, 1), ((0.1, 0.1, 0.2, 0.2),) * 2, (112, 168))
    dice = random.Random(0)
    pieces = [
        "<time>",
        "</time>",
        "<think_bbox>",
        "</pred_bbox>",
        "3",
        "-",
        " ",
        "1. [1, 2, 3, 4]",
        "]",
        "é",
    ]
    for _ in range(1000):
        text = "".join(dice.choice(pieces) for _ in range(dice.randint(0, 25)))
        terms = box_terms(text, target)
        assert all(math.isfinite(v) for v in terms.values())
