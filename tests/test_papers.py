"""papers/: the reported numbers and the pages that explain them."""

import configparser
import csv
import hashlib
import math
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ROOT / "papers"
COLUMNS = "paper table row dataset split metric value source confidence note".split()
PAGES = {"STVG-R1": "stvg-r1.md", "STVG-o1": "stvg-o1.md"}
SCORES = "m_tIoU m_vIoU vIoU@0.3 vIoU@0.5".split()
V1, V2 = ("HCSTVG-v1", "test"), ("HCSTVG-v2", "val")
README = "1 (README excerpt)"


def read():
    with open(PAPERS / "reported.csv", encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f, strict=True))


ROWS = read()
TABLE = {tuple(r[c] for c in COLUMNS[:6]): r for r in ROWS}


def value(paper, table, row, data, metric):
    return float(TABLE[(paper, table, row, *data, metric)]["value"])


def page(name):
    return (PAPERS / name).read_text(encoding="utf-8")


def flat(name):
    return " ".join(page(name).split())


def entries(name):
    "The numbered contradictions of a page: {'R1': text}."
    body = page(name).split("## What contradicts what")[1].split("\n## ")[0]
    parts = re.split(r"^\*\*([RO]\d+)\. ", body, flags=re.M)
    return {k: " ".join(v.split()) for k, v in zip(parts[1::2], parts[2::2])}


# the file ---------------------------------------------------------------------------------------------


def test_shape_of_the_file():
    raw = (PAPERS / "reported.csv").read_bytes()
    assert raw.endswith(b"\n") and b"\r" not in raw and not raw.startswith(b"\xef\xbb\xbf")
    assert raw.decode("utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert len(ROWS) == 728
    assert all(list(r) == COLUMNS and None not in r.values() for r in ROWS)


def test_no_number_is_given_twice():
    assert len(TABLE) == len(ROWS)


def test_cells_are_filled():
    for r in ROWS:
        assert all(r[c].strip() == r[c] for c in COLUMNS), r
        assert all(r[c] for c in COLUMNS[:-1]), r


def test_values_are_numbers_in_range():
    for r in ROWS:
        v = float(r["value"])
        assert math.isfinite(v) and v >= 0, r
        if not re.search(r"params|time|memory|FPS", r["metric"]):
            assert v <= 100, r


def test_confidence_levels():
    assert Counter(r["confidence"] for r in ROWS) == {"primary": 605, "secondary": 123}
    third_party = re.compile(r"papernotes|third-party note|digest|review")
    assert {r["confidence"] for r in ROWS if third_party.search(r["source"])} == {"secondary"}
    assert {r["confidence"] for r in ROWS if not third_party.search(r["source"])} == {"primary"}


LOCAL = re.compile(
    r"""(?:^|[\s("'`=])(?:~/|/[a-zA-Z_][\w.-]*/|[A-Za-z]:\\)|file://|\.txt\b|\bseed \d{3}\b|\b[0-9a-f]{16}\b|localhost"""
)


@pytest.mark.parametrize(
    "text",
    [
        "/home/me/x.json",
        "read at /mnt/data/a",
        "~/notes",
        "C:\\data",
        "file:///a",
        "a.txt",
        "seed 001",
    ],
)
def test_the_pattern_for_local_paths_finds_one(text):
    assert LOCAL.search(text)


def test_no_local_places():
    for r in ROWS:
        assert not any(LOCAL.search(r[c]) for c in COLUMNS), r
    for name in [*PAGES.values(), "index.md"]:
        text = re.sub(r"https?://\S+|</?\w+>", "", page(name))
        assert not LOCAL.search(text), (name, LOCAL.search(text))


# spot checks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "paper, table, row, data, want",
    [
        ("STVG-R1", README, "STVG-R1", V1, (56.9, 39.1, 66.7, 38.6)),
        ("STVG-R1", README, "STVG-R1", V2, (62.0, 40.2, 67.8, 38.8)),
        ("STVG-R1", "1", "STVG-R1 (alternative Table-1 values)", V2, (61.3, 40.8, 67.9, 38.8)),
        ("STVG-R1", README, "SpaceVLLM-7B", V1, (56.9, 39.3, 66.6, 36.9)),
        ("STVG-R1", README, "SpaceVLLM-7B", V2, (58.0, 34.0, 56.9, 24.7)),
        ("STVG-o1", "1", "STVG-o1", V1, (60.3, 44.1, 73.3, 43.5)),
        ("STVG-o1", "2", "STVG-o1", V2, (63.8, 41.2, 68.5, 39.6)),
        ("STVG-o1", "1", "Qwen2.5-VL", V1, (25.6, 19.1, 20.2, 12.6)),
        ("STVG-o1", "3", "STVG-o1", ("VidSTG", "test declarative"), (52.1, 33.5, 48.4, 32.0)),
        ("STVG-o1", "3", "STVG-o1", ("VidSTG", "test interrogative"), (50.5, 27.9, 39.8, 26.0)),
        (
            "STVG-o1",
            "4",
            "STVG-o1",
            ("HCSTVG-v1", "test (trained on VidSTG, open-vocabulary)"),
            (45.9, 32.2, 50.8, 25.5),
        ),
        ("STVG-o1", "5", "RFT", V1, (58.5, 41.8, 68.7, 38.9)),
        ("STVG-o1", "7", "L1 only", V1, (58.5, 39.9, 67.0, 34.6)),
        ("STVG-o1", "8", "lambda_k=1.0", V1, (60.5, 43.8, 72.4, 42.9)),
    ],
)
def test_rows_of_four(paper, table, row, data, want):
    assert tuple(value(paper, table, row, data, m) for m in SCORES) == want


