"""Shares and means of clustered outputs, and their limits without resampling: clustered Wilson
intervals, of one share, of a difference of two and of their harmonic mean."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from steerlab.analysis.sentences import (
    SAME,
    Array,
    Floats,
    Table,
    gather,
    strata_of,
    student_quantile,
)
from steerlab.core.errors import SteerlabError

_ADDED = 0.05  # of a sentence, of successes and of failures each, in an effective sample size


def harmonic(a: float, b: float) -> float:
    """The harmonic mean 2ab / (a + b) of two averages; 0 if either is 0.

    Source: CLaS-Bench, whose score is that of language-forcing success and relevance.
    """
    if a <= 0 or b <= 0:
        return 0.0
    return float(2 * a * b / (a + b))


@dataclass(frozen=True)
class ClusteredMean:
    """A mean over rows with what its interval needs.

    Args:
        table: the rows by sentence.
        groups: the stratum of each sentence.
        value: the mean.
        influence: how much each sentence moves the mean, Σ (value - mean) / N over its rows,
            `[sentence]`.
        variance: of the mean, over sentences and seeds.
        freedom: the degrees of freedom of that variance.
        seeded: whether the rows are of several seeds of a control.
    """

    table: Table
    groups: tuple[int, ...]
    value: float
    influence: Floats
    variance: float
    freedom: float
    seeded: bool

    @property
    def share(self) -> bool:
        """Whether the mean is one of shares."""
        return self.table.share

    @property
    def unvaried(self) -> bool:
        """Whether no sentence differs from another of its stratum."""
        return self.variance <= SAME**2


def clustered_mean(
    values: Array,
    sentences: Array,
    *,
    share: bool | None = None,
    strata: Array | None = None,
    control_seeds: Array | None = None,
) -> ClusteredMean:
    """The mean of values `[row]` and its variance over sentences, and over the seeds of a control.

    Raises `SteerlabError` as `by_sentence` does.

    Args:
        values: numbers or booleans, `[row]`.
        sentences: the sentence of each, `[row]`.
        share: whether they are shares, as in `by_sentence`.
        strata: the language of each, `[row]`, or None.
        control_seeds: which of a control's seeds gave each, `[row]`, or None.
    """
    table = gather(values, sentences, share=share)
    return mean_of(table, values, sentences, strata_of(sentences, strata), control_seeds)


def mean_of(
    table: Table,
    values: Array,
    sentences: Array,
    groups: tuple[int, ...],
    control_seeds: Array | None,
) -> ClusteredMean:
    """The mean of rows that are gathered already."""
    value = table.mean()
    influence = (np.asarray(values, dtype=np.float64) - value) / len(values)
    variance, freedom, seeded = variance_of(influence, sentences, groups, control_seeds)
    by_sentences = (table.sums - value * table.rows) / table.rows.sum()
    return ClusteredMean(table, groups, value, by_sentences, variance, freedom, seeded)


def variance_of(
    influence: Floats, sentences: Array, groups: tuple[int, ...], control_seeds: Array | None
) -> tuple[float, float, bool]:
    """The variance of a mean, its degrees of freedom, and whether seeds are in it.

    Over sentences it is the linearised variance of a ratio, Σ_h n_h / (n_h - 1) Σ_i (e_i - e_h)²
    with e_i the influence of sentence i and n_h the sentences of stratum h; n - H degrees of
    freedom. With seeds it is that of two ways of clustering (Cameron, Gelbach and Miller 2011):
    V = V_sentence + max(0, V_seed - V_cell), where a cell is a sentence under one seed. With one
    seed for each sentence V_cell is V_sentence, so V is the larger of the two ways. The degrees of
    freedom are then Satterthwaite's, of V_sentence - V_cell with n - H and V_seed with one less
    than the seeds.

    Args:
        influence: of each row on the mean, `[row]`.
        sentences: the sentence of each row, `[row]`.
        groups: the stratum of each sentence.
        control_seeds: the seed of each row, `[row]`, or None.
    """
    _, sentence = np.unique(np.asarray(sentences), return_inverse=True)
    by_sentences = np.bincount(sentence, influence).astype(np.float64)
    variance = covariance(by_sentences, by_sentences, groups)
    freedom = float(len(groups) - len(set(groups)))
    if control_seeds is None:
        return variance, freedom, False
    if np.shape(control_seeds) != sentence.shape:
        raise SteerlabError(
            f"seeds have shape {np.shape(control_seeds)}, sentences {sentence.shape}: give the "
            "seed of each row"
        )
    names, seed = np.unique(np.asarray(control_seeds), return_inverse=True)
    if len(names) < 2:
        return variance, freedom, False
    # Which languages were read is no accident: their own means are taken out, as above.
    rows = np.bincount(sentence)
    strata = np.array(groups)
    share = np.bincount(strata, by_sentences) / np.bincount(strata, rows)
    centred = influence - share[strata[sentence]]
    seeds = np.bincount(seed, centred)
    over_seeds = float((seeds**2).sum()) * len(names) / (len(names) - 1)
    _, cell = np.unique(sentence * len(names) + seed, return_inverse=True)
    cells = np.bincount(cell, centred)
    over_cells = float((cells**2).sum()) * len(cells) / max(1, len(cells) - len(set(groups)))
    extra = over_seeds - over_cells
    if extra <= 0:
        return variance, freedom, True
    base = max(0.0, variance - over_cells)
    total = variance + extra
    parts = base**2 / max(freedom, 1.0) + over_seeds**2 / (len(names) - 1)
    return total, min(max(freedom, 1.0), total**2 / parts), True


def covariance(a: Floats, b: Floats, groups: tuple[int, ...]) -> float:
    """The covariance of two means by the influence of each sentence on them, `[sentence]`, within
    strata; 0 from a stratum of one sentence, whose interval is NaN anyway."""
    strata = np.array(groups)
    counts = np.bincount(strata)
    centred_a = a - (np.bincount(strata, a) / counts)[strata]
    centred_b = b - (np.bincount(strata, b) / counts)[strata]
    products = np.bincount(strata, centred_a * centred_b)
    return float((products * counts / np.maximum(counts - 1, 1)).sum())


def clustered_share(mean: ClusteredMean, *, level: float) -> tuple[float, float]:
    """Wilson's interval for a share p of clustered rows, (low, high).

    (p + a/2 ± t sqrt(p (1 - p) / n + a / 4n)) / (1 + a), a = t² / n, with the effective sample size
    n = p (1 - p) / V in place of the number of rows, and Student's t at the degrees of freedom of V
    in place of the normal z, as few sentences tell V badly (Korn and Graubard 1998; that it covers:
    Dean and Pagano 2015). The mean of any values between 0 and 1 has no more variance than a
    share's, so the formula holds for it too.

    Two or three successes in a few sentences say little about how they go together. So the
    effective size is computed with a twentieth of a sentence of successes and one of failures
    added, and for zeros and ones it lies between the number of sentences (Kish's, where they have
    unequal rows) and that of independent rows. This addition is this package's: docs/coverage.md
    shows what it does.
    """
    if 1 in Counter(mean.groups).values():
        return math.nan, math.nan
    table = mean.table
    p = mean.value
    count = table.count
    added = (p * count + _ADDED) / (count + 2 * _ADDED)
    extra = _ADDED * (added**2 + (1 - added) ** 2) / count / max(1, count - 1)
    size = added * (1 - added) / (mean.variance + extra)
    if table.binary:
        size = min(size, p * (1 - p) / _independent(table, mean.groups))
        if not mean.seeded:
            size = max(size, float(table.rows.sum() ** 2 / (table.rows**2).sum()))
    return _wilson(p, size, student_quantile(mean.freedom, level))


def _independent(table: Table, groups: tuple[int, ...]) -> float:
    """The variance that a share would have if rows were independent draws within strata:
    Σ_h N_h p_h (1 - p_h) / N²."""
    strata = np.array(groups)
    rows = np.bincount(strata, table.rows)
    shares = np.bincount(strata, table.sums) / rows
    return float((rows * shares * (1 - shares)).sum() / rows.sum() ** 2)


def _wilson(p: float, size: float, quantile: float) -> tuple[float, float]:
    """Wilson's score limits of a share p of `size` independent draws."""
    a = quantile**2 / size
    middle = (p + a / 2) / (1 + a)
    half = quantile * math.sqrt(p * (1 - p) / size + a / (4 * size)) / (1 + a)
    # Rounding may leave a limit just beyond the value or the range.
    return min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half))


