"""p is uniform when nothing differs, small when something does; a family keeps its level; power
is as said."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import binom, kstest

from steerlab.analysis.tests import (
    ALPHA,
    POWER,
    clustering,
    detectable,
    holm,
    paired_test,
    sentences_needed,
    sign_flips,
)
from steerlab.core.errors import SteerlabError

SENTENCES, LANGUAGES = 40, 8
ROWS = np.repeat(np.arange(SENTENCES), LANGUAGES)


def pair(
    rng: np.random.Generator, effect: float = 0.0, clustered: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Two methods' zeros and ones `[row]`; a sentence may suit one of them in all of its languages.

    The chance of a one is .5, `clustered` more or less by sentence and method; `effect` more for
    the first.
    """
    chances = [0.5 + rng.uniform(-clustered, clustered, SENTENCES)[ROWS] for _ in range(2)]
    a, b = (
        (rng.random(len(ROWS)) < chance).astype(float)
        for chance in (chances[0] + effect, chances[1])
    )
    return a, b


def within(hits: int, runs: int, rate: float) -> bool:
    """Whether so many hits of so many runs are what this rate gives, but for one time in ten
    thousand."""
    return bool(binom.ppf(5e-5, runs, rate) <= hits <= binom.ppf(1 - 5e-5, runs, rate))


# ----------------------------------------------------------------------------------------- the test


def test_p_is_uniform_when_nothing_differs_and_by_row_it_is_not() -> None:
    rng, by_sentence, by_row = np.random.default_rng(0), [], []
    for seed in range(250):
        a, b = pair(rng)
        by_sentence.append(paired_test(a, ROWS, b, ROWS, draws=199, seed=seed).p)
        by_row.append(
            paired_test(a, np.arange(len(ROWS)), b, np.arange(len(ROWS)), draws=199, seed=seed).p
        )
    assert kstest(by_sentence, "uniform").pvalue > 0.01
    assert within(sum(p <= ALPHA for p in by_sentence), 250, ALPHA)
    assert kstest(by_row, "uniform").pvalue < 1e-6, "rows of one sentence are no independent draws"
    assert sum(p <= ALPHA for p in by_row) > 2 * 250 * ALPHA


def test_p_is_small_for_a_planted_effect_and_smallest_by_sign() -> None:
    rng = np.random.default_rng(1)
    found = [
        paired_test(a, ROWS, b, ROWS, draws=999)
        for a, b in (pair(rng, 0.25, clustered=0.2) for _ in range(20))
    ]
    assert sum(test.p <= 0.01 for test in found) >= 18
    assert np.mean([test.difference for test in found]) == pytest.approx(0.25, abs=0.03)
    a, b = pair(rng, effect=0.2)
    assert paired_test(a, ROWS, b, ROWS).p == paired_test(b, ROWS, a, ROWS).p
    assert paired_test(a, ROWS, a - 1, ROWS, draws=999).p == 1 / 1000, (
        "(1 + count) / (1 + draws), never 0"
    )


def test_few_sentences_take_every_pattern_of_signs() -> None:
    rng = np.random.default_rng(2)
    differences = rng.integers(-4, 6, size=9) / 7  # thirds and sevenths tie only up to rounding
    means = [
        abs(round(float(np.mean(differences * signs)), 12)) for signs in product((1, -1), repeat=9)
    ]
    expected = np.mean([mean >= abs(round(float(differences.mean()), 12)) for mean in means])
    assert sign_flips(differences) == pytest.approx(expected)
    assert sign_flips(differences, seed=1) == sign_flips(differences), "nothing is drawn"
    assert sign_flips(differences, draws=400) == pytest.approx(expected, abs=0.1)
    assert sign_flips(differences, draws=400) != sign_flips(differences), "400 of 512 are drawn"
    assert sign_flips(np.ones(6)) == 2 / 2**6
    assert sign_flips(np.zeros(6)) == 1