@pytest.mark.parametrize(
    "paper, table, row, data, metric, want",
    [
        ("STVG-R1", "7", "Qwen2.5-VL-7B", V1, "m_tIoU", 40.3),
        ("STVG-R1", "7", "Qwen2.5-VL-7B", V2, "m_vIoU", 19.3),
        ("STVG-R1", "7", "+GRPO", V1, "m_tIoU", 57.5),
        ("STVG-R1", "7", "+VisualPrompt-SFT", V2, "m_vIoU", 36.5),
        ("STVG-R1", "5", "Mix", V1, "m_vIoU", 15.7),
        ("STVG-R1", "5", "red number, font 20", V1, "m_vIoU", 24.9),
        ("STVG-R1", "6 (text)", "theta=1/2 upper bound", V1, "m_vIoU", 65.1),
        ("STVG-R1", "11", "w/o backward tracking", V1, "m_vIoU", 28.4),
        ("STVG-R1", "3 (text)", "STVG-R1", ("MeViS", "not stated"), "J&F", 47.3),
        (
            "STVG-R1",
            "10",
            "STVG-R1 with visual prompts",
            ("Charades-STA", "test"),
            "tIoU@0.3",
            72.2,
        ),
        ("STVG-R1", "9", "Qwen2.5-VL-7B with prompts", ("MME-VideoOCR", "-"), "total", 58.9),
        ("STVG-o1", "9", "STVG-o1", ("inference complexity (single GPU)", "-"), "time (s)", 15.49),
        ("Time-R1", "README", "Time-R1", ("Charades-STA", "zero-shot"), "R1@0.5", 60.8),
        ("VIRST", "main", "VRS-HQ-13B", ("MeViS", "not stated in note"), "J&F", 50.9),
    ],
)
def test_single_numbers(paper, table, row, data, metric, want):
    assert value(paper, table, row, data, metric) == want


# what the pages say follows from the file ---------------------------------------------------------------


def near(x, want):
    return x == pytest.approx(want, abs=0.05 - 1e-9)


def test_main_v2_row_agrees_with_the_differences_in_the_text():
    for m in SCORES:
        gain = value("STVG-R1", "1 (text)", "STVG-R1 minus SpaceVLLM", V2, f"delta {m}")
        rival = value("STVG-R1", README, "SpaceVLLM-7B", V2, m)
        assert near(value("STVG-R1", README, "STVG-R1", V2, m) - rival, gain), m
        other = value("STVG-R1", "1", "STVG-R1 (alternative Table-1 values)", V2, m)
        if m != "vIoU@0.5":
            assert not near(other - rival, gain), m
    points = value(
        "STVG-R1", "1 (text)", "STVG-R1 minus Qwen2.5-VL-7B", V2, "delta m_IoU (abstract)"
    )
    assert near(
        value("STVG-R1", README, "STVG-R1", V2, "m_vIoU")
        - value("STVG-R1", "7", "Qwen2.5-VL-7B", V2, "m_vIoU"),
        points,
    )


def test_the_gain_on_spatial_grounding_is_in_another_metric():
    at = lambda row, m: value("STVG-R1", "2", row, ("ST-Align", "SVG"), m)
    gain = lambda m: at("STVG-R1", m) - at("LLaVA-ST-7B", m)
    said = value(
        "STVG-R1",
        "2 (text)",
        "STVG-R1 minus LLaVA-ST",
        ("ST-Align", "SVG"),
        "delta m_vIoU (as worded)",
    )
    assert (
        near(gain("vIoU@0.3"), said)
        and near(gain("m_vIoU"), 16.1)
        and not near(gain("m_vIoU"), said)
    )


