"""The trained rows: what they may see, and in which order they are made."""

from stvg_nb import ablations as A, embedded as E
from stvg_nb.foundations.settings import resolve
from stvg_nb.evaluate import Row
from stvg_nb.tables import MODELS


def test_units_come_after_what_they_need():
    units = E.plan() + A.row_units()
    names = [u.name for u in units]
    assert len(set(names)) == len(names)
    for i, u in enumerate(units):
        assert set(u.needs) <= set(names[:i]), u.name
        assert callable(resolve(u.function))


def test_rows_and_units_name_the_same_policies():
    units = {u.name: u for u in A.row_units()}
    made = {
        n.removeprefix("policy-") for n in units if n.startswith("policy-") and n != "policy-bases"
    }
    tables = (*A.TABLE7, *A.TABLE10, *A.REWARDS, *A.TERMS, *A.COLD)
    asked = {r.policy.format(seed=k).removeprefix("embedded:") for r in tables for k in r.seeds}
    assert asked - {"base"} == made and made < set(units)
    assert all(units[f"policy-{n}"].needs == (n,) for n in made)
    assert [r.label for r in A.TABLE7][:4] == [
        "base",
        "marks",
        "GRPO",
        "marks+SFT",
    ] and "marks+GRPO" in {r.label for r in A.TABLE7}
    assert set(A.BASES) | {"base"} == set(MODELS)
    for table in (A.TABLE7, A.TABLE10, A.REWARDS, A.TERMS, A.COLD):
        assert len({r.label for r in table}) == len(table)


def test_variants_differ_from_the_papers_reward_in_what_they_say():
    from stvg_nb.rewards import VARIANTS

    terms = {
        r.label: VARIANTS[variant].terms
        for r in A.TERMS
        for variant, name in A.VARIED.items()
        if f":{name}-" in r.policy
    }
    assert terms == {
        "r_t + r_s": ("r_t", "r_s"),
        "r_t + r_f": ("r_t", "r_f"),
        "r_s + r_f": ("r_s", "r_f"),
    }


def test_seeds_that_are_not_shipped_are_left_out(monkeypatch):
    monkeypatch.setattr(E, "available", lambda: ["base", "grpo-0", "grpo-2"])
    assert (
        A.with_seeds(A.TRAINED).seeds == (0, 2)
        and A.with_seeds(A.varied("x", "coupled")).seeds == A.SEEDS
    )  # none there: the row stays, and is named as left out


def test_training_clips_are_neither_those_of_the_base_nor_of_a_test():
    profile = A.lesson_profile()
    base = next(u.config["count"] for u in E.plan() if u.name == "clips-train")
    assert profile.train.first >= base and profile.train.lora["r"] <= 8
    seeds = {u.config["seed"] for u in A.row_units() if "seed" in u.config}
    assert seeds == set(A.SEEDS)


def test_equal_expense(tmp_path, monkeypatch):
    "As many steps as fit into the other's CPU seconds, in four parts; the best part on validation clips is shipped."
    from stvg_nb.foundations.files import read_json, write_json

    for name, facts in {
        "sft-rates": dict(rate=0.01),
        "grpo-0": dict(train_seconds=400.0),
        "sft-0": dict(train_seconds=50.0, steps=10, step_seconds=4.0),
    }.items():
        write_json(tmp_path / name / "metrics.json", facts)
    asked = {}

    def fake(out, needs, seed, steps, method, **settings):
        asked.update(steps=steps, **settings)
        return dict(steps=steps)

    monkeypatch.setattr(A, "train_row", fake)
    monkeypatch.setattr(
        A,
        "on_validation",
        lambda path: dict(m_viou=0.3 if path.name == "checkpoint-48" else 0.1, m_tiou=0.2),
    )
    monkeypatch.setattr(A, "difference", lambda checkpoint, path: dict(of=checkpoint.name))
    A.train_sft(
        tmp_path,
        {n: tmp_path / n for n in ("sft-rates", "grpo-0", "sft-0")},
        0,
        like="grpo-0",
        short="sft-0",
    )
    facts = read_json(tmp_path / "metrics.json")
    assert asked == dict(
        steps=96, lessons=A.LESSONS, sft=dict(learning_rate=0.01), save_every=24, keep=4
    )
    assert facts["shipped"] == 48 and facts["delta"] == dict(of="checkpoint-48")


def test_a_row_says_how_it_asks():
    config = Row("x", method="two_stage", think=False).asked(A.lesson_profile())
    assert (config.method, config.think, config.max_new_tokens) == (
        "two_stage",
        False,
        A.lesson_profile().train.answer_tokens,
    )


def test_sft_answers_with_words_that_the_policy_has():
    row = dict(answer="<answer>Target ID: 4, Time range: 15.20 to 19.40</answer>", key="a")
    assert A.in_words(row)["answer"] == "<answer>Target ID: 4, Time range: 15.00 to 19.50</answer>"
    assert A.in_words(
        row | dict(answer="<answer>Target ID: 4, Time range: 15.10 to 15.20</answer>")
    )["answer"].endswith("15.00 to 15.50</answer>")
    untold = dict(answer="<answer>Time range: 15.20 to 19.40</answer>")
    assert A.in_words(untold) == untold