def student_limits(
    value: float, variance: float, freedom: float, level: float
) -> tuple[float, float]:
    """Student's interval of a mean; NaN without a degree of freedom."""
    if freedom < 1:
        return math.nan, math.nan
    half = student_quantile(freedom, level) * math.sqrt(max(0.0, variance))
    return value - half, value + half


def student_difference(
    a: ClusteredMean, b: ClusteredMean, shared: float, level: float
) -> tuple[float, float]:
    """Student's interval of the difference of two means with this covariance."""
    if 1 in Counter(a.groups).values():
        return math.nan, math.nan
    return student_limits(a.value - b.value, *spread_of_difference(a, b, shared), level)


def spread_of_difference(a: ClusteredMean, b: ClusteredMean, shared: float) -> tuple[float, float]:
    """The variance of the difference of two means with this covariance, and its degrees of
    freedom."""
    variance = a.variance + b.variance - 2 * shared
    sentences = float(len(a.groups) - len(set(a.groups)))
    freedom = sentences
    # Satterthwaite's, where a side of few seeds is most of the variance.
    if variance > 0 and min(a.freedom, b.freedom) < sentences:
        parts = a.variance**2 / a.freedom + b.variance**2 / b.freedom
        freedom = min(sentences, (a.variance + b.variance) ** 2 / parts)
    return variance, freedom


