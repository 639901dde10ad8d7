"""Is a difference more than chance: paired permutation tests by sentence, Holm's correction, and
what a test can see.

The unit is the sentence with all its outputs. Under the null hypothesis a sentence's difference
between two methods has either sign with equal chance; outputs of one sentence change sign together,
because they are no independent draws.

That is more than a mean of 0: it says that differences are symmetric. Where they are skewed (one
method wins much on a few sentences and loses a little on many) sign flips are exact no longer, only
nearly so for many sentences, as `sign_flips` says; `paired_test(..., studentised=True)` assumes no
symmetry. docs/coverage.md shows how often both reject what is no difference.

Signs of sentences take the seeds of a control as they are, and say nothing of other seeds. Where
the seeds of the rows are given, p is therefore at least that of Student's t over sentences and
seeds (`over_seeds`), whose variance is that of the intervals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from steerlab.analysis.clustered import (
    ClusteredMean,
    clustered_mean,
    covariance,
    spread_of_difference,
)
from steerlab.analysis.sentences import SAME, gather, matched
from steerlab.core.errors import SteerlabError

Array = NDArray[Any]

# Random sign flips of a test. With the observed signs they make 10,000, so that p is a multiple of
# 1 / 10,000. Where there are no more flips than this, all are taken.
DRAWS = 9_999
ALPHA = 0.05
POWER = 0.8
MOST_SENTENCES = 1_000_000  # that are looked at as an answer to how many would be needed
# Statistics that agree to so many digits are equal: sums of the same numbers in another order
# round differently.
_DIGITS = 12
_CHUNK = 1000  # draws that are made at once, to bound the memory


@dataclass(frozen=True)
class Paired:
    """The result of a paired test.

    Args:
        difference: the mean difference over sentences.
        p: two-sided, for a mean difference of 0.
        spread: the standard deviation of the sentences' differences.
        sentences: how many there are.
    """

    difference: float
    p: float
    spread: float
    sentences: int


@dataclass(frozen=True)
class Clustering:
    """How strongly outputs of one sentence go together.

    Args:
        intraclass: the correlation of two outputs of a sentence.
        design: the design effect: how many times larger this makes the variance of the mean.
        effective: how many independent outputs would say as much.
    """

    intraclass: float
    design: float
    effective: float


def paired_test(
    a_values: Array,
    a_sentences: Array,
    b_values: Array,
    b_sentences: Array,
    *,
    a_seeds: Array | None = None,
    b_seeds: Array | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    studentised: bool = False,
) -> Paired:
    """Whether a and b differ: a permutation test that flips the signs of sentences' differences.

    It assumes that under the null hypothesis differences are symmetric around 0 (`sign_flips`). The
    statistic is the mean over sentences, each counted once, of the difference of its two means.
    Raises `SteerlabError` for a sentence on one side only, and for fewer than two sentences.

    Args:
        a_values: the scores of one side, `[row]`.
        a_sentences: the sentence of each, `[row]`.
        b_values: the scores of the other side, with rows of its own.
        b_sentences: the sentence of each of these.
        a_seeds: which of a control's seeds gave each row of a, `[row]`: p then covers other seeds.
        b_seeds: the same of b. The seeds of two sides are taken to be different ones.
        draws: how many sign patterns to draw, unless there are no more than these.
        seed: decides the draws.
        studentised: take `studentised_bootstrap` instead, which needs no symmetry.
    """
    a, b = matched(a_values, a_sentences, b_values, b_sentences)
    # Each side's mean of a sentence first, so that ten seeds weigh no more than one.
    differences = a.each - b.each
    test = studentised_bootstrap if studentised else sign_flips
    p = test(differences, draws=draws, seed=seed)
    if a_seeds is not None or b_seeds is not None:
        first = clustered_mean(a_values, a_sentences, control_seeds=a_seeds)
        second = clustered_mean(b_values, b_sentences, control_seeds=b_seeds)
        p = max(p, over_seeds(first, second))
    return Paired(
        difference=float(differences.mean()),
        p=p,
        spread=float(differences.std(ddof=1)),
        sentences=len(differences),
    )


def sign_flips(
    differences: Float[np.ndarray, " sentence"], *, draws: int = DRAWS, seed: int = 0
) -> float:
    """The two-sided p-value of a mean difference of 0, by flipping signs.

    It is the share of sign patterns whose mean is at least as far from 0 as the observed one. All
    2^n patterns are taken where they are no more than `draws`; else p = (1 + count) / (1 + draws)
    of random ones, which never rejects too often (Phipson and Smyth, 2010).

    The level is exact if differences are symmetric around 0. If only their mean is 0 it is right in
    the limit of many sentences: flips leave Σ d² as it is, so the mean orders the patterns exactly
    as Student's t does, and this test *is* the studentised one, for which that holds (Janssen 1997;
    Chung and Romano 2013). Raises `SteerlabError` for fewer than two differences, and for values
    that are not finite.
    """
    from scipy.stats import permutation_test

    _need_differences(differences)

    def distance(values: Array, axis: int) -> Any:
        return np.abs(np.round(values.mean(axis), _DIGITS))

    # "samples" of one sample flips signs. The distance from 0 makes the one-sided test of it
    # two-sided.
    test = permutation_test(
        (differences,),
        distance,
        n_resamples=draws,
        permutation_type="samples",
        vectorized=True,
        alternative="greater",
        rng=seed,
    )
    return float(test.pvalue)


def over_seeds(a: ClusteredMean, b: ClusteredMean) -> float:
    """The two-sided p-value of no difference by Student's t, over sentences and a control's seeds.

    The variance is that of two ways of clustering and the degrees of freedom Satterthwaite's, as
    the intervals have them (`clustered.variance_of`). 0, which decides nothing, where neither side
    is of several seeds or nothing varies.
    """
    from scipy.special import stdtr

    if not (a.seeded or b.seeded):
        return 0.0
    shared = covariance(a.influence, b.influence, a.groups)
    variance, freedom = spread_of_difference(a, b, shared)
    if variance <= SAME**2:
        return 0.0
    return float(2 * stdtr(freedom, -abs(a.value - b.value) / math.sqrt(variance)))


def studentised_bootstrap(
    differences: Float[np.ndarray, " sentence"], *, draws: int = DRAWS, seed: int = 0
) -> float:
    """The two-sided p-value of a mean difference of 0, by a studentised bootstrap.

    Differences less their mean are drawn with replacement; a draw gives t = mean / (s / sqrt(n)). p
    is twice the smaller share of draws on either side of the observed t, itself counted (Efron's
    bootstrap-t, 1981; Hall 1988). Nothing has to be symmetric, and each tail has its own quantile.
    Of a few sentences that take few values it is rough: a draw without spread counts as beyond any
    t. Raises `SteerlabError` as `sign_flips` does.
    """
    _need_differences(differences)
    count = len(differences)
    rounded = np.round(differences, _DIGITS)
    if not np.ptp(rounded):
        # Without spread there is no t: all agree that there is no difference, or that there is one.
        # Then p is that of all signs alike.
        return 1.0 if not rounded[0] else min(1.0, max(2.0 ** (1 - count), 1 / (1 + draws)))
    observed = _student(rounded[None])[0]
    centred = rounded - rounded.mean()
    random = np.random.default_rng(seed)
    drawn = np.empty(draws)
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        index = random.integers(count, size=(size, count))
        drawn[start : start + size] = _student(centred[index])
    above = 1 + int((drawn >= observed).sum() + np.isnan(drawn).sum())
    below = 1 + int((drawn <= observed).sum() + np.isnan(drawn).sum())
    return min(1.0, 2 * min(above, below) / (1 + draws))


def _student(samples: Float[np.ndarray, "draw sentence"]) -> Float[np.ndarray, " draw"]:
    """Student's t of each draw; NaN where it has no spread."""
    count = samples.shape[1]
    spread = samples.std(axis=1, ddof=1) / math.sqrt(count)
    spread[spread <= 10.0**-_DIGITS] = math.nan
    statistic: Array = samples.mean(axis=1) / spread
    return statistic


