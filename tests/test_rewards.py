"""What the rewards chapter cannot hold: thousands of messy answers, a second reading of the specification, hostile texts."""

import itertools
import json
import math
import random
import re
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_nb.foundations.files import InputError
from stvg_nb.foundations.geometry import Interval, Tube
from stvg_nb.foundations.masks import MaskDatabase
from stvg_nb.foundations.settings import resolve
from stvg_nb.foundations.spans import parse_span
from stvg_nb.questions import (
    FLAGS,
    MARKS,
    TASKS,
    answer_blocks,
    build_prompt,
    format_answer,
    has_format,
    parse,
)
from stvg_nb.rewards import (
    VARIANTS,
    Target,
    Variant,
    as_target,
    completion_text,
    log_outcomes,
    make_target,
    outcome,
    reward_paths,
    score,
    target_json,
)

MODES = ("lenient", "strict", "release")
SETTINGS = list(itertools.product(TASKS, MODES, MARKS))

# a small scene whose rewards can be counted by hand ------------------------------------------------------------------------------
FPS, T = 8.0, 80  # ten seconds
BOXES = {  # ID -> frame -> box
    1: {f: (0, 0, 20, 20) for f in range(T)},
    2: {f: (10 + f // 4, 10, 30 + f // 4, 40) for f in range(16, 64) if f not in range(30, 34)},
    3: {f: (15 + f // 4, 10, 35 + f // 4, 40) for f in range(40, 70)},
}
TRUE = {f: (10 + f // 4, 12, 30 + f // 4, 42) for f in range(20, 52)}  # 2.5 to 6.5 s


@cache
def scene():
    db = MaskDatabase(64, 48, FPS, T, name="scene.mp4")
    for i, boxes in BOXES.items():
        db.add_object(i)
        for f, (x1, y1, x2, y2) in boxes.items():
            mask = np.zeros((48, 64), bool)
            mask[y1:y2, x1:x2] = True
            db.add(i, f, mask)
    return db


@cache
def truth(task="stvg", mark_type="number"):
    if task == "vtg":
        return Target(interval=Interval(2.5, 6.5), duration=10.0, task="vtg")
    if task == "rvos":
        return Target((1, 2), task="rvos", mark_type=mark_type)
    return make_target(
        scene(),
        Tube.from_dict(TRUE),
        2,
        drawn={f: {2} for f in range(16, 40)},
        sampled=range(0, T, 4),
        task=task,
        mark_type=mark_type,
    )


def reply(body, before="<think>because</think>"):
    return f"{before}<answer>{body}</answer>"


# messy answers --------------------------------------------------------------------------------------------------------------------
HAND_MADE = [
    "",
    " ",
    "<answer>",
    "</answer>",
    "<answer></answer>",
    "</answer><answer>",
    "<answer/>",
    "<answer>" * 50,
    "</think><think>",
    "\x00",
    "\ud800",
    "\u202e",
    "<answer>Target ID: 2, Time range: 5.00 to",
    "<answer>Target ID: 2, Time range: 5.00 to 11.00</answe",
    "<think>Target ID: 2, Time range: 5 to 11</think>",
    "<think><answer>Target ID: 2</answer></think>",
    "<answer><answer>Target ID: 2, Time range: 1 to 2</answer></answer>",
    "Target ID: 2, Time range: 5 to 11",
    *map(
        reply,
        (
            "None",
            "Target ID: None",
            "Target ID: none, Time range: none",
            "Target ID: , Time range: to",
            "Target ID:2,Time range:5to11",
            "2 5 11",
            "2, 5, 11",
            "Target ID: -2, Time range: -5 to -1",
            "Target ID: 2, Time range: 5 to -1",
            "Target ID: 2, Time range: −5 to 11",
            "Target ID: 0, Time range: 0 to 0",
            "Target ID: 2, Time range: 0.0.0 to 1.1.1",
            "Target ID: 2, Time range: 1e3 to 2e3",
            "Target ID: 2, Time range: 5,00 to 11,00",
            "Target ID: 2.5, Time range: 5 to 11",
            "Target ID: ２, Time range: ５ to １１",
            "Target ID: ٢, Time range: ٥ to ١١",
            "Target ID: 2²",
            "Target ID: ⅷ",
            "目标 ID：2，时间：5 到 11",
            "Target ID: two, Time range: five to eleven",
            "Target ID: NaN, Time range: NaN to inf",
            "Target ID: 2, Time range: Infinity to -Infinity",
            "Target ID: 2, Time range: 1e999 to 2",
            "Target ID: " + "9" * 5000,
            "Target ID: 2, Time range: " + "9" * 5000 + " to " + "9" * 5000,
            "Target ID: 2, Time range: 0." + "9" * 5000 + " to 5",
            "Target ID: 2, Time range: 99:99:99:99 to 1:2:3",
            "Target ID: 2, Time range: 1:99 to 2:00",
            "[[[[[2]]]]]",
            "{'Target ID': 2, 'Time range': [5.0, 11.0]}",
            '{"id": 2, "start": 5, "end": 11}',
            "**Target ID:** 2\n**Time range:** 5 to 11",
            "Target ID: 2\nTarget ID: 3\nTime range: 5 to 11",
            "Target ID: 1, 2, 3, 4, 5, 6, 7, 8",
            "Target ID: 1-8",
            "Target ID: 2, 2",
            "Target ID: B, B",
            "Time range: 5 to 11, 12 to 15; 18 to 20",
            "Time range: 5 to 11\nTime range: 6 to 12",
            "Target ID: 2 🙂 Time range: 5 🙂 to 11",
            "Target\tID:\n2,\r\nTime\u00a0range: 5\u2009to\u200911",
            "Target ID: 2, Time range: 5 to 11" * 40,
        ),
    ),
]
WORDS = [
    "Target ID: ",
    "target id",
    "IDs ",
    "Time range: ",
    "time range",
    " to ",
    " and ",
    ", ",
    "-",
    "–",
    "−",
    ":",
    ".",
    "2",
    "17",
    "5.00",
    "11.00",
    "00:05",
    "1234567",
    "1e9",
    "nan",
    "inf",
    "none",
    "A",
    "b",
    "AA",
    "[",
    "]",
    "(",
    ")",
    "s",
    " seconds",
    "\n",
    " ",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<ANSWER>",
    "é",
    "数",
    "🙂",
    "\x00",
    "９",
]


def mutate(text, rng):
    "One to six small accidents."
    for _ in range(rng.randint(1, 6)):
        i, j = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        j = min(j, i + 12)
        text = rng.choice(
            [
                lambda: text[:i] + text[j:],
                lambda: text[:i] + rng.choice(WORDS) + text[i:],
                lambda: text[:j] + text[i:],
                lambda: text[:i],
                lambda: text[:i] + text[i:j].swapcase() + text[j:],
                lambda: (
                    text[:i]
                    + chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x3000), 0x1F600]))
                    + text[i + 1 :]
                ),
                lambda: text + text[i:],
                lambda: text[i:] + text[:i],
            ]
        )()
    return text


def messy(n=2000, seed=0):
    "Hand-made answers, mutated canonical answers, and words in any order."
    rng = random.Random(seed)
    out = list(HAND_MADE)
    while len(out) < n:
        start, task = rng.uniform(0, 9), rng.choice(TASKS)
        ids = rng.sample(range(1, 40), 1 if task == "stvg" else rng.randint(1, 4))
        text = format_answer(
            task,
            ids,
            start,
            start + rng.uniform(-1, 9),
            rng.choice(list(MARKS)),
            think=rng.choice([None, "", "2 moves at 5.00"]),
        )
        out.append(
            mutate(text, rng)
            if rng.random() < 0.8
            else "".join(rng.choices(WORDS, k=rng.randint(1, 30)))
        )
    return out


def check(text, task, mode, mark_type):
    "What holds for any text; the result."
    p = parse(text, task, mode, 10.0, mark_type)
    assert (
        isinstance(p.ids, tuple)
        and all(type(i) is int and i >= 0 for i in p.ids)
        and len(set(p.ids)) == len(p.ids)
    )
    assert (
        (p.start is None) == (p.end is None)
        and p.flags == tuple(sorted(set(p.flags)))
        and set(p.flags) <= set(FLAGS)
    )
    if p.start is not None:
        assert math.isfinite(p.start) and math.isfinite(p.end) and p.start >= 0
        assert (p.end < p.start) == ("reversed" in p.flags) and (p.end > 10.005) == (
            "overrun" in p.flags
        )
        if mode != "release":
            assert max(p.start, p.end) <= 1e6
    if mode != "release":
        assert all(i < 10**6 for i in p.ids)
    if task == "vtg":
        assert not p.ids
    if task in ("svg", "rvos"):
        assert p.start is None
    if p.complete:
        assert p.ids or task == "vtg" or "none" in p.flags
    if p.complete and task in ("stvg", "vtg"):
        assert p.start is not None
    if mode != "lenient":
        assert p.complete or p.failed  # all or nothing
    assert p.ok_format == has_format(text, mode == "release")
    if has_format(text):
        assert has_format(text, release=True)
    return p


def check_all(text, tasks=TASKS, kinds=tuple(MARKS)):
    for task, kind in itertools.product(tasks, kinds):
        strict, lenient = check(text, task, "strict", kind), check(text, task, "lenient", kind)
        check(text, task, "release", kind)
        if strict.complete:
            assert (strict.ids, strict.start, strict.end, strict.ok_format, strict.flags) == (
                lenient.ids,
                lenient.start,
                lenient.end,
                lenient.ok_format,
                lenient.flags,
            )


def test_2000_messy_answers_in_each_mode():
    texts = messy()
    assert len(texts) == 2000
    for text in texts:
        check_all(text)
    read = [parse(t) for t in texts]
    assert (
        200 < sum(p.failed for p in read) < 1900 and sum(p.complete for p in read) > 50
    )  # the set has both kinds
    assert set(FLAGS) <= {
        f for t in texts for m in MODES for k in TASKS for f in parse(t, k, m, 10.0).flags
    }


@settings(max_examples=400)
@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(st.sampled_from(WORDS), max_size=25).map("".join),
        st.lists(st.sampled_from(WORDS), max_size=15).map(lambda w: reply("".join(w))),
    )
)
def test_any_text(text):
    check_all(text, kinds=("number", "mix"))


