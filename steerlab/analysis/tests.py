"""Is a difference more than chance: paired permutation tests by sentence, Holm's correction, and
what a test can see.

The unit is the sentence with all its outputs. Under the null hypothesis a sentence's difference
between two methods has either sign with equal chance; outputs of one sentence change sign together,
because they are no independent draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from steerlab.analysis.intervals import gather, matched
from steerlab.core.errors import SteerlabError

Array = NDArray[Any]

DRAWS = 9_999  # sign flips of a test; as many or fewer possible ones are all taken
ALPHA, POWER = 0.05, 0.8
_DIGITS = 12  # statistics that agree so far are equal: sums of the same numbers in another order


@dataclass(frozen=True)
class Paired:
    """A paired test: the mean difference of `sentences` sentences, its two-sided p, their
    standard deviation."""

    difference: float
    p: float
    spread: float
    sentences: int


@dataclass(frozen=True)
class Clustering:
    """How far outputs of one sentence go together.

    `intraclass`: the correlation of two outputs of a sentence; `design`: how many times larger it
    makes the variance of the mean; `effective`: how many independent outputs would say as much.
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
    draws: int = DRAWS,
    seed: int = 0,
) -> Paired:
    """Do a and b differ: a test by flipping the signs of the sentences' differences of means.

    `*_values [row]` and `*_sentences [row]` as in `intervals.paired_difference`: the same sentences
    on both sides, each with any number of rows. The statistic is the mean over sentences, each
    counted once.
    """
    a, b = matched(a_values, a_sentences, b_values, b_sentences)
    differences = a.each - b.each
    p = sign_flips(differences, draws=draws, seed=seed)
    return Paired(float(differences.mean()), p, float(differences.std(ddof=1)), len(differences))


def sign_flips(
    differences: Float[np.ndarray, " sentence"], *, draws: int = DRAWS, seed: int = 0
) -> float:
    """The two-sided p-value of a mean difference of 0, by flipping signs.

    The share of sign patterns whose mean is at least as far from 0 as the observed: of all 2^n
    patterns where they are no more than `draws`, else (1 + count) / (1 + draws) of random ones,
    which keeps the test's level (Phipson and Smyth, 2010).
    """
    from scipy.stats import permutation_test

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

    def distance(values: Array, axis: int) -> Any:
        return np.abs(np.round(values.mean(axis), _DIGITS))

    told: dict[str, Any] = {
        "permutation_type": "samples",
        "vectorized": True,
        "alternative": "greater",
        "rng": seed,
    }
    return float(permutation_test((differences,), distance, n_resamples=draws, **told).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in their order: below alpha holds for
    the whole family.

    Of m sorted p-values the k-th from 0 becomes max over j <= k of (m - j) p_j, at most 1 (Holm
    1979).
    """
    if not len(p_values):
        raise SteerlabError(
            "Holm's correction was given no p-values; a family has one comparison or more"
        )
    if bad := [p for p in p_values if not 0 <= p <= 1]:
        raise SteerlabError(
            f"{bad[0]} is no p-value: a family is corrected once every one lies between 0 and 1"
        )
    p, order = np.array(p_values, dtype=float), np.argsort(p_values)
    steps = np.arange(len(p), 0, -1) * p[order]
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
    alpha / m. Too hopeful where most sentences do not differ at all.
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
    quantiles = t.isf([alpha / family / 2, 1 - power], sentences - 1)
    return float(quantiles.sum() * spread / math.sqrt(sentences))


def clustering(values: Array, sentences: Array) -> Clustering:
    """The intraclass correlation of outputs by sentence, from a one-way analysis of variance.

    `values [row]`, `sentences [row]`. With mean squares B between and W within k sentences of n_i
    outputs (N in all): ρ = (B - W) / (B + (n_0 - 1) W), n_0 = (N - Σ n_i² / N) / (k - 1); design
    effect 1 + (Σ n_i² / N - 1) ρ, and no less than 1 (Donner and Koval, 1980; Kish, 1965). NaN
    where nothing varies or no sentence has two outputs.
    """
    table = gather(values, sentences)
    total, count = float(table.rows.sum()), table.count
    if count < 2 or total == count:
        return Clustering(math.nan, math.nan, math.nan)
    size = float((table.rows**2).sum()) / total
    typical = (total - size) / (count - 1)
    between = float((table.rows * (table.each - table.mean()) ** 2).sum()) / (count - 1)
    squares = float((np.asarray(values, dtype=np.float64) ** 2).sum())
    within = max(0.0, squares - float((table.rows * table.each**2).sum())) / (total - count)
    if between + within <= 10**-_DIGITS:
        return Clustering(math.nan, math.nan, math.nan)
    intraclass = (between - within) / (between + (typical - 1) * within)
    design = max(1.0, 1 + (size - 1) * intraclass)
    return Clustering(intraclass, design, total / design)