def _need_differences(differences: Float[np.ndarray, " sentence"]) -> None:
    """Raise `SteerlabError` for fewer than two differences and for values that are not finite."""
    if len(differences) < 2:
        raise SteerlabError(
            f"a paired test needs two sentences or more, it was given {len(differences)}: one has "
            "either sign by chance"
        )
    if not np.isfinite(differences).all():
        raise SteerlabError(
            "a paired test needs finite differences; drop the sentences without a score on either "
            "side"
        )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of a family of p-values, in their order.

    Those below alpha afterwards hold together: the chance of even one false one is below alpha. Of
    m sorted p-values the k-th from 0 becomes max over j <= k of (m - j) p_j, at most 1 (Holm 1979).
    Raises `SteerlabError` for an empty family, and for numbers that are no p-values.
    """
    if not len(p_values):
        raise SteerlabError(
            "Holm's correction was given no p-values; a family has one comparison or more"
        )
    bad = [p for p in p_values if not 0 <= p <= 1]
    if bad:
        raise SteerlabError(
            f"{bad[0]} is no p-value: a family is corrected once every one lies between 0 and 1"
        )
    p = np.array(p_values, dtype=float)
    order = np.argsort(p_values)
    steps = np.arange(len(p), 0, -1) * p[order]
    # A larger p cannot become smaller than one before it: hence the running maximum.
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in adjusted]


def detectable(
    spread: float, sentences: int, *, family: int = 1, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The smallest difference that a paired test of this many sentences sees with this power.

    δ = (t_{1 - alpha / 2m} + t_{power}) · s / sqrt(n), with Student's quantiles at n - 1 degrees of
    freedom, s the standard deviation of the sentences' differences, m the number of comparisons in
    the family: alpha / m is Holm's first step, later ones widen it less. NaN without spread,
    infinite where n is so small that not even 2^(1 - n), the least p of all sign patterns, is below
    alpha / m. Too hopeful where most sentences do not differ at all. Raises `SteerlabError` for
    fewer than two sentences, or less than one comparison.

    Args:
        spread: s, the standard deviation of the sentences' differences.
        sentences: n.
        family: m, the number of comparisons that are corrected together.
        alpha: the level of the test.
        power: the chance of seeing such a difference.
    """
    from scipy.stats import t

    if sentences < 2 or family < 1:
        raise SteerlabError(
            f"power is that of 2 sentences and 1 comparison or more, not of {sentences} and "
            f"{family}"
        )
    if not spread > 0:
        return math.nan
    if 2.0 ** (1 - sentences) > alpha / family:
        return math.inf
    # Upper quantiles: of the two-sided level of one comparison, and of the chance of a miss.
    quantiles = t.isf([alpha / family / 2, 1 - power], sentences - 1)
    return float(quantiles.sum() * spread / math.sqrt(sentences))