@settings(max_examples=300)
@given(
    st.lists(st.integers(1, 999_999), min_size=1, max_size=4, unique=True),
    st.floats(0, 9e5),
    st.floats(0, 9e5),
    st.sampled_from(TASKS),
    st.sampled_from(list(MARKS)),
)
def test_canonical_answers_are_read_back(ids, a, b, task, kind):
    if kind != "number":
        ids = [i % 18_000 + 1 for i in ids]  # up to three letters
    ids = list(dict.fromkeys(ids))[: 1 if task == "stvg" else 4]
    text = format_answer(task, ids, a, b, kind, think="x")
    for mode in ("strict", "lenient"):
        p = parse(text, task, mode, mark_type=kind)
        assert p.complete and p.ok_format and p.ids == (() if task == "vtg" else tuple(ids)), (
            text,
            p,
        )
        if task in ("stvg", "vtg"):
            assert (p.start, p.end) == (float(f"{a:.2f}"), float(f"{b:.2f}"))
    if task == "vtg":
        assert parse_span(text) == (p.start, p.end)  # the reader of the temporal benchmarks agrees


@pytest.mark.parametrize(
    "value", [None, 3, b"x", ["<answer>Target ID: 2</answer>"], float("nan"), {}]
)
def test_what_is_no_text_is_no_answer(value):
    for task, mode, kind in SETTINGS:
        assert parse(value, task, mode, mark_type=kind).flags == ("no_answer",)
    assert score(value, truth())["total"] == 0.0


