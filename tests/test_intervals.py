"""The intervals hold what they promise, need whole sentences to do so, and have width where
nothing varied."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm, t

from steerlab.analysis.clustered import harmonic
from steerlab.analysis.intervals import (
    by_sentence,
    harmonic_by_sentence,
    paired_difference,
    statistic_by_sentence,
)
from steerlab.analysis.sentences import SAME, strata_of
from steerlab.core.errors import SteerlabError

SENTENCES, LANGUAGES = 60, 8
ROWS = np.repeat(np.arange(SENTENCES), LANGUAGES)


def simulate(rng: np.random.Generator, mean: float = 0.4, strength: float = 2.0) -> np.ndarray:
    """Zeros and ones `[row]` where some sentences are easy in every language: a beta-binomial
    with this mean."""
    easy = rng.beta(mean * strength, (1 - mean) * strength, size=SENTENCES)
    return rng.random(len(ROWS)) < easy[ROWS]


def share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def near(hits: list[bool], rate: float) -> bool:
    """Whether this rate gives so many hits, but for one time in a thousand."""
    low, high = binom.ppf([5e-4, 1 - 5e-4], len(hits), rate)
    return bool(low <= sum(hits) <= high)


def test_the_interval_covers_the_truth_and_resampling_rows_does_not() -> None:
    rng = np.random.default_rng(0)
    samples = [simulate(rng) for _ in range(400)]
    by_whole = [by_sentence(values, ROWS, resamples=300) for values in samples]
    by_row = [by_sentence(values, np.arange(len(ROWS)), resamples=300) for values in samples]
    assert near([low <= 0.4 <= high for _, low, high in by_whole], 0.95)
    assert share([low <= 0.4 <= high for _, low, high in by_row]) < 0.8


def test_languages_without_common_sentences_are_drawn_within_each() -> None:
    """Easy and hard languages: which ones were read is no accident, and drawing over them all
    would widen it."""
    rng, easy = np.random.default_rng(8), np.repeat([0.05, 0.35, 0.65, 0.95], 20)
    rows, strata = np.repeat(np.arange(80), 3), np.repeat(np.arange(80) // 20, 3)
    within, over, widths = [], [], []
    for _ in range(300):
        chance = rng.beta(4 * easy, 4 * (1 - easy))
        values = rng.random(len(rows)) < chance[rows]
        (_, low, high), (_, least, most) = (
            by_sentence(values, rows, strata=kinds, resamples=300) for kinds in (strata, None)
        )
        within.append(low <= 0.5 <= high)
        over.append(least <= 0.5 <= most)
        widths.append((high - low) / (most - least))
    assert near(within, 0.95)
    assert share(over) > 0.985
    assert np.mean(widths) < 0.75


def test_languages_that_share_sentences_are_one_stratum() -> None:
    values, languages = simulate(np.random.default_rng(9)), np.tile(np.arange(LANGUAGES), SENTENCES)
    plain = by_sentence(values, ROWS)
    assert by_sentence(values, ROWS, strata=languages) == plain
    kept = np.random.default_rng(10).random(len(ROWS)) < 0.7
    assert by_sentence(values[kept], ROWS[kept], strata=languages[kept]) == by_sentence(
        values[kept], ROWS[kept]
    )
    assert strata_of(np.array([7, 7, 3, 5, 5, 9]), np.array(list("abaccd"))) == (0, 1, 0, 2)
    own = ROWS % 2 * 1000 + ROWS, ROWS % 2  # two halves that share none
    assert by_sentence(values, own[0], strata=own[1]) != plain
    other = values[::-1]
    assert paired_difference(values, ROWS, other, ROWS, strata=languages) == paired_difference(
        values, ROWS, other, ROWS
    )
    assert harmonic_by_sentence(values, other, ROWS, strata=languages) == harmonic_by_sentence(
        values, other, ROWS
    )


def test_a_stratum_of_one_sentence_has_no_interval() -> None:
    values, sentences = np.array([0.0, 1, 1, 0, 1, 0.5]), np.arange(6)
    languages = np.array(list("aabbbc"))
    value, low, high = by_sentence(values, sentences, strata=languages)
    assert value == pytest.approx(values.mean())
    assert np.isnan([low, high]).all()
    assert np.isnan(harmonic_by_sentence(values, values, sentences, strata=languages)[1:]).all()
    assert np.isfinite(by_sentence(values[:5], sentences[:5], strata=languages[:5])).all()


def test_where_each_language_agrees_with_itself_the_interval_has_width() -> None:
    """Every output of one language is a hit and none of the other: not all sentences alike, and
    nothing to resample."""
    values, languages = np.repeat([1.0, 0.0], 30), np.repeat([0, 1], 30)
    value, low, high = by_sentence(values, np.arange(60), strata=languages)
    unseen = by_sentence(np.zeros(60), np.arange(60))[2]
    assert (value, low, high) == pytest.approx((0.5, 0.5 - unseen, 0.5 + unseen))
    alone = (
        0.5 * by_sentence(np.zeros(30), np.arange(30))[2]
    )  # one language wrong in all that it can be, the other right
    assert alone <= unseen


def test_the_paired_interval_covers_and_is_narrower_than_an_unpaired_one() -> None:
    rng = np.random.default_rng(1)
    hits, narrower = [], []
    for _ in range(200):
        easy = rng.beta(0.8, 1.2, size=SENTENCES)[ROWS]
        a, b = rng.random(len(ROWS)) < easy, rng.random(len(ROWS)) < easy / 2
        value, low, high = paired_difference(a, ROWS, b, ROWS, resamples=400)
        hits.append(low <= 0.2 <= high)
        _, a_low, a_high = by_sentence(a, ROWS, resamples=400)
        _, b_low, b_high = by_sentence(b, ROWS, resamples=400)
        narrower.append(high - low < np.hypot(a_high - a_low, b_high - b_low))
        assert value == pytest.approx(a.mean() - b.mean())
    assert 0.90 < share(hits) < 0.99
    assert share(narrower) > 0.95


def test_a_difference_of_nothing_holds_zero_and_of_something_does_not() -> None:
    rng = np.random.default_rng(2)
    a, b = simulate(rng, 0.5), simulate(rng, 0.5)
    _, low, high = paired_difference(a, ROWS, b, ROWS)
    assert low < 0 < high
    _, low, _ = paired_difference(simulate(rng, 0.8), ROWS, simulate(rng, 0.2), ROWS)
    assert low > 0.3


def test_the_vectorised_bootstrap_is_the_one_spelt_out() -> None:
    rng = np.random.default_rng(3)
    values, sentences = (
        rng.normal(size=200),
        rng.integers(25, size=200),
    )  # sentences with unequal numbers of rows
    names = np.unique(sentences)
    means = []
    for _ in range(3000):
        drawn = rng.choice(names, len(names))
        means.append(np.concatenate([values[sentences == name] for name in drawn]).mean())
    value, low, high = by_sentence(values, sentences, resamples=20000)
    assert value == pytest.approx(values.mean())
    # The tails of the expanded percentile interval, of 25 sentences.
    tail = norm.cdf(np.sqrt(25 / 24) * t.ppf(0.025, 24))
    assert (low, high) == pytest.approx(np.quantile(means, [tail, 1 - tail]), abs=0.015)
    assert high - low > np.ptp(np.quantile(means, [0.025, 0.975])) + 0.01


@pytest.mark.parametrize("outcome", [0, 1])
def test_where_nothing_varies_the_interval_is_clopper_pearsons_on_sentences(outcome: int) -> None:
    expected = binomtest(outcome * SENTENCES, SENTENCES).proportion_ci(0.95, method="exact")
    value, low, high = by_sentence(np.full(len(ROWS), bool(outcome)), ROWS)
    assert value == outcome
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert 0.05 < high - low < 0.07
    one_row_each = by_sentence(np.full(SENTENCES, outcome), np.arange(SENTENCES))
    assert one_row_each == pytest.approx((value, low, high)), "more languages must not narrow it"
    _, low90, high90 = by_sentence(np.full(len(ROWS), outcome), ROWS, level=0.9)
    assert 0 < high90 - low90 < high - low


def test_where_nothing_varies_a_difference_still_has_width() -> None:
    nothing, everything = np.zeros(len(ROWS)), np.ones(len(ROWS))
    unseen = by_sentence(nothing, ROWS)[2]
    assert paired_difference(nothing, ROWS, nothing, ROWS) == pytest.approx((0, -unseen, unseen))
    assert paired_difference(everything, ROWS, nothing, ROWS) == pytest.approx(
        (1, 1 - 2 * unseen, 1)
    )
    assert paired_difference(nothing, ROWS, everything, ROWS) == pytest.approx(
        (-1, -1, -1 + 2 * unseen)
    )


def test_constants_that_are_no_proportions_have_no_width_and_one_sentence_has_no_interval() -> None:
    assert by_sentence(np.full(len(ROWS), 1.3), ROWS) == pytest.approx((1.3, 1.3, 1.3))
    value, low, high = by_sentence(np.array([1.1, 1.5]), np.array([4, 4]))
    assert value == pytest.approx(1.3)
    assert np.isnan([low, high]).all()
    assert by_sentence(np.array([True, True]), np.array([4, 4])) == pytest.approx((1, 0.025, 1))


def test_a_side_may_have_more_rows_of_each_sentence() -> None:
    rng = np.random.default_rng(4)
    a, b = simulate(rng, 0.7), simulate(rng, 0.3)
    expected = paired_difference(a, ROWS, b, ROWS)
    assert paired_difference(a, ROWS, np.tile(b, 3), np.tile(ROWS, 3)) == pytest.approx(expected)
    with pytest.raises(SteerlabError, match="2 are on one side only \\(such as 0, 1\\)"):
        paired_difference(a, ROWS, b[ROWS > 1], ROWS[ROWS > 1])


def test_the_interval_of_the_harmonic_mean() -> None:
    rng = np.random.default_rng(5)
    truth, hits = harmonic(0.9, 0.4), []
    for _ in range(200):
        a, b = simulate(rng, 0.9), simulate(rng, 0.4)
        value, low, high = harmonic_by_sentence(a, b, ROWS, resamples=300)
        assert value == pytest.approx(harmonic(a.mean(), b.mean()))
        assert low < value < high
        hits.append(low <= truth <= high)
    assert share(hits) > 0.9


def test_half_copies_and_half_gibberish_win_the_harmonic_mean_and_no_joint_score() -> None:
    in_language = ROWS % 2 == 0
    relevant = ~in_language
    assert harmonic_by_sentence(in_language, relevant, ROWS)[0] == pytest.approx(0.5)
    assert by_sentence(in_language & relevant, ROWS)[0] == 0


def test_a_harmonic_mean_of_nothing_still_has_width() -> None:
    nothing, relevant = np.zeros(len(ROWS)), simulate(np.random.default_rng(6), 0.9)
    value, low, high = harmonic_by_sentence(nothing, relevant, ROWS)
    assert (value, low) == (0, 0)
    assert high == pytest.approx(
        harmonic(by_sentence(nothing, ROWS)[2], by_sentence(relevant, ROWS)[2])
    )
    assert high > 0.1


def test_a_score_that_some_rows_lack_leaves_the_other_whole() -> None:
    rng = np.random.default_rng(12)
    a, b, rated = (
        simulate(rng, 0.7),
        rng.choice([0, 0.5, 1.0], len(ROWS)),
        rng.random(len(ROWS)) < 0.6,
    )
    rated[ROWS < 3] = False
    value, low, high = harmonic_by_sentence(a, np.where(rated, b, np.nan), ROWS, has_b=rated)
    assert value == pytest.approx(harmonic(a.mean(), b[rated].mean()))
    assert low < value < high
    assert harmonic_by_sentence(a, b, ROWS, has_b=rated | True) == harmonic_by_sentence(a, b, ROWS)
    assert value != harmonic_by_sentence(a[rated], b[rated], ROWS[rated])[0]
    only = ROWS == 3  # one sentence of many has b: it shows no spread of b
    assert np.isnan(harmonic_by_sentence(a, b, ROWS, has_b=only)[1:]).all()
    # Beyond 0 and 1 sentences are drawn, and draws without a b have no value.
    some = ROWS < 12
    assert np.isfinite(harmonic_by_sentence(3 * a, b, ROWS, has_b=some)).all()
    nothing, given = np.zeros(len(ROWS)), harmonic_by_sentence(0 * ROWS, rated, ROWS, has_b=rated)
    high = harmonic(by_sentence(nothing, ROWS)[2], by_sentence(rated[rated], ROWS[rated])[2])
    assert given == pytest.approx((0, 0, high))


@pytest.mark.parametrize("own", [False, True])
def test_a_statistic_draws_the_sentences_of_by_sentence(own: bool) -> None:
    values, languages = 2 * simulate(np.random.default_rng(13)), ROWS % 2
    strata = languages if own else None
    sentences = ROWS + 1000 * languages if own else ROWS
    mean = by_sentence(values, sentences, strata=strata, resamples=200, seed=4)
    found = statistic_by_sentence(
        np.mean, [values], sentences, strata=strata, resamples=200, seed=4
    )
    assert found == pytest.approx(mean)
    other = statistic_by_sentence(
        np.mean, [values], sentences, strata=strata, resamples=200, seed=5
    )
    assert other != pytest.approx(mean)


def test_the_interval_of_a_correlation_covers_it_and_not_if_rows_are_drawn() -> None:
    """Eight rows of a sentence that say the same: as rows they look like eight times the
    evidence."""
    rng = np.random.default_rng(14)
    whole: list[bool] = []
    single: list[bool] = []
    correlation = lambda a, b: float(np.corrcoef(a, b)[0, 1])  # noqa: E731
    for _ in range(60):
        pair = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], SENTENCES)[ROWS].T
        for hits, sentences in ((whole, ROWS), (single, np.arange(len(ROWS)))):
            _, low, high = statistic_by_sentence(correlation, list(pair), sentences, resamples=100)
            hits.append(low <= 0.5 <= high)
    assert share(whole) > 0.8
    assert share(single) < 0.7


def test_draws_without_a_statistic_are_left_out() -> None:
    nan = lambda a: float("nan")  # noqa: E731
    value, low, high = statistic_by_sentence(nan, [ROWS], ROWS)
    assert np.isnan([value, low, high]).all()
    some = lambda a: a.mean() if a.max() == SENTENCES - 1 else float("nan")  # noqa: E731
    value, low, high = statistic_by_sentence(some, [ROWS], ROWS, resamples=50)
    assert low < value < high
    assert np.isnan(statistic_by_sentence(np.mean, [ROWS[:8]], ROWS[:8])[1:]).all(), "one sentence"
    with pytest.raises(SteerlabError, match=r"a column has shape \(3,\) and sentences \(4,\)"):
        statistic_by_sentence(np.mean, [ROWS[:3]], ROWS[:4])
    with pytest.raises(
        SteerlabError, match=r"b has shape \(4,\), has_b \(3,\) and sentences \(4,\)"
    ):
        harmonic_by_sentence(ROWS[:4], ROWS[:4], ROWS[:4], has_b=np.ones(3, bool))


@example([(0.0, 0)] * 7 + [(-3.7e-57, 1)])  # a share but for rounding
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 6)), min_size=8, max_size=40))
def test_order_of_rows_scale_and_shift(rows: list[tuple[float, int]]) -> None:
    values, sentences = (np.array(column) for column in zip(*rows, strict=True))
    if len(set(sentences.tolist())) < 2:
        return
    plain = np.array(by_sentence(values, sentences, resamples=100))
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    assert np.allclose(by_sentence(values[order], sentences[order], resamples=100), plain)
    assert plain[1] <= plain[2]
    between = [
        scaled.min() > -SAME and scaled.max() < 1 + SAME for scaled in (values, 2 * values + 3)
    ]
    if not any(between):  # values between 0 and 1 have a formula of their own
        assert np.allclose(by_sentence(2 * values + 3, sentences, resamples=100), 2 * plain + 3)


def test_the_seed_decides() -> None:
    values = 2 * simulate(np.random.default_rng(7))
    assert by_sentence(values, ROWS) == by_sentence(values, ROWS)
    assert by_sentence(values, ROWS, seed=1) != by_sentence(values, ROWS)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(SteerlabError, match=r"values have shape \(3,\) and sentences \(2,\)"):
        by_sentence(np.ones(3), np.arange(2))
    with pytest.raises(SteerlabError, match=r"interval of no rows.*check the filter"):
        by_sentence(np.ones(0), np.arange(0))
    with pytest.raises(
        SteerlabError,
        match=r"strata have shape \(2,\), sentences \(3,\): give one stratum for each row",
    ):
        by_sentence(np.ones(3), np.arange(3), strata=np.arange(2))
    with pytest.raises(SteerlabError, match="1 of 3 values are not finite: drop"):
        by_sentence(np.array([1.0, np.nan, 0.0]), np.arange(3))


def test_shares_are_told_and_not_guessed_from_values_that_lie_between_0_and_1() -> None:
    rng = np.random.default_rng(4)
    nats = rng.uniform(0.2, 0.8, 12)
    sentences = np.arange(12)
    as_numbers = by_sentence(nats, sentences)
    assert as_numbers == by_sentence(nats, sentences, share=False)
    assert as_numbers != by_sentence(nats, sentences, share=True)
    ones = np.ones(12)
    assert by_sentence(ones, sentences) == by_sentence(ones, sentences, share=True)
    assert by_sentence(ones, sentences)[1] < 0.8, "twelve successes of twelve"
    assert by_sentence(ones, sentences, share=False) == (1, 1, 1), "twelve times one nat"
    with pytest.raises(SteerlabError, match="shares lie between 0 and 1, and the values between"):
        by_sentence(3 * nats, sentences, share=True)
