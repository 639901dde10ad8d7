"""A second opinion on languages: columns, agreement, and what happens without one."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from steerlab.analysis.results import result
from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError
from steerlab.scores import identifiers
from steerlab.scores.identifiers import (
    agreement_on_target,
    kappa_of_two,
    second_identifier,
    with_opinions,
)
from steerlab.scores.langid import Identifier, identifier

TEXTS = corpus(langs=["en", "de", "es"]).split("test")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Gold German and Spanish lines, the same cut to one word, and English in their place."""
    first = identifier()
    table = []
    for target in ("de", "es"):
        for sentence in range(12):
            gold = TEXTS[target][sentence]
            for output in (gold, gold.split()[0], TEXTS["en"][sentence]):
                row = {"target": target, "sentence": sentence, "output": output}
                table.append(row | {"relevant": sentence % 2 == 0})
    rows = pd.DataFrame(table)
    rows["language"] = first.identify(rows["output"].tolist())
    return rows.assign(in_language=rows["language"] == rows["target"])


def test_columns_are_those_of_both_identifiers(rows: pd.DataFrame) -> None:
    second = second_identifier(["en", "de", "es"])
    assert second is not None
    made = with_opinions({"a": rows, "b": rows.head(5)}, identifier(), second)
    whole = made["a"]
    languages, probabilities = identifier().weigh(rows["output"].tolist())
    assert whole["language_probability"].tolist() == pytest.approx(probabilities.tolist())
    expected = (np.array(languages) == rows["target"]) & (probabilities >= 0.5)
    assert whole["in_language_probable"].tolist() == expected.tolist()
    assert (whole["in_language"] & ~whole["in_language_probable"]).any(), "short ones are unsure"
    named = second.identify(rows["output"].tolist())
    assert whole["language_second"].tolist() == named
    assert whole["in_language_second"].tolist() == (rows["target"] == named).tolist()
    joint = whole["in_language_second"] & rows["relevant"]
    assert whole["joint_second"].tolist() == joint.tolist()
    pd.testing.assert_frame_equal(made["b"], whole.head(5))
    assert "language_second" not in rows, "the rows that were given stay as they are"


class Even(Identifier):
    """Names every text German, each with the same probability."""

    name, languages = "even", frozenset(["de"])

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def _weigh(self, lines: list[str]) -> list[tuple[str, float]]:
        return [("de", self.probability)] * len(lines)


def test_half_is_probable_and_less_is_not() -> None:
    row = {"output": "Ja.", "target": "de", "language": "de", "in_language": True, "relevant": True}
    rows = pd.DataFrame([row])
    for probability, probable in ((0.5, True), (0.499, False)):
        made = with_opinions({"a": rows}, Even(probability), None)["a"]
        assert made["in_language_probable"].tolist() == [probable]
        wrong = with_opinions({"a": rows.assign(in_language=False)}, Even(probability), None)["a"]
        assert wrong["in_language_probable"].tolist() == [False]


def test_summaries_have_the_shares_by_both(rows: pd.DataFrame) -> None:
    second = second_identifier(["en", "de", "es"])
    made = with_opinions({"a": rows}, identifier(), second)["a"].query("output != ''")
    facts: dict[str, Any] = {"operator": "add", "layer": 1, "strength": 1.0, "dose": 0.1}
    facts |= {"joint": made["in_language"] & made["relevant"]}
    found = result(made.drop_duplicates(["target", "sentence"]).assign(**facts))
    for key in ("lfs_probable", "lfs_second", "joint_second"):
        value, low, high = found[key]
        assert 0 <= low <= value <= high <= 1


def test_a_target_that_the_second_does_not_know_is_left_out(rows: pd.DataFrame) -> None:
    second = second_identifier(["en", "de"])
    made = with_opinions({"a": rows}, identifier(), second)["a"]
    unknown = made["target"] == "es"
    assert made.loc[unknown, ["in_language_second", "joint_second"]].isna().all().all()
    assert set(made.loc[~unknown, "in_language_second"]) == {0.0, 1.0}
    assert agreement_on_target([made])["n"] == (~unknown).sum()
    alone = made[unknown]
    assert agreement_on_target([alone]) == {}


def test_agreement_is_cohens_kappa_of_the_two_answers(rows: pd.DataFrame) -> None:
    second = second_identifier(["en", "de", "es"])
    made = with_opinions({"a": rows}, identifier(), second)["a"]
    found = agreement_on_target([made.head(30), made.tail(42)], resamples=50)
    expected = cohen_kappa_score(made["in_language"], made["in_language_second"])
    value, low, high = found["kappa"]
    assert value == pytest.approx(expected)
    assert low <= value <= high
    assert found["n"] == len(made)
    assert found["equal"] == (made["in_language"] == made["in_language_second"]).mean()
    counts = [count for _, _, count in found["pairs"]]
    assert counts == sorted(counts, reverse=True)
    differing = made[made["language"] != made["language_second"]]
    assert 0 < sum(counts) <= len(differing)


def test_kappa_by_hand() -> None:
    a, b = np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 0], bool)
    assert kappa_of_two(a, b) == pytest.approx((0.75 - 0.5) / 0.5)
    assert kappa_of_two(a, a) == 1
    assert kappa_of_two(a, ~a) == -1
    assert math.isnan(kappa_of_two(a | True, a | True))


def test_without_lingua_there_is_no_second(
    rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert second_identifier(["en"]) is None, "one language is no choice"
    assert second_identifier(["en", "xx"]) is None
    monkeypatch.setattr(identifiers, "find_spec", lambda name: None)
    assert second_identifier(["en", "de"]) is None
    made = with_opinions({"a": rows}, identifier(), None)["a"]
    assert "in_language_probable" in made
    assert "language_second" not in made
    assert agreement_on_target([made]) == {}


def test_rows_need_their_columns(rows: pd.DataFrame) -> None:
    with pytest.raises(SteerlabError, match="second opinion on languages needs the column 'releva"):
        with_opinions({"a": rows.drop(columns="relevant")}, identifier(), None)
