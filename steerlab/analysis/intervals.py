"""Confidence intervals by sentence: what one sentence gives in every language stays together.

A sentence that is hard in Spanish is hard in Portuguese too, so its outputs are no independent
draws; in the words of statistics, sentences are the clusters. Where languages share their sentences
(parallel text), whole sentences vary. Where they share none (questions of their own for each
language), sentences vary within each language: which languages were read is no accident, and their
differences must not widen the interval. `strata` names the language of each row and decides which
it is.

Shares and means of values between 0 and 1 have a formula (`clustered_share`); only other numbers
and statistics are resampled. What covers the truth how often is in docs/coverage.md.

Everywhere `[row]` is an axis of outputs, an `Interval` is (value, low, high), and

- `sentences [row]` names the sentence of each output;
- `strata [row]` names its language, or is None where all languages share their sentences;
- `resamples` is the number of draws, `seed` decides them, `level` is that of the interval.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from steerlab.core.errors import SteerlabError

Array = NDArray[Any]
Floats = NDArray[np.float64]
Interval = tuple[float, float, float]

_SAME = 1e-12  # what differs by less agrees: sums of the same numbers round differently
_ADDED = 0.05  # of a sentence, of successes and of failures each, in an effective sample size


def harmonic(a: float, b: float) -> float:
    """The harmonic mean 2ab / (a + b) of two averages; 0 if either is 0.

    Source: CLaS-Bench, whose score is that of language-forcing success and relevance.
    """
    if a <= 0 or b <= 0:
        return 0.0
    return float(2 * a * b / (a + b))


def named(name: str, interval: Interval) -> dict[str, float]:
    """An interval as columns of a table: `name`, `name_low`, `name_high`."""
    value, low, high = interval
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def by_sentence(
    values: Array,
    sentences: Array,
    *,
    strata: Array | None = None,
    control_seeds: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of the values with its interval: (value, low, high).

    Values between 0 and 1 get the clustered Wilson interval of `clustered_share`, in which nothing
    is drawn. Other numbers get the expanded percentile interval of sentences drawn with
    replacement, each with all its rows; or, with seeds of a control, Student's. Where all sentences
    agree (no output is relevant, or every one is) there is no spread: zeros and ones then get
    Clopper-Pearson's exact interval on the number of sentences. A single sentence, alone or in a
    stratum, shows no spread of other numbers: low and high are NaN. Raises `SteerlabError` for
    columns of different lengths, for no rows and for values that are not finite.

    Args:
        values: numbers or booleans, `[row]`.
        sentences: the sentence of each, `[row]`.
        strata: the language of each, `[row]`, to take sentences within languages that share none.
        control_seeds: which of a control's seeds gave each, `[row]`: the interval then covers other
            seeds too.
        resamples: how many draws.
        seed: decides the draws.
        level: of the interval.
    """
    mean = clustered_mean(values, sentences, strata=strata, control_seeds=control_seeds)
    if mean.unvaried:
        low, high = _unseen((mean,), mean.value, level=level, least=0.0)
    elif mean.share:
        low, high = clustered_share(mean, level=level)
    elif mean.seeded:
        low, high = _student(mean.value, mean.variance, mean.freedom, level)
    else:
        means = mean.table.means(_draws(mean.groups, resamples, seed))
        low, high = _percentiles(means, mean.groups, level)
    return mean.value, low, high