def test_wrong_switches_are_refused():
    for kw in (dict(task="ocr"), dict(mode="free"), dict(mark_type="roman")):
        with pytest.raises(InputError, match="is not one of"):
            parse("", **kw)
    for bad in ("r2", None):
        with pytest.raises(InputError, match="variant"):
            score("", truth(), bad)
    with pytest.raises(InputError, match="empty"):
        build_prompt("stvg", "  ")


# the table of answers --------------------------------------------------------------------------------------------------------------
TABLE = [  # body, (ID, start, end) as the release reads it, as ours does: IDs, start, end, flag
    ("Target ID: 2, Time range: 5.00 to 11.00", (2, 5, 11), ((2,), 5, 11), None),
    ("target id: 2 time range: 5 and 11", (2, 5, 11), ((2,), 5, 11), None),
    ("Target ID: [2], Time range: [5.00 to 11.00]", None, ((2,), 5, 11), None),
    ("Target ID: [2], Time range: [5.00, 11.00]", None, ((2,), 5, 11), None),
    ("Target ID: 2, Time range: 5.00s to 11.00s", None, ((2,), 5, 11), None),
    ("Target ID: 2, Time range: 5-11", None, ((2,), 5, 11), None),
    ("Target ID: 2, Time range: 5.00–11.00", None, ((2,), 5, 11), None),
    ("Target ID: 2, Time range: 5.00 – 11.00", None, ((2,), 5, 11), None),
    ("Target ID: 2, 3, Time range: 5.00 to 11.00", (2, 5, 11), ((2, 3), 5, 11), "several_ids"),
    ("Target ID: 2 and 3, Time range: 5.00 to 11.00", (2, 5, 11), ((2, 3), 5, 11), "several_ids"),
    ("Target ID: 2", None, ((2,), None, None), "no_time"),
    ("Time range: 5.00 to 11.00", None, ((), 5, 11), "no_id"),
    ("Target ID: 2, Time range: 11 to 5", (2, 11, 5), ((2,), 11, 5), "reversed"),
    ("Target ID: 2, Time range: 5.00 to 11.00 seconds", (2, 5, 11), ((2,), 5, 11), None),
    ("Target ID: 2, Time range: 5.00 to 31.00", (2, 5, 31), ((2,), 5, 31), "overrun"),
    ("Target ID: 2, Time range: -5.00 to 11.00", None, ((2,), 0, 11), "negative"),
    ("Target ID: 2, Time range: 00:05 to 00:11", None, ((2,), 5, 11), "clock"),
    ("Target ID: 2, Time range: 1:00:05 to 1:00:11.5", None, ((2,), 3605, 3611.5), "clock"),
    ("Target ID: 2, Time range: nan to 11.00", None, None, "out_of_range"),
    ("Target ID: 2, Time range: 5.00 to inf", None, None, "out_of_range"),
    ("Target ID: 2, Time range: 5.00 to 1000000.01", (2, 5, 1000000.01), None, "out_of_range"),
    ("Target ID: 2, Time range: 5.00 to 1000000", (2, 5, 1000000), ((2,), 5, 1e6), None),
    ("Target ID: 1234567, Time range: 5.00 to 11.00", (1234567, 5, 11), None, "out_of_range"),
    ("Target ID: 123456, Time range: 5.00 to 11.00", (123456, 5, 11), ((123456,), 5, 11), None),
]


