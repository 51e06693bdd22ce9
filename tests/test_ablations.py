"""The trained rows: what they may see, and in which order they are made."""

import pytest

from stvg_nb import ablations as A
from stvg_nb import rows as R
from stvg_nb.foundations.files import read_json, write_json
from stvg_nb.foundations.settings import load_profile, resolve
from stvg_nb.rewards import VARIANTS
from stvg_nb.rows import TableRow, policy_name
from stvg_nb.tables import MODELS
from stvg_nb.theatre import curriculum, policy
from stvg_nb.theatre import row_training as T

TABLES = (A.TABLE7, A.TABLE10, A.REWARDS, A.TERMS, A.COLD)


def test_units_come_after_what_they_need():
    units = curriculum.training_jobs() + T.row_units()
    names = [u.name for u in units]
    assert len(set(names)) == len(names)
    for i, u in enumerate(units):
        assert set(u.needs) <= set(names[:i]), u.name
        assert callable(resolve(u.function))


def test_rows_and_units_name_the_same_policies():
    units = {u.name: u for u in T.row_units()}
    made = {n.removeprefix("policy-") for n in units if n.startswith("policy-")} - {"bases"}
    asked = {r.policy.format(seed=k) for table in TABLES for r in table for k in r.seeds}
    assert asked - {"base"} == made and made < set(units)
    tiny = load_profile("tiny")
    assert {policy_name(a, tiny) for a in asked} == {f"embedded:{a}" for a in asked}
    assert all(units[f"policy-{n}"].needs == (n,) for n in made)
    assert [r.label for r in A.TABLE7][:4] == ["base", "marks", "GRPO", "marks+SFT"]
    assert "marks+GRPO" in {r.label for r in A.TABLE7}
    assert set(T.BASES) | {"base"} == set(MODELS)
    for table in TABLES:
        assert len({r.label for r in table}) == len(table)


def test_variants_differ_from_the_papers_reward_in_what_they_say():
    names = {f"{name}-{{seed}}": variant for variant, name in T.VARIED.items()}
    terms = {r.label: VARIANTS[names[r.policy]].terms for r in A.TERMS if r.policy in names}
    assert terms == {
        "r_t + r_s": ("r_t", "r_s"),
        "r_t + r_f": ("r_t", "r_f"),
        "r_s + r_f": ("r_s", "r_f"),
    }


def test_seeds_that_are_not_shipped_are_left_out(monkeypatch):
    shipped = {f"embedded:{n}" for n in ("base", "grpo-0", "grpo-2")}
    monkeypatch.setattr(R, "_shipped", lambda name: name in shipped)
    tiny = load_profile("tiny")
    assert A.with_seeds(A.TRAINED, tiny).seeds == (0, 2)
    # none there: the row stays, and is named as left out
    assert A.with_seeds(A.trained_row("x", "coupled"), tiny).seeds == A.SEEDS


def test_training_clips_are_neither_those_of_the_base_nor_of_a_test():
    profile = T.row_profile()
    base = next(u.config["count"] for u in curriculum.training_jobs() if u.name == "clips-train")
    assert profile.train.first >= base and profile.train.lora["r"] <= 8
    assert profile.train.data == "stvg_nb.theatre.row_training.training_rows"
    assert resolve(profile.train.data) is T.training_rows
    seeds = {u.config["seed"] for u in T.row_units() if "seed" in u.config}
    assert seeds == set(T.SEEDS) == set(A.SEEDS)


def test_functions_of_shipped_provenance_are_found():
    made = [
        read_json(policy.weights_dir(n) / "provenance.json")
        for n in set(policy.available()) - {"base"}
    ]
    named = {m["unit"]["unit"]["function"] for m in made if "unit" in m}
    # version 0.1 had these functions in its chapter 08
    today = {f.replace("stvg_nb.ablations.", "stvg_nb.theatre.row_training.") for f in named}
    assert today and all(callable(resolve(f)) for f in today)


@pytest.fixture
def paid(tmp_path):
    "Units that are finished, with what they cost."
    facts = {
        "sft-rates": dict(rate=0.01),
        "grpo-0": dict(train_seconds=400.0),
        "sft-0": dict(train_seconds=50.0, steps=10, step_seconds=4.0),
    }
    for name, made in facts.items():
        write_json(tmp_path / name / "metrics.json", made)
    return {name: tmp_path / name for name in facts}


def test_equal_expense(tmp_path, paid, monkeypatch):
    "As many steps as fit into the other's CPU seconds, in four parts; the best one is shipped."
    asked = {}

    def fake(out, needs, seed, steps, method, **settings):
        asked.update(steps=steps, **settings)
        return dict(steps=steps)

    def scored(path):
        return dict(m_viou=0.3 if path.name == "checkpoint-48" else 0.1, m_tiou=0.2)

    monkeypatch.setattr(T, "train_row", fake)
    monkeypatch.setattr(T, "on_validation", scored)
    monkeypatch.setattr(T, "difference", lambda checkpoint, path: dict(of=checkpoint.name))
    T.train_sft(tmp_path, paid, 0, like="grpo-0", short="sft-0")
    facts = read_json(tmp_path / "metrics.json")
    rate = dict(learning_rate=0.01)
    assert asked == dict(steps=96, shared=T.SHARED, sft=rate, save_steps=24, save_total_limit=4)
    assert facts["shipped"] == 48 and facts["delta"] == dict(of="checkpoint-48")
    assert facts["paid"] == 400.0 and [t["steps"] for t in facts["tried"]] == [24, 48, 72, 96]


def test_a_row_says_how_it_asks():
    profile = T.row_profile()
    config = TableRow("x", method="two_stage", think=False).answer_config(profile)
    asked = (config.method, config.think, config.max_new_tokens)
    assert asked == ("two_stage", False, profile.train.max_completion_length)


def test_sft_answers_with_words_that_the_policy_has():
    def rounded(times):
        row = dict(answer=f"<answer>Target ID: 4, Time range: {times}</answer>", key="a")
        return T.round_to_vocabulary(row)["answer"]

    begin = "<answer>Target ID: 4, Time range: "
    assert rounded("15.20 to 19.40") == f"{begin}15.00 to 19.50</answer>"
    assert rounded("15.10 to 15.20") == f"{begin}15.00 to 15.50</answer>"
    untold = dict(answer="<answer>Time range: 15.20 to 19.40</answer>")
    assert T.round_to_vocabulary(untold) == untold
