"""The experiment on concepts: what is chosen, and what its page says did not work."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "concepts"))

import concept_tables as tables
from cases import SETUPS, gender_case, register_case, shuffled_sides
from fits import CONTROLS, METHODS

from steerlab.scores.counted import word_counts

LANGS, CONCEPTS = ("de", "fr"), ("informal", "formal")
CASE = SimpleNamespace(concepts=CONCEPTS, langs=LANGS)


def rows(reached: dict[str, float], *, in_language: float = 1.0, lines: int = 60) -> pd.DataFrame:
    """Rows of each method in which this share reaches the goal, on the same sentences."""
    rng = np.random.default_rng(0)
    made = []
    for method, share in reached.items():
        for lang in LANGS:
            for goal in CONCEPTS:
                for sentence in range(lines):
                    hit = bool(rng.random() < share)
                    made.append(
                        {
                            "method": method,
                            "lang": lang,
                            "goal": goal,
                            "layer": 3,
                            "strength": 0.0 if method == "unsteered" else 4.0,
                            "sentence": sentence,
                            "goal_words": int(hit),
                            "other_words": int(not hit),
                            "in_language": bool(rng.random() < in_language),
                            "reached": hit,
                            "repetition": 0.0,
                            "dose": 0.5,
                        }
                    )
    return pd.DataFrame(made)


def shares(**given: float) -> dict[str, float]:
    return dict.fromkeys([*METHODS, *CONTROLS, "unsteered"], 0.2) | {
        name.replace("_", " "): share for name, share in given.items()
    }


def test_the_least_of_equal_settings_is_chosen():
    dev = pd.concat(
        [
            rows({"lda": share}).assign(strength=strength, layer=layer)
            for layer, strength, share in ((3, 2.0, 0.1), (5, 4.0, 1.0), (3, 8.0, 1.0))
        ]
    )
    assert tables.chosen(dev) == {("lda", "formal"): (5, 4.0), ("lda", "informal"): (5, 4.0)}


def test_what_does_not_work_is_said_and_what_works_is_not():
    test = rows(shares(own_language=0.9))
    cost = test.assign(cost=1.02)
    said = tables.failures(CASE, test, cost)
    assert not [line for line in said if line.startswith("DiffMean, own language")]
    assert len([line for line in said if "not beyond" in line]) == 2 * (len(METHODS) - 1)
    lost = test.assign(in_language=test["in_language"] & (test["method"] != "own language"))
    dear = cost.assign(cost=np.where(cost["method"] == "lda", 1.5, 1.0))
    said = tables.failures(CASE, lost, dear)
    assert "DiffMean, own language, towards formal: the language is lost, 0.00 in it" in str(said)
    assert "LDA, own language, towards formal: other text takes 1.50 times" in str(said)
    gone = test[test["method"] != "shared features"]
    assert "no direction at all" in str(tables.failures(CASE, gone, cost))


def test_the_table_has_every_method_with_its_control():
    test = rows(shares(own_language=0.9, wrong=0.4))
    choice = {(m, g): (3, 4.0) for m in (*METHODS, *CONTROLS) for g in CONCEPTS}
    page = tables.headline(CASE, test, test.assign(cost=1.1), choice)
    assert page.count("| formal |") == len(METHODS) + len(CONTROLS) + 1
    assert "towards formal: the other case's concept" in page
    assert "1.10 [1.10, 1.10]" in page


def test_the_matrix_is_the_rise_over_unsteered():
    plain = rows({"unsteered": 0.0})
    steered = rows({"from de": 1.0}).assign(fitted="de")
    steered = steered[steered["goal"] == "formal"]
    table = tables.matrix(steered, plain[plain["goal"] == "formal"])
    assert table["rise"].tolist() == [1.0, 1.0]
    assert table["n"].tolist() == [60, 60]


def test_shuffled_sides_exchange_pairs_and_nothing_else(polyglot):
    case = register_case(SETUPS["polyglot"], polyglot)
    part, dealt = case.corpus.split("estimate"), shuffled_sides(case, 0)
    exchanged = 0
    for lang in case.langs:
        a, b = f"informal@{lang}", f"formal@{lang}"
        for before, after in zip(
            zip(part[a], part[b], strict=True), zip(dealt[a], dealt[b], strict=True), strict=True
        ):
            assert set(before) == set(after)
            exchanged += before != after
    assert 0.4 < exchanged / (len(part) * len(case.langs)) < 0.6


def test_every_line_has_a_prompt_that_says_nothing_of_the_concept(polyglot):
    setup = SETUPS["polyglot"]
    register, gender = register_case(setup, polyglot), gender_case(setup, polyglot)
    numbers = register.numbers("test", 8)
    assert register.prompts("de", numbers, "") == register.prompts("fr", numbers, "")
    hinted = register.prompts("de", numbers, "Sir, ")
    assert all(text.startswith("Sir, ") for text in hinted)
    for lang in gender.langs:
        prompts = gender.prompts(lang, gender.numbers("test", None), "")
        assert len(prompts) == 84
        assert all(word_counts(text, lang, "gender") == (0, 0) for text in prompts)