@pytest.mark.parametrize("body, release, ours, flag", TABLE)
def test_table_of_answers(body, release, ours, flag):
    p = parse(reply(body), mode="release")
    assert (p.failed, p.ids, p.start, p.end) == (
        (True, (), None, None) if release is None else (False, release[:1], *release[1:])
    )
    p = parse(reply(body), duration=1e7 if "31" not in body else 30)
    assert (
        (p.ids, p.start, p.end) == (ours or ((), None, None))
        and p.failed == (ours is None)
        and p.ok_format
    )
    assert flag in p.flags if flag else p.flags == ()


def test_blocks_and_the_cut_off_answer():
    first, last = format_answer("stvg", [7], 1, 3, think="t"), format_answer("stvg", [2], 5, 11)
    for mode in ("lenient", "release"):
        assert (parse(first + last, mode=mode).ids, parse(first + last, mode=mode).start) == (
            (2,),
            5,
        )
    assert (
        not parse(first + last).ok_format
        and parse(first + last, mode="release").ok_format
        and parse(first + last, mode="strict").failed
    )
    cut = first.replace("</answer>", "")
    for mode in MODES:
        assert parse(cut, mode=mode).failed and parse(cut, mode=mode).flags == ("no_answer",)


SPOKEN = [
    ("The target ID is 4 and the time range is 3.2 to 7.9 s.", ((4,), 3.2, 7.9)),
    ("ID: 4; from 3.2 to 7.9", ((4,), 3.2, 7.9)),
    ("Target ID: #4 (3.2 - 7.9 sec)", ((4,), 3.2, 7.9)),
    ("**Target ID:** 4\n**Time range:** 3.2s – 7.9s", ((4,), 3.2, 7.9)),
    ("Target ID: 4, 3.2 to 7.9", ((4,), 3.2, 7.9)),
    ("Time range: 3.2 until 7.9, Target ID: 4", ((4,), 3.2, 7.9)),
    ("Target ID: 4, Time range: [3.2s, 7.9s]", ((4,), 3.2, 7.9)),
    ("Target ID: 4. Time range: between 3.2 and 7.9 seconds.", ((4,), 3.2, 7.9)),
    ("Target ID: 4, Time range: 3.2 to 7.9 (he walks from 4 to 5)", ((4,), 3.2, 7.9)),
    ("Target ID: 3.5, Time range: 1 to 2", ((), 1, 2)),
    ("Target ID: -4, Time range: 1 to 2", ((), 1, 2)),
    ("Target ID: 4, Time range: 5,00 to 11,00", ((4,), 5, 11)),  # as evaluation reads it
    ("Target ID: 4, Time range: 5,000 to 11,000", ((4,), None, None)),
    ("Target ID: 4, Time range: 1e3 to 2e3", ((4,), None, None)),
    ("Target ID: 4, Time range: 5m to 6m", ((4,), None, None)),
]