def test_sides_may_have_any_number_of_rows_of_a_sentence() -> None:
    a, b = pair(np.random.default_rng(3), effect=0.1)
    plain = paired_test(a, ROWS, b, ROWS)
    order = np.random.default_rng(4).permutation(3 * len(ROWS))
    assert paired_test(a, ROWS, np.tile(b, 3)[order], np.tile(ROWS, 3)[order]) == plain
    ragged = np.append(b, [b[ROWS == 0].mean()] * 5), np.append(ROWS, [0] * 5)
    assert paired_test(a, ROWS, *ragged).p == plain.p
    assert plain.sentences == SENTENCES


def test_what_cannot_be_tested() -> None:
    a, b = pair(np.random.default_rng(5))
    with pytest.raises(
        SteerlabError, match="1 are on one side only \\(such as 39\\): keep the rows"
    ):
        paired_test(a, ROWS, b[ROWS < 39], ROWS[ROWS < 39])
    with pytest.raises(SteerlabError, match="needs two sentences or more, it was given 1"):
        paired_test(a[:8], ROWS[:8], b[:8], ROWS[:8])
    with pytest.raises(SteerlabError, match="of no rows was asked for; check the filter"):
        paired_test(a[:0], ROWS[:0], b[:0], ROWS[:0])
    with pytest.raises(SteerlabError, match="needs finite differences; drop the sentences"):
        sign_flips(np.array([0.1, np.nan, 0.2]))


# --------------------------------------------------------------------------------------- the family


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]


def test_holm_is_the_closed_test_of_bonferronis() -> None:
    """A hypothesis is rejected if Bonferroni rejects every subset of the family that holds it
    (Marcus et al. 1976)."""
    rng = np.random.default_rng(11)
    for size in (1, 2, 5, 7):
        p = np.round(rng.uniform(size=size) ** 3, 2)  # with ties, and zeros
        subsets = [
            list(of) for count in range(1, size + 1) for of in combinations(range(size), count)
        ]
        closed = [
            max(min(1, len(of) * p[of].min()) for of in subsets if one in of) for one in range(size)
        ]
        assert holm(p.tolist()) == pytest.approx(closed)
    assert holm([0.01, 0.04]) != pytest.approx([0.02, 0.08]), "the last step is no Bonferroni"


def test_holm_is_never_below_p_and_keeps_the_order() -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        p = rng.uniform(size=rng.integers(1, 30)) ** 3
        adjusted = np.array(holm(p.tolist()))
        assert (adjusted >= p).all()
        assert (adjusted <= 1).all()
        assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_holm_keeps_the_level_of_the_family_and_p_alone_does_not() -> None:
    """Eight methods of which none differs from the control that all share, so that the tests are
    correlated."""
    rng, raw, adjusted = np.random.default_rng(7), 0, 0
    for seed in range(120):
        control = rng.normal(size=SENTENCES)
        differences = rng.normal(size=(8, SENTENCES)) - control
        found = [sign_flips(one, draws=199, seed=seed) for one in differences]
        raw += min(found) <= ALPHA
        adjusted += min(holm(found)) <= ALPHA
    assert adjusted <= binom.ppf(0.9999, 120, ALPHA)
    assert raw > 3 * 120 * ALPHA


@pytest.mark.parametrize("bad", [[0.1, 1.2], [float("nan")], [-0.1]])
def test_holm_takes_p_values(bad: list[float]) -> None:
    with pytest.raises(SteerlabError, match="is no p-value: a family is corrected once"):
        holm(bad)
    with pytest.raises(SteerlabError, match="given no p-values; a family has one"):
        holm([])


# -------------------------------------------------------------------------------------------- power


@pytest.mark.parametrize("family", [1, 6])
def test_the_difference_said_to_be_seen_is_seen_as_often_as_said(family: int) -> None:
    rng, spread = np.random.default_rng(8), 0.3
    seen = detectable(spread, SENTENCES, family=family)
    shares = []
    for effect in (seen, seen / 2):
        p = [
            sign_flips(rng.normal(effect, spread, SENTENCES), draws=479, seed=seed)
            for seed in range(250)
        ]
        shares.append(sum(value <= ALPHA / family for value in p))
    assert within(shares[0], 250, POWER)
    assert shares[1] < 250 * 0.45, "half of it is seen far less often"


