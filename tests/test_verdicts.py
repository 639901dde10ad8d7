"""The words of the page follow the adjusted p and the interval."""

import math

import pytest

from steerlab.studies.html.formats import Interval
from steerlab.studies.main.page.sentences import answer, families, families_note, verdict
from steerlab.studies.main.page.verdicts import LESS, MORE, NEITHER, relation

CLEAR = Interval(0.3, 0.2, 0.4)


@pytest.mark.parametrize(
    ("difference", "p", "interval", "words"),
    [
        (0.3, 0.01, None, MORE),
        (-0.3, 0.01, None, LESS),
        (0.3, 0.01, CLEAR, MORE),
        (-0.3, 0.01, Interval(-0.3, -0.4, -0.2), LESS),
        (0.3, 0.05, CLEAR, NEITHER),  # alpha itself does not pass
        (0.3, 0.6, CLEAR, NEITHER),
        (0.3, 0.01, Interval(0.3, 0.0, 0.6), NEITHER),  # 0 is not left out
        (-0.3, 0.01, Interval(-0.3, -0.6, 0.1), NEITHER),
        (0.0, 0.01, None, NEITHER),
        (0.3, math.nan, CLEAR, NEITHER),
    ],
)
def test_words_need_both_p_and_the_interval(
    difference: float, p: float, interval: Interval | None, words: str
) -> None:
    assert relation(difference, p, alpha=0.05, interval=interval) == words


def summary(*, p: float, best: float = 0.3) -> dict:
    test = {"difference": 0.25, "p_holm": p}
    return {
        "model": "m",
        "results": {
            "diffmean": {"joint": [0.3, 0.25, 0.35], "lfs": [0.9, 0.85, 0.95]},
            "lda": {"joint": [best, best - 0.05, best + 0.05], "lfs": [0.9, 0.85, 0.95]},
            "random": {"joint": [0.05, 0.02, 0.08], "lfs": [0.1, 0.05, 0.15]},
        },
        "differences": {"random": {"joint": [0.25, 0.2, 0.3], "lfs": [0.8, 0.75, 0.85]}},
        "tests": {
            "alpha": 0.05,
            "pairs": {
                "diffmean": {"random": test},
                "lda": {"diffmean": {"difference": best - 0.3, "p_holm": p}},
            },
        },
    }


def test_yes_needs_the_adjusted_p_beside_the_interval() -> None:
    assert verdict(summary(p=0.01)) == "Yes."
    # As four sentences have it: an interval far above the floor, and no test that could pass.
    assert (
        verdict(summary(p=0.25))
        == "The language, yes; its own sentence is not shown to be recognised."
    )
    untested = summary(p=0.01) | {"tests": {}}
    assert verdict(untested) == "Yes."


def test_the_best_method_is_called_better_only_where_a_test_says_so() -> None:
    for p, words in ((0.01, MORE), (0.3, NEITHER)):
        said = answer(summary(p=p, best=0.4))
        assert said is not None
        assert said.best is not None
        assert (said.best.name, said.best.relation, said.best.p) == ("LDA", words, p)
    untested = answer(summary(p=0.01, best=0.4) | {"tests": {}})
    assert untested is not None
    assert untested.best is not None
    assert untested.best.relation == ""


def test_families_are_more_only_where_they_are_more_than_every_other_vectors() -> None:
    def found(unigram: float, embedding: float) -> dict:
        tests = {
            "unigram": {"difference": 0.2, "gained": 2, "lost": 0, "p_holm": unigram},
            "embedding": {"difference": 0.2, "gained": 2, "lost": 0, "p_holm": embedding},
        }
        shares = {"nearest_neighbour": 0.9, "unigram_nearest_neighbour": 0.7}
        shares["embedding_nearest_neighbour"] = 0.7
        return {"families": {"layer": 2, "n": 12, "p": 0.001, "beyond": tests} | shares}

    assert "no more than the tokens" not in families_note(found(0.01, 0.04))
    assert "no more than the tokens" in families_note(found(0.01, 0.06))
    read = families(found(0.01, 0.06))
    assert read is not None
    assert [item.relation for item in read.beside] == [MORE, NEITHER]
    # A summary of an earlier version has no such tests, and nothing is claimed.
    older = found(0.01, 0.01)
    del older["families"]["beyond"]
    assert "more than" not in families_note(older)
    assert families_note({}) == ""