@pytest.mark.parametrize("body, want", SPOKEN)
def test_spoken_answers(body, want):
    p = parse(reply(body))
    assert (p.ids, p.start, p.end) == want


def test_letters():
    for kind in ("upper", "lower", "mix"):
        for body, ids in (
            ("Target ID: k, L and M", "KLM"),
            ("Target ID: [K]", "K"),
            ("Target ID: K / L", "KL"),
            ("Target ID: kl", ["KL"]),
            ("Target ID: a man in red", ""),
            ("Target ID: KLMNO", ""),
        ):
            want = (
                tuple(
                    np.add(
                        [
                            sum((ord(c) - 64) * 26**k for k, c in enumerate(reversed(w)))
                            for w in ids
                        ],
                        9 if kind == "mix" else 0,
                    )
                    .astype(int)
                    .tolist()
                )
                if ids
                else ()
            )
            assert parse(reply(body), "rvos", mark_type=kind).ids == want, (kind, body)
    assert parse(reply("Target ID: 10"), "svg", mark_type="mix").failed and parse(
        reply("Target ID: 9"), "svg", mark_type="mix"
    ).ids == (9,)
    assert (
        parse(reply("Target ID: B"), "svg").failed
        and parse(reply("Target ID: 2"), "svg", mark_type="lower").failed
    )


# a second implementation of the release's reading and of the rewards -----------------------------------------------------------------
def released_reading(text):
    "Last answer block; label, colon, spaces, digits; label, colon, spaces, number, to|and, number; else nothing. By hand, no patterns."
    if not isinstance(text, str):
        return None
    blocks, at = [], 0
    while (a := text.find("<answer>", at)) >= 0 and (b := text.find("</answer>", a + 8)) >= 0:
        blocks.append(text[a + 8 : b])
        at = b + 9
    if not blocks:
        return None
    body = blocks[-1]
    low = "".join(c.lower() if len(c.lower()) == 1 else c for c in body)

    def digits(i):
        j = i
        while j < len(body) and body[j].isdecimal():
            j += 1
        return j

    def skip(i):
        while i < len(body) and body[i].isspace():
            i += 1
        return i

    def number(i):  # -> end, or None
        j = digits(i)
        if j == i:
            return None
        return digits(j + 1) if body[j : j + 1] == "." else j

    def target(i):
        i = skip(i)
        j = digits(i)
        return int(body[i:j]) if j > i else None

    def times(i):
        a = skip(i)
        b = number(a)
        if b is None:
            return None
        c = skip(b)
        word = next((w for w in ("to", "and") if low.startswith(w, c)), None)
        if word is None:
            return None
        d = skip(c + len(word))
        e = number(d)
        return None if e is None else (float(body[a:b]), float(body[d:e]))

    def first(label, read):
        at = low.find(label)
        while at >= 0:
            value = read(at + len(label))
            if value is not None:
                return value
            at = low.find(label, at + 1)

    i, t = first("target id:", target), first("time range:", times)
    return None if i is None or t is None else (i, *t)


def test_release_mode_against_a_reading_by_hand():
    rng, read = random.Random(1), 0
    texts = [t for t in messy(2000, seed=2) if not re.search(r"\d{300}", t)]
    for _ in range(4000):
        body = "".join(
            rng.choice(
                [
                    "Target ID:",
                    "target id: ",
                    "Time range:",
                    "TIME RANGE: ",
                    "2",
                    "11",
                    "5.",
                    "7.25",
                    " to ",
                    "to",
                    " and ",
                    " ",
                    "\n",
                    ", ",
                    "x",
                    ".",
                    ":",
                ]
            )
            for _ in range(rng.randint(1, 14))
        )
        texts += [
            reply(body),
            reply(
                f"Target ID: {rng.randint(1, 9)}{body}Time range: {rng.randint(0, 9)} {rng.choice(['to', 'and'])} 8{rng.choice(['', '.', '.5', 's'])}"
            ),
        ]
    for text in texts:
        p, want = parse(text, mode="release"), released_reading(text)
        assert ((p.id, p.start, p.end) if not p.failed else None) == want, text
        read += want is not None
    assert read > 2000


