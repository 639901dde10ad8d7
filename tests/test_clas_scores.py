"""CLaS-Bench's averages, intervals and differences."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from steerlab.analysis.results import difference, result
from steerlab.core.errors import SteerlabError
from steerlab.studies.clas import (
    differences,
    scores,
    table,
)

# ------------------------------------------------------------------------------------------- scores


def answers(
    *told: tuple[str, str, bool, float], sentences: int = 40, method: str = "diffmean"
) -> pd.DataFrame:
    """Every question answered once in each way that is told: source, target, in its language,
    rating."""
    rows = [
        {
            "sentence": i,
            "source": source,
            "target": target,
            "in_language": inside,
            "rating": rating,
            "output": "x",
        }
        for i in range(sentences)
        for source, target, inside, rating in told
    ]
    found = pd.DataFrame(rows).assign(method=method)
    return found.assign(joint=found["in_language"] & (found["rating"] >= 1))


def test_s_is_no_mean_of_answers() -> None:
    """Half copies of the question and half gibberish have a high S, and not one answer is good."""
    halves = scores(answers(("en", "de", False, 1.0), ("en", "de", True, 0.0)))
    assert (halves["lfs"][0], halves["or"][0], halves["s"][0]) == (50, 50, 50)
    assert halves["joint"][0] == 0
    honest = scores(answers(("en", "de", True, 1.0), ("en", "de", False, 0.0)))
    assert (honest["s"][0], honest["joint"][0]) == (50, 50), (
        "the same averages, and half of the answers are good"
    )
    assert scores(answers(("en", "de", True, 1.0)))["s"][0] == 100
    assert scores(answers(("en", "de", False, 1.0)))["s"][0] == 0


def test_one_answer_of_2240_is_no_more_than_that() -> None:
    """A share below one percent is not taken for a fraction (the released helper makes 4.5 of
    it)."""
    rows = answers(("en", "bo", False, 1.0), sentences=2240)
    rows.loc[0, "in_language"] = True
    found = scores(rows)
    assert found["lfs"][0] == pytest.approx(100 / 2240)
    assert found["s"][0] == pytest.approx(2 * 100 / 2240 * 100 / (100 + 100 / 2240))


def test_unread_ratings_are_dropped_from_relevance_only_and_counted() -> None:
    told = [("en", "de", True, 1.0), ("en", "de", True, 0.5), ("en", "de", False, float("nan"))]
    found = scores(answers(*told))
    assert found["or"][0] == 75, "of the answers that have a rating"
    assert found["lfs"][0] == pytest.approx(200 / 3), "of all answers"
    assert found["s"][0] == pytest.approx(2 * 75 * (200 / 3) / (75 + 200 / 3))
    assert found["joint"][0] == pytest.approx(100 / 3), "an unread rating is no success"
    assert (found["n"], found["unread"]) == (120, 40)
    none = scores(answers(("en", "de", True, float("nan"))))
    assert none["lfs"][0] == 100
    assert np.isnan([none["or"][0], none["s"][0], none["joint"][0]]).all()
    with pytest.raises(SteerlabError, match="there are no answers to score"):
        scores(answers(("en", "de", True, 1.0))[:0])


def test_groups_are_averaged_before_they_are_combined() -> None:
    """Per target, per source and pooled are each the harmonic mean of their own averages, not
    means of one another."""
    told = [
        ("en", "de", True, 0.0),
        ("en", "fr", False, 1.0),
        ("de", "de", True, 1.0),
        ("de", "fr", True, 0.5),
    ]
    scored = table(answers(*told)).set_index(["group", "language"])["s"]
    by_hand = {
        ("pooled", ""): (3 / 4, 2.5 / 4),
        ("across", ""): (2 / 3, 1.5 / 3),
        ("source", "en"): (1 / 2, 1 / 2),
        ("source", "de"): (1.0, 1.5 / 2),
        ("target", "de"): (1.0, 1 / 2),
        ("target", "fr"): (1 / 2, 1.5 / 2),
    }
    for group, (lfs, relevance) in by_hand.items():
        assert scored[group] == pytest.approx(100 * 2 * lfs * relevance / (lfs + relevance)), group
    assert scored["pooled", ""] != pytest.approx(scored["target"].mean())


def test_intervals_resample_questions() -> None:
    """Ten copies of every answer say nothing new, ten times as many questions do."""
    random = np.random.default_rng(0)

    def rows(count: int) -> pd.DataFrame:
        made = answers(("en", "de", True, 1.0), sentences=count)
        made["in_language"], made["rating"] = (
            random.random(count) < 0.6,
            random.choice([0.0, 0.5, 1.0], count),
        )
        return made.assign(joint=made["in_language"] & (made["rating"] >= 1))

    few, many = rows(30), rows(300)
    copied = pd.concat([few] * 10)
    for name in ("lfs", "or", "s", "joint"):
        value, low, high = scores(few)[name]
        assert low < value < high
        assert scores(copied)[name] == pytest.approx([value, low, high])
        assert high - low > 1.5 * (scores(many)[name][2] - scores(many)[name][1])


def judged(seed: int, *, ratings: tuple[float, ...] = (0.0, 1.0), **columns: Any) -> pd.DataFrame:
    """Answers in two targets at random, with the columns that a table of the main study needs."""
    random = np.random.default_rng(seed)
    rows = answers(("en", "de", True, 1.0), ("en", "fr", True, 1.0), sentences=30)
    rows["in_language"], rows["rating"] = random.random(60) < 0.7, random.choice(ratings, 60)
    rows["joint"] = rows["in_language"] & (rows["rating"] >= 1)
    same: dict[str, Any] = {
        "operator": "add",
        "layer": 2,
        "strength": 1.0,
        "dose": 0.4,
        "repetition": 0.1,
    }
    found = rows.assign(relevant=rows["rating"] >= 1, bits_per_byte_ratio=1.0, **same)
    return found.assign(**columns)


@pytest.mark.parametrize("columns", [{}, {"in_language": False, "joint": False}])
def test_the_intervals_are_those_of_the_table(columns: dict[str, Any]) -> None:
    """Where every answer has a rating of 0 or 1, S and the rest are statistics of the main
    study."""
    rows = judged(1, **columns)
    found, told = scores(rows, seed=3), result(rows, seed=3)
    names = {"lfs": "lfs", "or": "relevance", "s": "score", "joint": "joint"}
    for name, other in names.items():
        assert found[name] == [100 * value for value in told[other]], name
    halves = judged(1, ratings=(0.0, 0.5, 1.0))
    assert scores(halves)["or"] != [100 * value for value in result(halves)["relevance"]]


def test_the_differences_are_those_of_the_table() -> None:
    a, b = judged(1), judged(2, method="unsteered")
    intervals = differences(pd.concat([a, b]), "diffmean", seed=3)["joint"]["intervals"]
    assert intervals["unsteered"] == difference(a, b, seed=3)["joint"]


def test_s_averages_lfs_over_all_answers_of_a_draw_and_relevance_over_the_rated_ones() -> None:
    rows = judged(4, ratings=(0.0, 0.5, 1.0, float("nan")))
    rows.loc[rows["sentence"] < 5, "rating"] = float("nan")
    random, spread = np.random.default_rng(0), []
    parts = [part for _, part in rows.groupby("sentence")]
    for _ in range(1000):
        drawn = pd.concat([parts[place] for place in random.integers(0, 30, 30)])
        lfs, relevance = drawn["in_language"].mean(), drawn["rating"].mean()
        spread.append(100 * 2 * lfs * relevance / (lfs + relevance))
    assert scores(rows)["s"][1:] == pytest.approx(np.quantile(spread, [0.025, 0.975]), abs=1.5)
    dropped = scores(rows[rows["rating"].notna()])
    assert dropped["s"][0] != pytest.approx(scores(rows)["s"][0]), "an unread answer counts in LFS"


def test_a_method_is_compared_on_the_same_questions() -> None:
    better = answers(("en", "de", True, 1.0), ("de", "de", False, 0.0))
    worse = answers(("en", "de", False, 1.0), ("de", "de", True, 1.0), method="unsteered")
    same = answers(("en", "de", True, 1.0), method="twin")
    found = differences(pd.concat([better, worse, same]), "diffmean")
    tests = found["joint"]["pairs"]["diffmean"]
    assert tests["unsteered"]["difference"] == 1, "pairs of one language with itself do not count"
    assert tests["unsteered"]["p_holm"] < 0.01
    assert (tests["twin"]["difference"], tests["twin"]["p"]) == (0, 1)
    assert found["in_language"]["intervals"]["unsteered"][0] == 1
    assert differences(better, "diffmean") == {}
