"""The list of artefacts is complete; a run that is stopped anywhere loses at most what was running; units of training say what they lack."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import ROOT, shared_data

from stvg_nb import reproduce as R
from stvg_nb.foundations.files import read_json, sha256_file, write_json
from stvg_nb.foundations.settings import load_profile, profiles
from stvg_nb.plan import INGREDIENTS, WRITTEN_BY, format_plan, plan
from stvg_nb.process import parameters

sys.path.insert(0, str(ROOT / "scripts"))
import weights as W  # noqa: E402

# Everything that STVG-R1 shows, and the experiments that it leaves out: item -> artefacts
ITEMS = {
    **{f"Table {n}": (f"r1-table{n:02}",) for n in range(1, 12)},
    "4.5 text": ("r1-rewards",),
    **{f"Fig. {n}": (f"r1-figure{n:02}",) for n in range(1, 17)},
    "Algorithm 1": ("x-fragmentation", "x-repair"),
}
ADDED = {
    "cost of preprocessing": ("x-preprocessing",),
    "seeds and intervals": ("x-seeds",),
    "reward terms one by one": ("x-reward-terms",),
    "detector failure": ("x-detector-failure",),
    "brief events": ("x-brief",),
    "same tracks": ("x-same-tracks",),
    "cold start": ("x-cold-start",),
    "repair on/off": ("x-repair",),
}


@pytest.mark.parametrize("item", [*ITEMS, *ADDED])
def test_every_item_has_an_artefact(item):
    assert set((ITEMS | ADDED)[item]) <= set(R.ARTEFACTS)


def test_no_paper_artefact_beyond_the_paper():
    assert {n for n in R.ARTEFACTS if n.startswith("r1-")} == {
        n for names in ITEMS.values() for n in names if n.startswith("r1-")
    }


def test_items_are_those_of_the_method_specification():
    path = shared_data() and shared_data().parent / "specs/method.md"
    if path is None or not path.is_file():
        return  # the list above stands for it
    part = path.read_text().split("### 4.1 ")[1].split("### 4.2 ")[0]
    rows = [
        line.split("|")[1].strip()
        for line in part.splitlines()
        if line.startswith("| ") and not line.startswith("| item")
    ]
    spans = [(r, re.fullmatch(r"Fig\. (\d+)-(\d+)", r)) for r in rows]
    items = {
        i
        for r, m in spans
        for i in ([f"Fig. {n}" for n in range(int(m[1]), int(m[2]) + 1)] if m else [r])
    }
    assert items == set(ITEMS)
    added = path.read_text().split("Added experiments")[1].split("\n")[0]
    assert [a for a in ADDED if a not in added] == []


def test_chapters_that_are_here_can_be_told_their_profile():
    here = {p.stem: p for p in R.chapters()}
    assert {c for c in WRITTEN_BY if c in here} and all(
        "profile" in parameters(here[c], load_profile("smoke")) for c in WRITTEN_BY if c in here
    )


# --- planned, without running anything ----------------------------------------------------------------


@pytest.fixture
def bare_machine(tmp_path, monkeypatch):
    "Nothing was ever run or downloaded here."
    for name in ("STVG_RUNS", "STVG_FIGURES", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("profile", profiles())
def test_every_artefact_is_planned_under_every_shipped_profile(profile, bare_machine, tmp_path):
    made = plan(profile)
    assert (made["schema"], made["profile"]) == ("stvg.plan/1", profile)
    assert [a["name"] for a in made["artefacts"]] == [*R.ARTEFACTS]
    assert set(INGREDIENTS) == set(R.ARTEFACTS)
    for a in made["artefacts"]:
        assert a["title"] and a["runs"] == all(n["there"] for n in a["needs"])
        assert all([*n] == ["kind", "name", "there"] and n["name"] for n in a["needs"])
        assert len({n["name"] for n in a["needs"]}) == len(a["needs"])
    json.dumps(made)
    missing = {n["kind"] for a in made["artefacts"] for n in a["needs"] if not n["there"]}
    if load_profile(profile).data.benchmark == "puppets":
        assert missing <= {"package", "chapter"}
    else:
        assert format_plan(made).count("\n") > len(INGREDIENTS) // 2
    assert [*tmp_path.iterdir()] == []  # nothing is written


def test_a_plan_without_a_checkout_lacks_the_chapters(tmp_path):
    made = plan("smoke", tmp_path)
    assert not any(a["runs"] for a in made["artefacts"])
    assert all(n["there"] != (n["kind"] == "chapter") for n in made["artefacts"][1]["needs"])


def test_files_of_a_benchmark_are_looked_for_where_the_profile_says(tmp_path):
    def data(name, root):
        settings = tmp_path / "mine.yaml"
        settings.write_text(f"inherits: a100\nname: mine\ndata: {{root: {root}}}\n")
        (a,) = [a for a in plan(settings)["artefacts"] if a["name"] == name]
        return {n["name"]: n["there"] for n in a["needs"] if n["kind"] == "data"}

    root = tmp_path / "data"
    (root / "hcstvg" / "videos").mkdir(parents=True)
    (root / "hcstvg" / "v1_test.json").write_text("{}")
    found = data("r1-table07", root)
    assert len(found) == 2 and all(found.values()) and all(str(root) in n for n in found)
    assert all(data("r1-table07", root / "hcstvg").values())
    assert not any(data("r1-table03", root).values())
    assert all("not set" in n for n in data("r1-table01", "null"))


# --- interrupted at random moments --------------------------------------------------------------------

TOYS = ("01_one", "02_two", "03_three", "04_four")


def number(name):
    return int(hashlib.sha256(name.encode()).hexdigest()[:6], 16) / 1e6


CELLS = (
    "profile = None",
    "import time\nfrom stvg_nb.core import Artefact, write_table",
    "print('halfway')\nimport pathlib\nwhile not pathlib.Path({told!r}).exists(): time.sleep(.02)",
    "write_table(Artefact('x-toy-{short}', profile, 'A toy.', [dict(label='toy', kind='measured', metrics=dict(value={value}))]))",
)


def told(folder, name):
    "A chapter of `toys` waits for this file before it writes its table."
    return folder / f"{name}.may-end"


def toys(folder):
    folder.mkdir()
    for name in TOYS:
        cells = [
            nbformat.v4.new_code_cell(
                c.format(short=name[3:], value=number(name), told=str(told(folder, name)))
            )
            for c in CELLS
        ]
        cells[0]["metadata"]["tags"] = ["parameters"]
        nbformat.write(
            nbformat.v4.new_notebook(
                cells=cells,
                metadata=dict(
                    kernelspec=dict(name="python3", display_name="python3", language="python")
                ),
            ),
            folder / f"{name}.ipynb",
        )
    return folder


def begin(folder, tmp, log):
    code = f"from stvg_nb.reproduce import reproduce, exit_code; r = reproduce('smoke', folder={str(folder)!r}, quiet=False); raise SystemExit(exit_code(r))"
    env = os.environ | dict(STVG_RUNS=str(tmp / "runs"), STVG_FIGURES=str(tmp / "figures"))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=log.open("a"),
        env=env,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # a shell's background jobs ignore it


def of_run(tmp):  # processes that belong to the run, kernels included
    import psutil

    def belongs(p):
        try:
            return (
                p.environ().get("STVG_RUNS") == str(tmp / "runs")
                and p.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return False

    return [" ".join(p.cmdline()) for p in psutil.process_iter() if belongs(p)]


def whole(tmp):
    "Every file that is there can be read and is what its record says; -> {chapter: time stamp of its record}."
    records = {p.name.split(".")[0]: p for p in (tmp / "runs/smoke").glob("*.record.json")}
    for name, p in records.items():
        known = read_json(p)
        assert known["artefacts"] == [f"x-toy-{name[3:]}"] and len(known["files"]) == 3
        assert all(sha256_file(tmp / "figures" / f) == h for f, h in known["files"].items())
        assert all(
            c["outputs"] is not None
            for c in nbformat.read(tmp / f"runs/smoke/{name}.ipynb", 4).cells
            if c.cell_type == "code"
        )
    for p in (tmp / "figures").glob("x-*.json"):
        assert read_json(p)["rows"]
    return {n: p.stat().st_mtime_ns for n, p in records.items()}


def test_stopped_at_random_moments_nothing_is_lost_but_what_was_running(tmp_path):
    folder, log, chance, kept, codes = (
        toys(tmp_path / "nbs"),
        tmp_path / "log",
        random.Random(0),
        {},
        [],
    )
    for more, kind in (
        (0, signal.SIGINT),
        (1, signal.SIGKILL),
        (0, signal.SIGTERM),
        (0, signal.SIGKILL),
        (1, signal.SIGINT),
    ):
        run = begin(folder, tmp_path, log)  # stopped some moment after so many further chapters
        for name in TOYS[: len(kept) + more]:
            told(folder, name).touch()
        while len([*tmp_path.glob("runs/smoke/*.record.json")]) < len(kept) + more:
            assert run.poll() is None
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 1.5 if more else 4))
        run.send_signal(kind)
        codes.append(run.wait())
        now = whole(tmp_path)
        assert kept.items() <= now.items()  # finished chapters were not touched again
        kept = now
    assert 0 not in codes and len(kept) == 2
    for _ in range(3000):
        if not of_run(tmp_path):
            break
        time.sleep(0.2)
    assert of_run(tmp_path) == []  # no orphan goes on
    for name in TOYS:
        told(folder, name).touch()
    assert begin(folder, tmp_path, log).wait() == 0
    assert kept.items() <= whole(tmp_path).items() and set(whole(tmp_path)) == set(TOYS)
    report = json.loads((tmp_path / "runs/smoke/report.json").read_text())
    assert {a["name"]: a["headline"]["measured"]["value"] for a in report["artefacts"]} == {
        f"x-toy-{n[3:]}": number(n) for n in TOYS
    }
    assert "halfway" in (tmp_path / "runs/smoke/01_one.log").read_text() and not [
        *(tmp_path / "runs/smoke").glob("*.running.ipynb")
    ]
    lines = log.read_text()
    assert re.search(r"stvg: \[0/4\] 01_one +started", lines) and re.search(
        r"stvg: \[4/4\] \w+ +measured", lines
    )


# --- the report ---------------------------------------------------------------------------------------


def test_a_committed_artefact_is_not_taken_for_done(tmp_path, monkeypatch):
    for name, value in dict(STVG_RUNS=tmp_path / "runs", STVG_FIGURES=tmp_path / "figures").items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/x-fragmentation.provenance.json").write_text(
        json.dumps(dict(artefact="x-fragmentation.png", rows=[], data=[]))
    )
    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("1 + 1")],
        metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")),
    )
    (tmp_path / "nbs").mkdir()
    nbformat.write(nb, tmp_path / "nbs/06_repair.ipynb")
    report = R.reproduce("smoke", only=["x-fragmentation"], folder=tmp_path / "nbs")
    assert [(a["status"], a["reason"]) for a in report["artefacts"]] == [
        ("skipped", "chapter 06_repair did not write it in this profile")
    ]
    assert (
        R.exit_code(report) == 0
        and "skipped, because" in (tmp_path / "runs/smoke/report.md").read_text()
    )


def test_exit_codes():
    def code(*states):
        return R.exit_code(dict(chapters=[dict(status=s) for s in states]))

    assert (code("measured"), code("measured", "skipped"), code("skipped", "failed")) == (0, 3, 1)


def test_headline_of_every_committed_table_keeps_the_two_apart():
    for path in (ROOT / "figures/tiny").glob("*-table*.provenance.json"):
        h = R.headline(read_json(path))
        if h["reported"]:
            assert (
                h["reported"]["reference"]
                and "paper reports" in R.beside(h)
                and R.same_metric(h["measured"]["metric"]) == R.same_metric(h["reported"]["metric"])
            )


def test_headline_of_table_7():
    path = ROOT / "figures/tiny/r1-table07.provenance.json"
    h = R.headline(read_json(path))
    assert (
        h["measured"]["label"] == "marks+GRPO"
        and h["reported"]["label"].startswith("+VisualPrompt-GRPO")
        and h["reported"]["value"] == 0.391
        and not h["same_data"]
    )


# --- units of training --------------------------------------------------------------------------------


def nothing(out, needs, **config):
    (out / "made").write_text(json.dumps(sorted(needs)))


def units():
    from stvg_nb.theatre.jobs import TrainingJob

    base = [
        TrainingJob("first", f"{__name__}.nothing"),
        TrainingJob("second", f"{__name__}.nothing", needs=("first",)),
    ]
    return base, [
        TrainingJob("row", f"{__name__}.nothing", dict(seed=1), ("second",)),
        TrainingJob("row-more", f"{__name__}.nothing", needs=("row",)),
        TrainingJob("alone", f"{__name__}.nothing", dict(seed=2)),
    ]


def test_rows_name_what_they_lack_and_the_others_still_run(tmp_path, monkeypatch):
    from stvg_nb.theatre.jobs import job_keys

    monkeypatch.setenv("STVG_RUNS", str(tmp_path))
    base, rows = units()
    keys, lines = job_keys([*base, *rows]), []
    assert W.run(rows, base, keys, lines.append) == ["row", "row-more"]
    assert lines[0] == "[1/3] row: needs second, run `make weights` first" and re.fullmatch(
        r"\[3/3\] alone: made, \d+ s", lines[2]
    )
    assert W.run([*base, *rows], base, keys, lines.append) == [] and lines[-1].startswith(
        "[5/5] alone: kept"
    )


def test_the_shipped_base_stands_for_its_unit(tmp_path, monkeypatch):
    from stvg_nb.theatre import curriculum, jobs, row_training

    monkeypatch.setenv("STVG_RUNS", str(tmp_path))
    base, rows = curriculum.training_jobs(), row_training.row_units()
    keys = jobs.job_keys([*base, *rows])
    W.take_shipped(base, keys)
    assert [u.name for u in base if W.done(u, keys)] == ["policy-base"]
    assert W.chosen(base, rows, True) == rows and W.chosen(base, rows, False)[: len(base)] == base


def test_finished_jobs_keep_nothing_that_they_stand_on(tmp_path, monkeypatch):
    from stvg_nb.theatre.jobs import job_keys

    monkeypatch.setenv("STVG_RUNS", str(tmp_path))
    base, rows = units()
    keys = job_keys([*base, *rows])
    assert W.still_wanted([*base, *rows], keys) == [*base, *rows]
    W.stand(base[1], keys, [])
    assert [job.name for job in W.still_wanted([*base, *rows], keys)] == [
        "second",
        "row",
        "row-more",
        "alone",
    ]


def test_shipped_boxes_stand_for_their_job_where_they_came_of_its_needs(tmp_path, monkeypatch):
    from stvg_nb.theatre import box_curriculum, box_policy, box_rows, curriculum, jobs

    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    for module in (box_policy, box_rows):
        monkeypatch.setattr(module, "box_weights", lambda name="base": tmp_path / name)
    monkeypatch.setattr(box_rows, "weights_dir", lambda name="base": tmp_path / f"policy-{name}")
    boxes = [*box_curriculum.box_jobs(), *box_rows.box_row_jobs()]
    keys = jobs.job_keys([*curriculum.training_jobs(), *boxes])
    ship = next(j for j in boxes if j.name == "policy-boxes")
    made = {n: dict(key=keys[n]) for n in ship.needs}
    for wrong in (None, made | {"box-answers": dict(key="another")}):
        if wrong:
            write_json(tmp_path / "base/provenance.json", wrong)
        W.take_boxes(boxes, keys)
        assert not W.done(ship, keys)
    write_json(tmp_path / "base/provenance.json", made)
    W.take_boxes(boxes, keys)
    assert W.done(ship, keys)
    wanted = [job.name for job in W.still_wanted(boxes, keys)]
    assert wanted[:2] == ["box-clips-val", "policy-boxes"] and "box-sft-rates" in wanted


def test_shipped_searches_and_rows_of_boxes_stand_for_their_jobs(tmp_path, monkeypatch):
    "A fresh clone trains the rows that are missing, with the rates that were found."
    from stvg_nb.theatre import box_curriculum, box_policy, box_rows, curriculum, jobs

    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    for module in (box_policy, box_rows):
        monkeypatch.setattr(module, "box_weights", lambda name="base": tmp_path / name)
    monkeypatch.setattr(box_rows, "weights_dir", lambda name="base": tmp_path / f"policy-{name}")
    boxes = [*box_curriculum.box_jobs(), *box_rows.box_row_jobs()]
    keys = jobs.job_keys([*curriculum.training_jobs(), *boxes])
    named = {job.name: job for job in boxes}
    (tmp_path / "base").mkdir()
    (tmp_path / "base/delta.safetensors").write_bytes(b"base")
    base = sha256_file(tmp_path / "base/delta.safetensors")
    found = dict(unit=dict(key=keys["box-sft-rates"]), metrics=dict(rate=0.5))
    write_json(tmp_path / "base/box-sft-rates.json", found)
    wrong = dict(unit=dict(key="of other settings"), metrics=dict(rate=0.7))
    write_json(tmp_path / "base/box-rft-rates.json", wrong)
    row = dict(unit=dict(key=keys["box-sft-0"]), metrics=dict(steps=40))
    write_json(tmp_path / "sft-0/provenance.json", row | dict(base=base))
    write_json(tmp_path / "sft-1/provenance.json", row | dict(base=base))  # the key of another row
    row = dict(unit=dict(key=keys["box-sft-2"]), metrics=dict(steps=40))
    write_json(tmp_path / "sft-2/provenance.json", row | dict(base="another base"))
    W.take_boxes(boxes, keys)
    stood = [n for n in named if W.done(named[n], keys)]
    assert stood == ["box-sft-rates", "tried-sft-rates", "box-sft-0", "policy-box-sft-0"]
    folder = jobs.job_folder("box-sft-rates", keys["box-sft-rates"])
    assert read_json(folder / "metrics.json")["rate"] == 0.5