def test_second_best_on_charades():
    at = lambda row: value("STVG-R1", "4 (README)", row, ("Charades-STA", "test"), "tIoU@0.5")
    ours = at("STVG-R1 (zero-shot)")
    assert near(ours - at("LLaVA-ST"), 7.7) and near(ours - at("TimeSuite"), 3.8)
    assert ours == value(
        "STVG-R1", "10", "STVG-R1 without visual prompts", ("Charades-STA", "test"), "tIoU@0.5"
    )


def test_stvg_o1_is_higher_in_eight_cells():
    for data, table in ((V1, "1"), (V2, "2")):
        for m in SCORES:
            assert value("STVG-o1", table, "STVG-o1", data, m) > value(
                "STVG-R1", README, "STVG-R1", data, m
            )


def test_cells_in_which_stvg_r1_is_not_ahead():
    r1 = lambda row, data: value("STVG-R1", README, row, data, "m_vIoU")
    assert r1("STVG-R1", V1) < r1("SpaceVLLM-7B", V1) and r1("STVG-R1", V2) == r1("TA-STVG", V2)
    at = lambda row, m: value("STVG-R1", "4 (README)", row, ("TVGBench", "test"), m)
    assert at("STVG-R1 (zero-shot)", "tIoU@0.5") < at("Time-R1", "tIoU@0.5")
    assert at("STVG-R1 (zero-shot)", "tIoU@0.3") > at("Time-R1", "tIoU@0.3")


def test_lambda_of_a_half_is_best_in_three_of_four():
    best = {
        m: max((0.2, 0.5, 1.0), key=lambda k: value("STVG-o1", "8", f"lambda_k={k}", V1, m))
        for m in SCORES
    }
    assert best == {"m_tIoU": 1.0, "m_vIoU": 0.5, "vIoU@0.3": 0.5, "vIoU@0.5": 0.5}


def test_drift_of_evenly_spread_frames():
    "20 s at 30 fps, 40 frames: numbers of R27."
    step, last = 599 / 39 / 30, 599 / 30
    assert (
        f"{step:.3f} s" in entries("stvg-r1.md")["R27"]
        and f"{last:.2f} s" in entries("stvg-r1.md")["R27"]
    )
    assert f"drift of {last - 39 / 2:.2f} s" in entries("stvg-r1.md")["R27"]


# the pages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", PAGES)
def test_tables_of_the_pages_repeat_the_file(paper):
    lines = [
        [c.strip() for c in line.strip("|\n").split("|")]
        for line in page(PAGES[paper]).splitlines()
        if line.endswith((" primary |", " secondary |"))
    ]
    assert len(lines) >= 20
    for row, table, dataset, split, *cells, confidence in lines:
        for metric, cell in zip(SCORES, cells, strict=True):
            found = TABLE.get((paper, table, row, dataset, split, metric))
            if cell == "-":
                assert found is None, (row, metric)
            else:
                assert (found["value"], found["confidence"]) == (cell, confidence), (row, metric)


FACTS = {
    "stvg-r1.md": {
        "R1": "62.0/40.2/67.8/38.8 61.3/40.8/67.9/38.8 20.9 secondary",
        "R2": "60.3 47.2 13.1 48.6 32.5 16.1",
        "R3": "73.2/52.5 72.2/52.1 48.7 3.8 78.1/60.8 74.5/53.1",
        "R4": "57.5/61.4 56.9/62.0 34.3/36.5 35.8",
        "R5": "24.9 15.7",
        "R6": "28.4 37.1 38.4",
        "R7": "20.9 19.3 69.6 69.3 59.4 58.9",
        "R8": "28.2",
        "R9": "39.1 39.3 40.2 43.6 44.6 27.4 29.4 42.5 41.8",
        "R10": "47.3 50.9 62.9 trajectory",
        "R11": "19.5 19.2",
        "R12": "40.3/19.7 25.6/19.1 45.1/19.3 22.9/13.0",
        "R13": "tracks",
        "R14": "39.1 38.6 38.3",
        "R15": "2025 2026 SARL-STG",
        "R16": "60.3/44.1/73.3/43.5 63.8/41.2/68.5/39.6 VidSTG",
        "R17": "65.1",
        "R18": "denominators",
        "R19": "st_frame used_segment temporal_gt 0.9",
        "R20": "training",
        "R21": "st_frame unfiltered",
        "R22": "largest",
        "R23": "4,413 2,931 9,586",
        "R24": "majority",
        "R25": "40.3 38.7 45.1 44.7",
        "R26": "memory",
        "R27": "0.512 19.97 0.47",
        "R28": "seconds-per-grid",
    },
    "stvg-o1.md": {
        "O1": "405 336",
        "O2": "40.6 39.9 44.1",
        "O3": "intersection",
        "O4": "60.5 60.3",
        "O5": "33.5 27.9 34.7 29.9 41.6 20.3",
        "O6": "29.9 25.5 32.2 27.5",
        "O7": "25.6/19.1 40.3/19.7",
        "O8": "60.3/44.1/73.3/43.5 62.0/40.2/67.8/38.8",
        "O9": "4,413 2,931",
        "O10": "1.8 4.2",
        "O11": "occlusion",
    },
}