def _limits_of_share(mean: ClusteredMean, level: float) -> tuple[float, float]:
    """The interval of one average: the exact one where nothing varies."""
    if mean.unvaried:
        return unseen_limits((mean,), mean.value, level=level, least=0.0)
    return clustered_share(mean, level=level)


def _together(a: ClusteredMean, b: ClusteredMean, shared: float) -> float:
    """The correlation of two averages by their covariance; 0 where one does not vary."""
    product = a.variance * b.variance
    if a.unvaried or b.unvaried or product <= 0:
        return 0.0
    return float(np.clip(shared / math.sqrt(product), -1, 1))


def _recovered(a: float, b: float, correlation: float) -> float:
    """sqrt(a² + b² - 2 r a b): the distance of a limit of a difference, by those of its parts."""
    return math.sqrt(max(0.0, a * a + b * b - 2 * correlation * a * b))


def difference_of_shares(
    a: ClusteredMean, b: ClusteredMean, shared: float, level: float
) -> tuple[float, float]:
    """The interval of the difference of two averages from those of the averages, (low, high).

    low = d - sqrt((a - a_low)² + (b_high - b)² - 2 r (a - a_low) (b_high - b)), and high likewise,
    with r the correlation of the two averages over sentences (Newcombe 1998, method 10; Zou and
    Donner 2008). It is no narrower than Student's interval of the sentences' differences, which
    covers better where r is badly known: of a handful of sentences.
    """
    correlation = _together(a, b, shared)
    a_low, a_high = _limits_of_share(a, level)
    b_low, b_high = _limits_of_share(b, level)
    difference = a.value - b.value
    below = _recovered(a.value - a_low, b_high - b.value, correlation)
    above = _recovered(a_high - a.value, b.value - b_low, correlation)
    low, high = student_difference(a, b, shared, level)
    if math.isnan(low) or math.isnan(below) or math.isnan(above):
        return math.nan, math.nan
    return max(-1.0, min(low, difference - below)), min(1.0, max(high, difference + above))


def harmonic_of_shares(
    a: ClusteredMean, b: ClusteredMean, shared: float, level: float
) -> tuple[float, float]:
    """The interval of 2 / (1/a + 1/b) from those of the two averages, (low, high).

    As in `difference_of_shares`, of the sum 1/a + 1/b, whose limits are those of a and b turned
    over (Donner and Zou 2012).
    """
    a_low, a_high = _limits_of_share(a, level)
    b_low, b_high = _limits_of_share(b, level)
    if math.isnan(a_low + b_low):
        return math.nan, math.nan
    if min(a.value, b.value) <= 0:
        return harmonic(a_low, b_low), harmonic(a_high, b_high)
    # A sum is the difference from the negative: the correlation changes sign.
    correlation = -_together(a, b, shared)
    total = 1 / a.value + 1 / b.value
    nearer = _recovered(1 / a.value - 1 / a_high, 1 / b.value - 1 / b_high, correlation)
    high = min(1.0, 2 / (total - nearer))
    low = 0.0
    if min(a_low, b_low) > 0:
        further = _recovered(1 / a_low - 1 / a.value, 1 / b_low - 1 / b.value, correlation)
        low = 2 / (total + further)
    return low, high


def unseen_limits(
    means: tuple[ClusteredMean, ...], value: float, *, level: float, least: float
) -> tuple[float, float]:
    """Where nothing varies, what sentences that were not seen could still change, (low, high).

    With n sentences that agree, at most a share u = 1 - ((1 - level) / 2)^(1/n) of all sentences
    differs from them (Clopper-Pearson's limit for 0 of n). At worst those give `least` or 1
    instead, in the stratum where that changes most: low = value - u (highest - least), high = value
    + u (1 - lowest), of the strata's own values. For a proportion of 0 or 1 this is the exact
    interval. It needs values between 0 and 1, so it is kept to zeros and ones.

    Args:
        means: the average; of a difference, those of both sides.
        value: the average itself, or the difference.
        level: of the interval.
        least: the smallest value that a sentence can give: 0, or -1 for a difference.
    """
    if all(mean.table.binary for mean in means):
        own = means[0].table.each
        if len(means) == 2:
            own = own - means[1].table.each
        unseen = 1 - ((1 - level) / 2) ** (1 / means[0].table.count)
        low = value - unseen * (own.max() - least)
        high = value + unseen * (1 - own.min())
        return max(float(low), least), min(float(high), 1.0)
    if 1 in Counter(means[0].groups).values():
        return math.nan, math.nan
    return value, value
