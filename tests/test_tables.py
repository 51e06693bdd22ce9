"""Other questions about the same clips: right answers score 1 under each benchmark's own scorer."""

from unittest.mock import patch

import numpy as np
import pytest

from stvg_nb.evaluate import score
from stvg_nb.foundations.files import read_json
from stvg_nb.foundations.geometry import frame_of
from stvg_nb.foundations.samples import answer_record
from stvg_nb.foundations.settings import DataConfig, load_profile
from stvg_nb.foundations.sources import load_split
from stvg_nb.policies import AnswerConfig, read_reply
from stvg_nb.predict import complete
from stvg_nb.rows import VIEWS, TableRow, masks_beside, measured_rows, number_split, policy_name
from stvg_nb.tables import MODELS, TABLE1, TABLE2, TABLE2_PLACES, TABLE3, TABLE4
from stvg_nb.theatre.sentences import expressions, thing_question
from stvg_nb.theatre.stories import make_script
from stvg_nb.theatre.views import ASKED, script_of

VIDEO = dict(width=320, height=240, fps=10.0, frame_count=200)


def exact(video):
    return video.parents[1] / "masks" / f"{video.stem}.masks.json.gz"


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    "Five clips as a view asks about them, numbered from the truth, things included."
    data = DataConfig(source="puppets", root=str(tmp_path_factory.mktemp("tables")))

    def of(view):
        options = dict(view=view, clips=5, progress=False)
        split = load_split(data, ASKED[view].benchmark, "val", **options)
        with patch("stvg_nb.rows.Numberer", lambda config, device: exact):
            return VIEWS[view](number_split(split, None, progress=False))

    return of


def say(made, sample, text):
    "A record, as of the policy's reply."
    reply = f"<think></think><answer>{text}</answer>"
    answer = read_reply(sample, reply, VIDEO, AnswerConfig())
    return answer_record(complete(answer, sample, made.database(sample.key)))


def test_intervals_are_scored_as_charades_sta(asked):
    made = asked("times")
    truth = {k: v["timestamps"][0] for k, v in read_json(made.annotations).items()}

    def when(key):
        return truth[key.split("#")[0]]

    right = [say(made, s, "{:.2f} to {:.2f}".format(*when(s.key))) for s in made.samples]
    wrong = [say(made, s, "0.00 to 0.50") for s in made.samples]
    assert all(a["start_frame"] == frame_of(when(a["key"])[0], 10.0) for a in right)
    s = score(made.annotations, [right, wrong], "charades-sta")
    assert s.of("m_tiou")[0].min() > 0.99 and s.of("r1@0.5").mean(1).tolist() == [1.0, 0.0]
    assert "id" not in s.values


def test_places_are_scored_inside_the_given_interval(asked):
    made = asked("question-places")
    truth, seeds = read_json(made.annotations), []
    for add in (0, 50):
        texts = {k: f"Target ID: {r['answer_id'] + add}" for k, r in truth.items()}
        seeds.append([say(made, s, texts[s.key]) for s in made.samples])
    s = score(made.annotations, seeds)
    assert s.of("m_tiou").min() == 1.0 and s.of("m_viou")[0].min() > 0.3
    persons = s.take([t == "person" for t in s.types])
    assert persons.of("m_viou")[0].min() > 0.95
    assert s.of("id_accuracy").mean(1).tolist() == [1.0, 0.0]


def test_questions_ask_about_things_too(asked):
    truth = read_json(asked("questions").annotations)
    things = [k for k in truth if ".thing." in k]
    scripts = {k: script_of(k) for k in truth if k not in things}
    assert len(scripts) == 5
    assert len(things) == sum(thing_question(s) is not None for s in scripts.values())
    assert len(truth) == len(scripts) + len(things)
    assert all(truth[k]["caption"] == s.question for k, s in scripts.items())
    for k in things:  # the truth numbers things after puppets
        assert truth[k]["query_type"] == "object"
        assert truth[k]["answer_id"] > len(script_of(k).puppets)


def test_right_answers_to_questions_score(asked):
    made = asked("questions")
    truth, right = read_json(made.annotations), []
    for s in made.samples:
        t = truth[s.key]
        start, end = (t["st_frame"] - 1) / 10, (t["st_frame"] - 1 + len(t["bbox"])) / 10
        text = f"Target ID: {t['answer_id']}, Time range: {start:.2f} to {end:.2f}"
        right.append(say(made, s, text))
    s = score(made.annotations, [right])
    assert s.of("m_tiou").min() > 0.99 and s.of("id_accuracy").min() == 1.0
    assert s.of("m_viou").min() > 0.3  # a held thing is often hidden
    assert s.take([t == "person" for t in s.types]).of("m_viou").min() > 0.9


def test_groups_are_scored_as_mevis(asked):
    made = asked("groups")
    files = dict(benchmark="mevis", masks=masks_beside(made.annotations))
    for s in made.samples:
        assert len(s.answer_ids) > 1 and len(s.extra["mask_frames"]) == 40
        script = make_script("val", "stage", int(s.key.split("#")[0][-5:]))
        assert len(dict(expressions(script))[s.query]) == len(s.answer_ids)

    def named(s, n=None):
        return say(made, s, "Target ID: " + ", ".join(map(str, s.answer_ids[:n])))

    right, one = [named(s) for s in made.samples], [named(s, 1) for s in made.samples]
    s = score(made.annotations, [right, one, []], **files)
    assert np.allclose(s.of("j_and_f")[0], 1)
    assert 0 < s.of("j").mean(1)[1] < 1 and s.of("f").mean(1)[2] == 0
    assert s.counts["missing"] == len(made.samples)


def test_every_row_has_a_label_of_its_own_and_the_metrics_of_its_task():
    for table in (TABLE1, TABLE2 + TABLE2_PLACES, TABLE3, TABLE4):
        labels = [r.label for r in table]
        assert len(set(labels)) == len(labels)
    tiny = load_profile("tiny")
    names = [policy_name(r.policy.format(seed=0), tiny) for r in TABLE1]
    assert len(MODELS) == 3 and len(TABLE1) == 7
    assert all(n.startswith("embedded:") for n in names)
    assert TABLE3[0].metrics == ("j", "f", "j_and_f")
    assert "m_tiou" not in TABLE2_PLACES[1].metrics and "id_accuracy" not in TABLE2[0].metrics
    assert all(not r.marks and r.task == "vtg" for r in TABLE4)


def test_a_row_without_weights_is_left_out():
    row, tiny = TableRow("x", "embedded:no-such-weights"), load_profile("tiny")
    assert measured_rows([row], "x-none", tiny, None) == {}