def paired_difference(
    a_values: Array,
    a_sentences: Array,
    b_values: Array,
    b_sentences: Array,
    *,
    strata: Array | None = None,
    a_seeds: Array | None = None,
    b_seeds: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """mean(a) - mean(b) with its interval, both sides of a sentence belonging together.

    Both sides need the same sentences, each with any number of rows: ten seeds of a control stand
    against one run of a method. Values between 0 and 1 get the interval of `_difference_of_shares`,
    others the expanded percentile interval of draws that take the same sentences on both sides, or
    with seeds Student's. Where all sentences agree, zeros and ones get what Clopper-Pearson's limit
    allows: that share of unseen sentences differs, each as much as two proportions can. Raises
    `SteerlabError` for a sentence on one side only, and as `by_sentence` does.

    Args:
        a_values: numbers or booleans of one side, `[row]`.
        a_sentences: the sentence of each, `[row]`.
        b_values: the same of the other side, with rows of its own.
        b_sentences: the sentence of each of these.
        strata: the language of each row of a, `[row]`, as in `by_sentence`.
        a_seeds: which of a control's seeds gave each row of a, `[row]`.
        b_seeds: the same of b. The seeds of two sides are taken to be different ones.
        resamples: how many draws.
        seed: decides the draws.
        level: of the interval.
    """
    table_a, table_b = matched(a_values, a_sentences, b_values, b_sentences)
    groups = strata_of(a_sentences, strata)
    a = _mean_of(table_a, a_values, a_sentences, groups, a_seeds)
    b = _mean_of(table_b, b_values, b_sentences, groups, b_seeds)
    difference = a.value - b.value
    shared = _covariance(a.influence, b.influence, groups)
    spread = _covariance(a.influence - b.influence, a.influence - b.influence, groups)
    unvaried = not a.seeded and not b.seeded and spread <= _SAME**2
    if unvaried or (a.unvaried and b.unvaried):
        low, high = _unseen((a, b), difference, level=level, least=-1.0)
    elif a.share and b.share:
        low, high = _difference_of_shares(a, b, shared, level)
    elif a.seeded or b.seeded:
        low, high = _student_difference(a, b, shared, level)
    else:
        draws = _draws(groups, resamples, seed)
        low, high = _percentiles(table_a.means(draws) - table_b.means(draws), groups, level)
    return difference, low, high


def harmonic_by_sentence(
    a: Array,
    b: Array,
    sentences: Array,
    *,
    has_b: Array | None = None,
    strata: Array | None = None,
    control_seeds: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The harmonic mean of mean(a) and mean(b) with its interval: (value, low, high).

    Each score is averaged over all its rows, then the two averages are combined, and so are their
    limits (`_harmonic_of_shares`). Where one average is 0, the limits are the harmonic means of the
    two averages' own. Scores beyond 0 and 1 get the expanded percentile interval of sentences drawn
    with replacement, which knows no seeds of a control.

    Args:
        a: one score, `[row]`.
        b: the other score of the same rows, `[row]`.
        sentences: the sentence of each, `[row]`.
        has_b: where some rows have no second score, whether each has one, `[row]`. The others count
            in a's average only; a draw of sentences without any b has no value and is left out.
        strata: the language of each, `[row]`, as in `by_sentence`.
        control_seeds: which of a control's seeds gave each, `[row]`, as in `by_sentence`.
        resamples: how many draws.
        seed: decides the draws.
        level: of the interval.
    """
    a = np.asarray(a)
    b = np.asarray(b)
    sentences = np.asarray(sentences)
    with_b = np.ones(sentences.shape, bool) if has_b is None else np.asarray(has_b, bool)
    if not sentences.shape == b.shape == with_b.shape:
        raise SteerlabError(
            f"b has shape {b.shape}, has_b {with_b.shape} and sentences {sentences.shape}: give "
            "columns of the same rows"
        )
    mean_a = clustered_mean(a, sentences, strata=strata, control_seeds=control_seeds)
    mean_b = clustered_mean(
        b[with_b],
        sentences[with_b],
        strata=None if strata is None else np.asarray(strata)[with_b],
        control_seeds=None if control_seeds is None else np.asarray(control_seeds)[with_b],
    )
    value = harmonic(mean_a.value, mean_b.value)
    if mean_a.share and mean_b.share:
        # The influence of each row on both means, so that the variance of their sum tells how the
        # two go together, seeds included.
        both = (a - mean_a.value) / len(a)
        both[with_b] += (b[with_b] - mean_b.value) / with_b.sum()
        variance, _, _ = _variance(both, sentences, mean_a.groups, control_seeds)
        shared = (variance - mean_a.variance - mean_b.variance) / 2
        low, high = _harmonic_of_shares(mean_a, mean_b, shared, level)
        return value, low, high
    # b's rows among all sentences, so that a draw of sentences is one for both scores.
    spread_b = mean_b.table.among(mean_a.table.sentences)
    draws = _draws(mean_a.groups, resamples, seed)
    draws = draws[draws @ spread_b.rows > 0]  # a draw without a second score has no value
    values = []
    for draw_a, draw_b in zip(mean_a.table.means(draws), spread_b.means(draws), strict=True):
        values.append(harmonic(draw_a, draw_b))
    low, high = _percentiles(np.array(values), mean_a.groups, level)
    return value, low, high


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

    table: "Table"
    groups: tuple[int, ...]
    value: float
    influence: Floats
    variance: float
    freedom: float
    seeded: bool

    @property
    def share(self) -> bool:
        """Whether the mean is one of values between 0 and 1."""
        return self.table.bounded

    @property
    def unvaried(self) -> bool:
        """Whether no sentence differs from another of its stratum."""
        return self.variance <= _SAME**2


def clustered_mean(
    values: Array,
    sentences: Array,
    *,
    strata: Array | None = None,
    control_seeds: Array | None = None,
) -> ClusteredMean:
    """The mean of values `[row]` and its variance over sentences, and over the seeds of a control.

    Raises `SteerlabError` as `by_sentence` does, whose arguments these are.
    """
    table = gather(values, sentences)
    return _mean_of(table, values, sentences, strata_of(sentences, strata), control_seeds)


def _mean_of(
    table: "Table",
    values: Array,
    sentences: Array,
    groups: tuple[int, ...],
    control_seeds: Array | None,
) -> ClusteredMean:
    """The mean of rows that are gathered already."""
    value = table.mean()
    influence = (np.asarray(values, dtype=np.float64) - value) / len(values)
    variance, freedom, seeded = _variance(influence, sentences, groups, control_seeds)
    by_sentences = (table.sums - value * table.rows) / table.rows.sum()
    return ClusteredMean(table, groups, value, by_sentences, variance, freedom, seeded)


def _variance(
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
    variance = _covariance(by_sentences, by_sentences, groups)
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


def _covariance(a: Floats, b: Floats, groups: tuple[int, ...]) -> float:
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
    return _wilson(p, size, _quantile(mean.freedom, level))


def _independent(table: "Table", groups: tuple[int, ...]) -> float:
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


def _quantile(freedom: float, level: float) -> float:
    """Student's two-sided quantile."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def _student(value: float, variance: float, freedom: float, level: float) -> tuple[float, float]:
    """Student's interval of a mean; NaN without a degree of freedom."""
    if freedom < 1:
        return math.nan, math.nan
    half = _quantile(freedom, level) * math.sqrt(max(0.0, variance))
    return value - half, value + half


def _student_difference(
    a: ClusteredMean, b: ClusteredMean, shared: float, level: float
) -> tuple[float, float]:
    """Student's interval of the difference of two means with this covariance."""
    if 1 in Counter(a.groups).values():
        return math.nan, math.nan
    variance = a.variance + b.variance - 2 * shared
    sentences = float(len(a.groups) - len(set(a.groups)))
    freedom = sentences
    # Satterthwaite's, where a side of few seeds is most of the variance.
    if variance > 0 and min(a.freedom, b.freedom) < sentences:
        parts = a.variance**2 / a.freedom + b.variance**2 / b.freedom
        freedom = min(sentences, (a.variance + b.variance) ** 2 / parts)
    return _student(a.value - b.value, variance, freedom, level)


def _limits_of_share(mean: ClusteredMean, level: float) -> tuple[float, float]:
    """The interval of one average: the exact one where nothing varies."""
    if mean.unvaried:
        return _unseen((mean,), mean.value, level=level, least=0.0)
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


def _difference_of_shares(
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
    low, high = _student_difference(a, b, shared, level)
    if math.isnan(low) or math.isnan(below) or math.isnan(above):
        return math.nan, math.nan
    return max(-1.0, min(low, difference - below)), min(1.0, max(high, difference + above))


def _harmonic_of_shares(
    a: ClusteredMean, b: ClusteredMean, shared: float, level: float
) -> tuple[float, float]:
    """The interval of 2 / (1/a + 1/b) from those of the two averages, (low, high).

    As in `_difference_of_shares`, of the sum 1/a + 1/b, whose limits are those of a and b turned
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


def statistic_by_sentence(
    statistic: Callable[..., float],
    columns: Sequence[Array],
    sentences: Array,
    *,
    strata: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """A statistic that is no mean, such as a correlation, with its interval: (value, low, high).

    The sentences drawn are those of `by_sentence` with the same seed; the statistic is computed
    anew from all rows of each draw. Draws in which it is not defined (NaN) are left out; where it
    is not defined for the rows themselves, or a stratum has one sentence, low and high are NaN.

    Args:
        statistic: takes the columns, `[row]` each, and gives a number.
        columns: what the statistic is of, `[row]` each.
        sentences: the sentence of each row, `[row]`.
        strata: the language of each, `[row]`, as in `by_sentence`.
        resamples: how many draws.
        seed: decides the draws.
        level: of the interval.
    """
    arrays = [np.asarray(column) for column in columns]
    # `index [row]` numbers the sentences as the draws do.
    _, index = np.unique(np.asarray(sentences), return_inverse=True)
    wrong = [array.shape for array in arrays if array.shape != index.shape]
    if wrong:
        raise SteerlabError(
            f"a column has shape {wrong[0]} and sentences {index.shape}: give columns of the same "
            "rows"
        )
    value = float(statistic(*arrays))
    if not math.isfinite(value):
        return value, math.nan, math.nan
    groups = strata_of(sentences, strata)
    results = []
    for times in _draws(groups, resamples, seed):
        # Every row as often as its sentence was drawn: the statistic may be of any kind, so it
        # cannot be computed from sums.
        rows = np.repeat(np.arange(len(index)), times[index].astype(int))
        results.append(float(statistic(*(array[rows] for array in arrays))))
    values = np.array(results)
    values = values[np.isfinite(values)]
    if not len(values):
        return value, math.nan, math.nan
    low, high = _percentiles(values, groups, level)
    return value, low, high


@dataclass(frozen=True)
class Table:
    """Rows gathered by sentence, so that a draw of sentences is a product of matrices.

    Args:
        sentences: the distinct sentences, sorted, `[sentence]`.
        sums: the sum of each sentence's values, `[sentence]`.
        rows: how many rows each has, `[sentence]`.
        binary: whether all values are zeros and ones.
        bounded: whether all lie between 0 and 1.
    """

    sentences: Array
    sums: Floats
    rows: Floats
    binary: bool
    bounded: bool

    @property
    def count(self) -> int:
        """How many sentences there are."""
        return len(self.sentences)

    @property
    def each(self) -> Floats:
        """The mean of each sentence, `[sentence]`."""
        means: Floats = self.sums / self.rows
        return means

    def among(self, sentences: Array) -> "Table":
        """The same rows among more sentences, which are sorted too; new ones have no rows."""
        index = np.searchsorted(sentences, self.sentences)
        sums = np.zeros(len(sentences))
        sums[index] = self.sums
        rows = np.zeros(len(sentences))
        rows[index] = self.rows
        return Table(sentences, sums, rows, self.binary, self.bounded)

    def mean(self) -> float:
        """The mean over all rows."""
        return float(self.sums.sum() / self.rows.sum())

    def means(self, draws: Floats) -> Floats:
        """The mean over all rows of each draw, `[draw]`.

        `draws [draw sentence]` says how often each takes each sentence.
        """
        means: Floats = (draws @ self.sums) / (draws @ self.rows)
        return means


def gather(values: Array, sentences: Array) -> Table:
    """Gather values `[row]` by their sentences `[row]`.

    Raises `SteerlabError` for shapes that differ, for no rows and for values that are not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    labels = np.asarray(sentences)
    if numbers.ndim != 1 or labels.shape != numbers.shape:
        raise SteerlabError(
            f"an interval needs one sentence for each value; values have shape {numbers.shape} and "
            f"sentences {labels.shape}: give two columns of the same rows"
        )
    if not numbers.size:
        raise SteerlabError(
            "an interval of no rows was asked for; check the filter that left nothing"
        )
    if not np.isfinite(numbers).all():
        raise SteerlabError(
            f"{int((~np.isfinite(numbers)).sum())} of {numbers.size} values are not finite: drop "
            "those rows first, and say how many they were"
        )
    names, index = np.unique(labels, return_inverse=True)
    sums = np.bincount(index, numbers).astype(np.float64)
    rows = np.bincount(index).astype(np.float64)
    # A weighted sum of ones may be a little off 1, and is a one all the same.
    binary = bool((np.minimum(np.abs(numbers), np.abs(numbers - 1)) < _SAME).all())
    bounded = bool(numbers.min() > -_SAME and numbers.max() < 1 + _SAME)
    return Table(names, sums, rows, binary, bounded)


def matched(
    a_values: Array, a_sentences: Array, b_values: Array, b_sentences: Array
) -> tuple[Table, Table]:
    """Both sides of a comparison gathered by sentence.

    Raises `SteerlabError` for a sentence that is on one side only.

    Args:
        a_values: numbers or booleans of one side, `[row]`.
        a_sentences: the sentence of each, `[row]`.
        b_values: the same of the other side, with rows of its own.
        b_sentences: the sentence of each of these.
    """
    a = gather(a_values, a_sentences)
    b = gather(b_values, b_sentences)
    if not np.array_equal(a.sentences, b.sentences):
        lone = np.setxor1d(a.sentences, b.sentences)
        raise SteerlabError(
            f"a paired difference needs the same sentences on both sides; {len(lone)} are on one "
            f"side only (such as {', '.join(map(str, lone[:5]))}): keep the rows of the sentences "
            "that both have"
        )
    return a, b


def strata_of(sentences: Array, strata: Array | None) -> tuple[int, ...]:
    """The number of the stratum of each distinct sentence, in their order.

    Languages that share a sentence are one stratum. Parallel text is thus a single one, also where
    some rows are missing; a language with questions of its own is one by itself. Without strata all
    sentences are in one. Raises `SteerlabError` for columns of different lengths.
    """
    names, sentence_index = np.unique(np.asarray(sentences), return_inverse=True)
    if strata is None:
        return (0,) * len(names)
    if np.shape(strata) != sentence_index.shape:
        raise SteerlabError(
            f"strata have shape {np.shape(strata)}, sentences {sentence_index.shape}: give one "
            "stratum for each row"
        )
    langs, lang_index = np.unique(np.asarray(strata), return_inverse=True)
    # A graph of sentences and languages, with an edge for each row: its connected components are
    # the strata. Languages are numbered behind the sentences.
    size = len(names) + len(langs)
    ends = (sentence_index, len(names) + lang_index)
    edges = coo_array((np.ones(len(sentence_index)), ends), shape=(size, size))
    _, component = connected_components(edges, directed=False)
    return tuple(component[: len(names)].tolist())


# Cached, since a table asks for many intervals of the same sentences. The result is read-only, for
# all callers share it.
@lru_cache(maxsize=4)
def _draws(groups: tuple[int, ...], resamples: int, seed: int) -> Floats:
    """How often each draw takes each sentence, `[draw sentence]`: of each stratum, as many
    sentences as it has."""
    random = np.random.default_rng(seed)
    strata = np.array(groups)
    times = np.empty((resamples, len(groups)))
    for stratum in np.unique(strata):
        inside = strata == stratum
        count = int(inside.sum())
        # How often each of n sentences comes up in n draws with replacement.
        chances = np.full(count, 1 / count)
        times[:, inside] = random.multinomial(count, chances, size=resamples)
    times.setflags(write=False)
    return times


def _percentiles(values: Floats, groups: tuple[int, ...], level: float) -> tuple[float, float]:
    """The expanded percentile interval of what the draws gave.

    NaN where a stratum has a single sentence: every draw takes it, so its spread is not in them.
    """
    if 1 in Counter(groups).values() or not len(values):
        return math.nan, math.nan
    tails = expanded_tails(len(groups), len(set(groups)), level)
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def expanded_tails(sentences: int, strata: int, level: float) -> tuple[float, float]:
    """The quantiles of the expanded percentile interval, (low, high).

    A bootstrap's spread is too small by sqrt((n - 1) / n), and it has no t quantile: so the tails
    that are cut off are Φ(sqrt(n / (n - H)) t), with Student's lower quantile t at n - H degrees of
    freedom of n sentences in H strata, in place of (1 - level) / 2 (Hesterberg 2015, for H = 1).
    """
    from scipy.special import ndtr

    freedom = sentences - strata
    tail = float(ndtr(-math.sqrt(sentences / freedom) * _quantile(freedom, level)))
    return tail, 1 - tail


def _unseen(
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