def test_power_grows_with_sentences_and_shrinks_with_the_family() -> None:
    z = 1.959964 + 0.841621
    assert detectable(0.3, 2000) == pytest.approx(z * 0.3 / 2000**0.5, rel=0.01)
    assert detectable(0.6, 48) == pytest.approx(2 * detectable(0.3, 48))
    assert detectable(0.3, 48) > detectable(0.3, 200)
    widened = [detectable(0.3, 48, family=family) for family in (1, 5, 35)]
    assert widened == sorted(widened)
    assert widened[2] == pytest.approx(1.5 * widened[0], rel=0.05)


def test_where_no_difference_can_be_seen() -> None:
    assert detectable(0.3, 5) == float("inf"), "2 of 32 patterns of signs are .0625"
    assert detectable(0.3, 6) < float("inf")
    assert detectable(0.3, 6, family=2) == float("inf")
    assert np.isnan(detectable(0.0, 48))
    with pytest.raises(SteerlabError, match="not of 1 and 1"):
        detectable(0.3, 1)
    with pytest.raises(SteerlabError, match="not of 48 and 0"):
        detectable(0.3, 48, family=0)


def test_so_many_sentences_see_the_difference_and_one_less_does_not() -> None:
    for difference in (0.4, -0.1, 0.02):
        needed = sentences_needed(difference, 0.3)
        assert detectable(0.3, int(needed)) <= abs(difference) < detectable(0.3, int(needed) - 1)
    # Four times as many for half of the difference, once they are many.
    ratio = sentences_needed(0.01, 0.3) / sentences_needed(0.02, 0.3)
    assert ratio == pytest.approx(4, rel=0.01)
    assert sentences_needed(5.0, 0.3) == 6, "fewer have no pattern of signs below alpha"


def test_no_number_of_sentences_sees_nothing() -> None:
    assert sentences_needed(0.0, 0.3) == float("inf")
    assert sentences_needed(1e-5, 0.3) == float("inf"), "more than a million"
    assert np.isnan(sentences_needed(0.1, 0.0))


# ---------------------------------------------------------------------------- outputs of a sentence


def test_the_intraclass_correlation_is_the_planted_one() -> None:
    """A beta-binomial with parameters a and b has 1 / (1 + a + b)."""
    rng, many = np.random.default_rng(9), np.repeat(np.arange(2000), LANGUAGES)
    values = rng.random(len(many)) < rng.beta(0.8, 1.2, 2000)[many]
    found = clustering(values, many)
    assert found.intraclass == pytest.approx(1 / 3, abs=0.02)
    assert found.design == pytest.approx(1 + 7 / 3, abs=0.15)
    assert found.effective == pytest.approx(len(many) / found.design)
    assert clustering(values, rng.permutation(many)).intraclass == pytest.approx(0, abs=0.02)


def test_the_design_effect_is_what_the_variance_of_the_mean_shows() -> None:
    rng = np.random.default_rng(10)
    samples = np.stack(
        [rng.random(len(ROWS)) < rng.beta(0.8, 1.2, SENTENCES)[ROWS] for _ in range(600)]
    )
    independent = samples.mean() * (1 - samples.mean()) / len(ROWS)
    said = np.mean([clustering(values, ROWS).design for values in samples])
    assert samples.mean(axis=1).var() / independent == pytest.approx(said, rel=0.2)


def test_outputs_that_are_one_or_all_alike() -> None:
    assert clustering(np.repeat([0.0, 1.0], 4), np.repeat([1, 2], 4)).intraclass == pytest.approx(1)
    assert clustering(np.repeat([0.0, 1.0], 4), np.repeat([1, 2], 4)).effective == pytest.approx(2)
    for values, sentences in (
        (np.ones(6), np.arange(6) // 2),
        (np.arange(6.0), np.arange(6)),
        (np.ones(3), np.ones(3)),
    ):
        assert np.isnan(clustering(values, sentences).effective)