@pytest.mark.parametrize("name", FACTS)
def test_contradictions_are_numbered_without_a_gap(name):
    assert list(entries(name)) == list(FACTS[name])


@pytest.mark.parametrize("name, key", [(n, k) for n in FACTS for k in FACTS[n]])
def test_each_contradiction_states_its_facts_and_its_treatment(name, key):
    text = entries(name)[key]
    missing = [
        w
        for w in FACTS[name][key].split()
        if not re.search(rf"(?<![\d.]){re.escape(w)}(?!\d|\.\d)", text)
    ]
    assert not missing, (key, missing)
    assert "*Here:*" in text, key


def test_pages_name_their_source_and_tag_their_evidence():
    r1, o1 = flat("stvg-r1.md"), flat("stvg-o1.md")
    assert "arxiv.org/abs/2602.11730" in r1 and "`0bea9e5`" in r1 and "no licence" in r1
    assert "arxiv.org/abs/2511.21375" in o1
    for tag in ("paper", "README", "release", "secondary", "arithmetic", "reviews"):
        assert f"**[{tag}]**" in r1 and tag in " ".join(
            re.findall(r"\[[^]]*\]", r1.split("## Problem")[1])
        ), tag
    for text in (r1, o1):
        assert "none was measured here" in text


def test_readme_counts_and_levels():
    text, levels = flat("index.md"), Counter(r["confidence"] for r in ROWS)
    assert f"{len(ROWS)} of them" in text
    for level, n in levels.items():
        assert re.search(rf"\| `{level}` \|[^|]+\| {n} \|", text), level
    assert all(f"`{c}`" in text for c in COLUMNS)


# licence and citation -----------------------------------------------------------------------------------


def test_notice_names_every_requirement():
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    text = lambda name: (ROOT / name).read_text(encoding="utf-8")
    listed = dict(re.findall(r"^([a-z0-9-]+) {2,}(\d[\w.]*) {2,}\S", text("NOTICE"), flags=re.M))
    pins = re.findall(r"^([\w.-]+)={2,3}([\w.]+)", text("constraints.txt"), flags=re.M)
    pinned = {n.lower().replace("_", "-"): v for n, v in pins}
    names = [
        re.split(r"[<>=!~\[]", r)[0].lower()
        for key, value in settings["DEFAULT"].items()
        if key.endswith("requirements") and not key.startswith(("gpu", "vllm"))
        for r in value.split()
    ]
    assert len(names) > 25
    assert {n: listed.get(n) for n in names} == {n: pinned[n] for n in names}


def test_licence_and_citation():
    import yaml

    standard = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # apache.org/licenses/LICENSE-2.0.txt
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == standard
    cite = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cite["cff-version"] == "1.2.0" and cite["license"] == "Apache-2.0"
    for reference, name in zip(cite["references"], PAGES.values(), strict=True):
        assert reference["title"] in flat(name)
        for a in reference["authors"]:
            assert f"{a['given-names']} {a['family-names']}" in flat(name)


@pytest.mark.parametrize("name", ["test.yml", "site.yml"])
def test_workflows_ask_for_no_more_than_they_need(name):
    import yaml

    flow = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    assert flow["permissions"] == {"contents": "read"}
    extra = {
        job: spec["permissions"] for job, spec in flow["jobs"].items() if "permissions" in spec
    }
    assert extra == (
        {"deploy": {"pages": "write", "id-token": "write"}} if name == "site.yml" else {}
    )
    command = {"test.yml": "bash .ci/run", "site.yml": "make site"}[name]
    steps = [step for spec in flow["jobs"].values() for step in spec["steps"]]
    assert any(command in step.get("run", "") for step in steps)
