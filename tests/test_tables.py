"""Other questions about the same clips: right answers score 1 under each benchmark's own scorer, wrong ones 0."""

import numpy as np
import pytest

from stvg_nb.foundations.files import read_json
from stvg_nb.foundations.geometry import frame_of
from stvg_nb.foundations.masks import MaskDatabase
from stvg_nb.evaluate import Ready, Row, annotate, finished, measured_rows, score
from stvg_nb.policies import reply_record, row_of
from stvg_nb.foundations.benchmarks import load
from stvg_nb.theatre.clips import write_split
from stvg_nb.theatre.sentences import expressions, thing_question
from stvg_nb.theatre.stories import make_script
from stvg_nb.questions import parse
from stvg_nb.evaluate import masks_beside
from stvg_nb.tables import (
    MODELS,
    TABLE1,
    TABLE2,
    TABLE2_PLACES,
    TABLE3,
    TABLE4,
    as_groups,
    as_places,
    as_questions,
    as_times,
    script_of,
)

VIDEO = dict(width=320, height=240, fps=10.0, frame_count=200)


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    "Five clips, numbered from the truth, things included."
    folder = tmp_path_factory.mktemp("tables")
    made = write_split(folder, "val", "stage", 5, masks=True, progress=False)
    path = lambda key: folder / "masks" / key.replace(".mp4", ".masks.json.gz")
    counts = annotate(
        made["load"]["annotations"],
        lambda key: MaskDatabase.open(path(key)),
        folder / "numbered.json",
    )
    samples = load(**made["load"] | dict(annotations=folder / "numbered.json"))
    return Ready(
        "val/stage",
        folder / "numbered.json",
        [row_of(s, folder / "videos" / s.video, path(s.key)) for s in samples],
        counts,
    )


def say(made, row, text):  # a reply, as the policy would have given it
    task = row.get("task", "stvg")
    return finished(
        reply_record(row, text, parse(f"<think></think><answer>{text}</answer>", task), VIDEO),
        made.database(row["key"]),
        **made.facts(row["key"]),
    )


def test_intervals_are_scored_as_charades_sta(ready):
    made = as_times(ready)
    truth = {k: v["timestamps"][0] for k, v in read_json(made.annotations).items()}
    right = [
        say(made, r, "{:.2f} to {:.2f}".format(*truth[r["key"].split("#")[0]])) for r in made.rows
    ]
    assert all(a["start_frame"] == frame_of(truth[a["key"].split("#")[0]][0], 10.0) for a in right)
    s = score(
        made.annotations, [right, [say(made, r, "0.00 to 0.50") for r in made.rows]], "charades-sta"
    )
    assert (
        s.of("m_tiou")[0].min() > 0.99
        and s.of("r1@0.5").mean(1).tolist() == [1.0, 0.0]
        and "id" not in s.values
    )


def test_places_are_scored_inside_the_given_interval(ready):
    made = as_places(ready)
    truth = read_json(made.annotations)
    s = score(
        made.annotations,
        [
            [say(made, r, f"Target ID: {truth[r['key']]['answer_id'] + d}") for r in made.rows]
            for d in (0, 50)
        ],
    )
    assert s.of("m_tiou").min() == 1.0 and s.of("m_viou")[0].min() > 0.95
    assert s.of("id_accuracy").mean(1).tolist() == [1.0, 0.0]


def test_questions_ask_about_things_too(ready):
    made = as_questions(ready)
    truth, scripts = (
        read_json(made.annotations),
        {k: script_of(k) for k in read_json(ready.annotations)},
    )
    things = [k for k in truth if ".thing." in k]
    assert len(things) == sum(thing_question(s) is not None for s in scripts.values()) and len(
        truth
    ) == len(scripts) + len(things)
    assert all(truth[k]["caption"] == s.question for k, s in scripts.items())
    assert all(
        truth[k]["query_type"] == "object" and truth[k]["answer_id"] > len(script_of(k).puppets)
        for k in things
    )  # the truth numbers things after puppets
    span = lambda t: ((t["st_frame"] - 1) / 10, (t["st_frame"] - 1 + len(t["bbox"])) / 10)
    right = [
        say(
            made,
            r,
            "Target ID: {}, Time range: {:.2f} to {:.2f}".format(
                truth[r["key"]]["answer_id"], *span(truth[r["key"]])
            ),
        )
        for r in made.rows
    ]
    s = score(made.annotations, [right])
    assert s.of("m_tiou").min() > 0.99 and s.of("id_accuracy").min() == 1.0
    assert (
        s.of("m_viou").min() > 0.3
        and s.take([t == "person" for t in s.types]).of("m_viou").min() > 0.9
    )  # a held thing is often hidden


def test_groups_are_scored_as_mevis(ready):
    made = as_groups(ready)
    files = dict(benchmark="mevis", masks=masks_beside(made.annotations))
    assert all(len(r["ids"]) > 1 and len(r["frames"]) == 40 for r in made.rows)
    for r in made.rows:
        group = dict(expressions(make_script("val", "stage", int(r["key"].split("#")[0][-5:]))))[
            r["query"]
        ]
        assert len(group) == len(r["ids"])
    right = [say(made, r, "Target ID: " + ", ".join(map(str, r["ids"]))) for r in made.rows]
    one = [say(made, r, f"Target ID: {r['ids'][0]}") for r in made.rows]
    s = score(made.annotations, [right, one, []], **files)
    assert (
        np.allclose(s.of("j_and_f")[0], 1)
        and 0 < s.of("j").mean(1)[1] < 1
        and s.of("f").mean(1)[2] == 0
    )
    assert s.counts["missing"] == len(made.rows)


def test_every_row_has_a_label_of_its_own_and_the_metrics_of_its_task():
    for table in (TABLE1, TABLE2 + TABLE2_PLACES, TABLE3, TABLE4):
        labels = [r.label for r in table]
        assert len(set(labels)) == len(labels)
    assert (
        len(MODELS) == 3
        and sum(r.policy.startswith("embedded:") for r in TABLE1) == len(TABLE1) == 7
    )
    assert (
        TABLE3[0].metrics == ("j", "f", "j_and_f")
        and "m_tiou" not in TABLE2_PLACES[1].metrics
        and "id_accuracy" not in TABLE2[0].metrics
    )
    assert all(not r.marks and r.task == "vtg" for r in TABLE4)


def test_a_row_without_weights_is_left_out():
    assert measured_rows([Row("x", "embedded:no-such-weights")], "x-none", None, None) == {}