def by_hand(i, a, b, formatted, variant):
    "Rewards of one answer (ID, start, end; None where missing), frame by frame from the boxes of the scene."
    t0, t1, D = 2.5, 6.5, 10.0
    timed = a is not None and b is not None and b >= a  # start = end: one frame
    overlap = max(0.0, min(b, t1) - max(a, t0)) if timed else 0.0
    rt = overlap / (max(b, t1) - min(a, t0)) if overlap > 0 else 0.0

    def seen(frames):
        return a is not None and any(a - 1e-9 <= f / FPS <= b + 1e-9 for f in frames)

    drawn = [f for f in range(0, T, 4) if 16 <= f < 40]
    looks = {"release": True, "drawn": seen(drawn)}.get(variant, seen(BOXES[2]))
    rs = float(i == 2 and looks)

    def iou(p, q):
        w, h = min(p[2], q[2]) - max(p[0], q[0]), min(p[3], q[3]) - max(p[1], q[1])
        inter = max(w, 0) * max(h, 0)
        return inter / ((p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - inter)

    answered = set()
    if timed:
        first, last = math.floor(a * FPS + 0.5), math.floor(b * FPS + 0.5)
        answered = set(range(first, max(last, first + 1)))
    shared, union = answered & set(TRUE), len(answered | set(TRUE))
    total = sum(iou(BOXES[i][f], TRUE[f]) for f in shared if f in BOXES.get(i, {}))
    if shared:
        union = max(*answered, *TRUE) - min(*answered, *TRUE) + 1
    near = (1 - abs(a - t0) / D) * (1 - abs(b - t1) / D) if timed else 0.0
    rf = float(formatted)
    return {
        "r1": rt + rs + rf,
        "release": rt + rs + rf,
        "drawn": rt + rs + rf,
        "coupled": rt + rs * rt + rf,
        "continuous": rt + (total / len(shared) if shared else 0) + rf,
        "no_format": rt + rs,
        "temporal": rt,
        "timer1": rt * near + rs + rf,
        "no_temporal": rs + rf,
        "no_spatial": rt + rf,
        "viou": (total / union if shared else 0) + rf,
    }[variant]


def test_every_variant_against_a_count_by_hand():
    rng = random.Random(3)
    for k in range(1500):
        i = rng.choice([1, 2, 2, 2, 3, 9])
        a, b = (
            (round(rng.uniform(0, 10), 2), round(rng.uniform(0, 12), 2))
            if k % 5
            else (round(a := rng.randrange(0, 60) / 8, 2), round(a + rng.randrange(0, 20) / 8, 2))
        )
        formatted = rng.random() < 0.7
        text = format_answer("stvg", [i], a, b, think="t" if formatted else None)
        for variant in VARIANTS:
            assert score(text, truth(), variant)["total"] == pytest.approx(
                by_hand(i, a, b, formatted, variant), abs=1e-9
            ), (text, variant)
    for variant in set(VARIANTS) - {"release"}:
        assert score(reply("Target ID: 2"), truth(), variant)["total"] == by_hand(
            2, None, None, True, variant
        )
    assert score(reply("Target ID: 2"), truth(), "release")["total"] == 1.0  # void but for its tags


def test_an_answer_without_length_is_the_frame_that_evaluation_gives_it():
    "The paper's interval is closed: rewards and evaluation agree, at every frame of the scene."
    for f in range(T):
        second = f / FPS
        text = format_answer("stvg", [2], second, second, think="t")
        p = parse(text)
        span = p.interval.to_frames(FPS)
        track = scene().tube(2).at([span.start])
        boxes = {span.start: track[0][0]} if track[1][0] else {}
        guess = Tube(
            span.start,
            span.end,
            np.array(list(boxes), int),
            np.array([*boxes.values()]).reshape(-1, 4),
        )
        worth = score(text, truth(), "viou")["viou"]
        assert worth == pytest.approx(guess.iou(Tube.from_dict(TRUE))[1], abs=1e-12)
        assert (worth > 0) == (f in TRUE and f in BOXES[2])


def test_worked_examples():
    example = Target((2,), Interval(5, 11), 20.0, 10.0, visible={2: ((0, 200),), 3: ((0, 200),)})
    good = reply("Target ID: 2, Time range: 6.00 to 12.00")
    for text, total in (
        (good, 5 / 7 + 2),
        (good.replace(": 2", ": 3"), 5 / 7 + 1),
        (good.replace("<think>because</think>", ""), 5 / 7 + 1),
        (good.replace(" 2,", " 2, 3,"), 5 / 7 + 1),
    ):
        assert score(text, example)["total"] == pytest.approx(total, abs=1e-9)
    assert score(good, example) == {
        "r_t": 5 / 7,
        "r_s": 1.0,
        "r_f": 1.0,
        "total": math.fsum((5 / 7, 1, 1)),
    }
    assert list(score(good, example, "no_format")) == ["r_t", "r_s", "total"]
    shifted = example.interval.iou(Interval(6, 12))
    assert score(good, example, "timer1")["timer1"] == pytest.approx(
        shifted * (1 - 1 / 20) ** 2, abs=1e-12
    )


def test_hedging_never_pays():
    for ids, times in itertools.product(
        ("2", "2, 3", "2 and 1", "1, 2, 3", "2; 2; 3"),
        ("2.50 to 6.50", "2.50 to 6.50, 1 to 2", "2.5 to 6.5 or 7 to 8"),
    ):
        terms = score(reply(f"Target ID: {ids}, Time range: {times}"), truth())
        assert (terms["r_s"], terms["r_t"]) == (float(ids == "2"), float(times == "2.50 to 6.50"))
        for variant in ("continuous", "viou"):
            if ids != "2":
                assert (
                    score(reply(f"Target ID: {ids}, Time range: {times}"), truth(), variant)[
                        variant
                    ]
                    == 0
                )


def test_messy_answers_have_bounded_rewards():
    for text in messy(600, seed=5):
        for variant, v in VARIANTS.items():
            terms = score(text, truth(), variant)
            assert (
                math.isfinite(terms["total"])
                and all(-9e6 <= t <= 1 for t in terms.values() if t is not terms["total"])
                and terms["total"] <= len(v.terms)
            )
            if variant != "timer1":
                assert min(terms.values()) >= 0
        for task in ("svg", "rvos", "vtg"):
            assert 0 <= score(text, truth(task))["total"] <= 3
        assert set(outcome(text, truth())) == {"failed", "complete", "id_correct", "tiou"}
    mixed = Variant(
        ("continuous", "viou", "coupled", "timer1"),
        "release's reader under dense terms",
        mode="release",
    )
    for number in ("9" * 13, "9" * 300, "9" * 400):
        score(reply(f"Target ID: 2, Time range: 1 to {number}"), truth(), mixed)


# hostile texts ------------------------------------------------------------------------------------------------------------------------
HOSTILE = [
    *WORDS,
    "9",
    "9.",
    "1:",
    "1:11 ",
    "5 to ",
    "5 to 6, ",
    "2, ",
    "2 and ",
    "ids ",
    "Target ID: 2, ",
    "Time range: 5 to 6, ",
    "time  range  ",
    "[5, ",
    "((",
    "a, ",
    "s ",
    "to",
    "-5-",
]


def test_100_000_characters_are_read():
    """A pattern that goes back would need hours for some of these: what is tested is that the
    reader returns at all, and that what it returns holds for any text."""
    rng = random.Random(4)
    cases = [(h,) for h in HOSTILE]
    cases += [tuple(rng.sample(HOSTILE, rng.randint(2, 3))) for _ in range(60)]
    for parts in cases:
        unit = "".join(parts)
        text = (unit * (100_000 // len(unit) + 1))[:100_000]
        forms = [text, reply(text), reply("Target ID: " + text)]
        forms += [reply("Target ID: 2, Time range: " + text)]
        text = rng.choice(forms + [reply("Time range: " + text, text[:3000])])
        for task, mode, kind in (
            ("stvg", "lenient", "number"),
            ("stvg", "release", "number"),
            ("rvos", "lenient", "mix"),
            ("stvg", "strict", "upper"),
        ):
            check(text, task, mode, kind)


def test_a_million_characters_are_read():
    "Ten times the length: time that grows with the square would be a hundred times as long."
    for unit in ("9", "2, ", "5 to 6, ", "Time range: ", "target id ", "[(", "1:11 "):
        text = reply("Target ID: 2, Time range: " + unit * (1_000_000 // len(unit)))
        for mode in MODES:
            check(text, "stvg", mode, "number")


# columns and targets -------------------------------------------------------------------------------------------------------------------
def test_trl_functions_add_up_and_refuse_missing_columns():
    texts = messy(150, seed=6)
    line = target_json(truth())
    for variant in VARIANTS:
        functions = [resolve(p) for p in reward_paths(variant)]
        assert (
            len({f.__name__ for f in functions}) == len(functions) == len(VARIANTS[variant].terms)
        )
        columns = [
            f(
                prompts=[""] * 150,
                completions=[[{"role": "assistant", "content": t}] for t in texts],
                completion_ids=[[0]] * 150,
                target=[line] * 150,
                trainer_state=None,
            )
            for f in functions
        ]
        assert np.allclose(
            np.sum(columns, 0), [score(t, truth(), variant)["total"] for t in texts], atol=1e-12
        )
        for f in functions:
            with pytest.raises(InputError, match="column 'target'"):
                f(prompts=[""], completions=["x"], key=["a"])
    with pytest.raises(InputError, match="duration"):
        score(
            reply("Target ID: 2, Time range: 3 to 6"),
            Target((2,), Interval(2, 6), fps=8.0, visible={2: ((0, 80),)}),
            "timer1",
        )
    with pytest.raises(InputError, match="overlap"):
        score(reply("x"), Target((2,), Interval(2, 6), 10.0, 8.0, visible={}), "viou")
    with pytest.raises(InputError, match="drawn"):
        score(
            reply("Target ID: 2, Time range: 3 to 6"),
            Target((2,), Interval(2, 6), 10.0, 8.0, visible={}),
            "drawn",
        )


def test_trl_calls_them(monkeypatch):
    "TRL's own method, on a stand-in for its trainer: columns, names, rewards and logged metrics arrive."
    trl = pytest.importorskip("trl")
    from types import SimpleNamespace

    functions = [resolve(p) for p in reward_paths("r1")] + [log_outcomes]
    texts = [
        format_answer("stvg", [2], 2.5, 6.5, think="t"),
        "nothing",
        format_answer("stvg", [3], 2.5, 6.5),
    ]
    logged = {}
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", is_main_process=True),
        state=SimpleNamespace(global_step=0),
        environments=None,
        reward_funcs=functions,
        reward_processing_classes=[None] * 4,
        reward_func_names=[f.__name__ for f in functions],
        _log_completion_extra=None,
        _log_metric=logged.__setitem__,
        args=SimpleNamespace(report_to=[]),
        _current_train_step_time=0.0,
    )
    monkeypatch.setattr("trl.trainer.grpo_trainer.gather", lambda x: x)
    inputs = [dict(prompt="q", target=target_json(truth()), key=str(i)) for i in range(3)]
    method = trl.GRPOTrainer._calculate_rewards
    out = getattr(method, "__wrapped__", method)(trainer, inputs, ["q"] * 3, texts, [[1]] * 3)
    assert out.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert logged == {
        "outcome/failed": 1 / 3,
        "outcome/complete": 2 / 3,
        "outcome/id_correct": 1 / 3,
        "outcome/tiou": 2 / 3,
    }


def test_targets_travel_as_json_and_as_columns():
    for task in TASKS:
        line = target_json(truth(task))
        back = as_target(line)
        assert back == truth(task) or target_json(back) == line
        assert as_target(json.loads(line)) == back and as_target(truth(task)) is truth(task)
    for bad in (
        '{"ids": [2]}',
        '{"ids": [2], "interval": [1, 2], "task": "x"}',
        '{"ids": [2], "interval": [1]}',
        '{"ids": [2], "interval": [1, null]}',
        "[]",
        "",
        "nope",
        '{"ids": [2], "interval": [1, 2], "fps": -1}',
        '{"ids": [2], "interval": [1, 2], "fps": "ten"}',
        '{"ids": [2], "interval": [1, 2], "overlap": {"x": [1]}}',
        '{"ids": [2], "interval": [NaN, 2]}',
        '{"ids": [2], "interval": [1, 2], "frames": [1]}',
        '{"ids": [[2]], "interval": [1, 2]}',
        '{"ids": [2], "interval": [1, 2], "visible": {"2": [5]}}',
        '{"ids": [2], "interval": [1, 2], "frames": [0, 2], "overlap": {"2": [1]}}',
    ):
        with pytest.raises(InputError):
            as_target(bad)
    assert (
        completion_text([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        == "b"
        and completion_text({"content": "c"}) == "c"
    )


def test_prompts_say_what_the_parser_reads():
    for task, kind, think in itertools.product(TASKS, MARKS, (True, False)):
        text = build_prompt(task, 'A {man} says "go".', kind, think)
        example = answer_blocks(text)[-1]
        assert (
            'a {man} says "go"' in text
            and parse(
                f"<think></think><answer>{example}</answer>", task, "strict", mark_type=kind
            ).complete
        )
        assert ("<think>" in text) == think and (MARKS[kind] in text) == (task != "vtg")
    assert (
        len({build_prompt(t, "x") for t in TASKS}) == 3
        and parse(format_answer("stvg", [2], 1, 2), think=False).ok_format
    )