def sentences_needed(
    difference: float, spread: float, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The fewest sentences with which a paired test sees this difference with this power.

    It is the least n for which `detectable(spread, n)` is no larger than the difference; infinite
    for no difference and where `MOST_SENTENCES` do not do, NaN without spread. A difference that
    was observed stands for the true one here, so read the number as an order of magnitude.

    Args:
        difference: the mean difference over sentences.
        spread: the standard deviation of the sentences' differences.
        alpha: the level of the test, which is one alone.
        power: the chance of seeing the difference.
    """

    def seen(sentences: int) -> bool:
        return detectable(spread, sentences, alpha=alpha, power=power) <= abs(difference)

    if not spread > 0:
        return math.nan
    if not difference or not seen(MOST_SENTENCES):
        return math.inf
    few, enough = 1, MOST_SENTENCES  # what is seen with n is seen with more
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if seen(middle) else (middle, enough)
    return float(enough)


def clustering(values: Array, sentences: Array) -> Clustering:
    """The intraclass correlation of outputs by sentence, from a one-way analysis of variance.

    With mean squares B between and W within k sentences of n_i outputs (N in all):
    ρ = (B - W) / (B + (n_0 - 1) W), n_0 = (N - Σ n_i² / N) / (k - 1); design effect
    1 + (Σ n_i² / N - 1) ρ, and no less than 1 (Donner and Koval, 1980; Kish, 1965). NaN where
    nothing varies or no sentence has two outputs. `values [row]` are scores, `sentences [row]` the
    sentence of each.
    """
    table = gather(values, sentences)
    total = float(table.rows.sum())  # N
    count = table.count  # k
    # One sentence has no variance between; with one output each there is none within.
    if count < 2 or total == count:
        return Clustering(math.nan, math.nan, math.nan)
    size = float((table.rows**2).sum()) / total  # Σ n_i² / N
    typical = (total - size) / (count - 1)  # n_0
    between = float((table.rows * (table.each - table.mean()) ** 2).sum()) / (count - 1)
    # The sum of squares within is all of it less that of the sentences' means; rounding can leave
    # it just below zero.
    squares = float((np.asarray(values, dtype=np.float64) ** 2).sum())
    squares_within = max(0.0, squares - float((table.rows * table.each**2).sum()))
    within = squares_within / (total - count)
    # Nothing varies: the correlation would be 0 / 0.
    if between + within <= 10**-_DIGITS:
        return Clustering(math.nan, math.nan, math.nan)
    intraclass = (between - within) / (between + (typical - 1) * within)
    design = max(1.0, 1 + (size - 1) * intraclass)
    return Clustering(intraclass=intraclass, design=design, effective=total / design)
