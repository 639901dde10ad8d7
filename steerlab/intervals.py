"""Confidence intervals by resampling sentences: what one sentence gives in every language stays together."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerlab.terms import SteerlabError

Array = NDArray[Any]
Floats = NDArray[np.float64]
Interval = tuple[float, float, float]

_SAME = 1e-12  # draws nearer than this agree, up to rounding


def harmonic(a: float, b: float) -> float:
    """The harmonic mean 2ab / (a + b) of two averages; 0 if either is 0 (CLaS-Bench's S of LFS and relevance)."""
    return float(2 * a * b / (a + b)) if a > 0 and b > 0 else 0.0


def by_sentence(
    values: Array, sentences: Array, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The mean of the values with its percentile bootstrap interval: (value, low, high).

    `values [row]`: finite numbers or booleans; `sentences [row]`: the sentence of each. Sentences are drawn with
    replacement, each with all its rows, and the rows of a draw are averaged. Where all sentences agree (no output is
    relevant, or every one is) there is no spread to resample: zeros and ones then get Clopper-Pearson's exact
    interval on the number of sentences. A single sentence of other numbers tells nothing: low and high are NaN.
    """
    table = _table(values, sentences)
    spread = table.means(_draws(table.count, resamples, seed))
    return table.mean(), *_limits(spread, table.mean(), (table,), level=level, least=0.0)


def paired_difference(
    a_values: Array,
    a_sentences: Array,
    b_values: Array,
    b_sentences: Array,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """mean(a) - mean(b), each draw taking the same sentences on both sides: (difference, low, high).

    Shapes as in `by_sentence`. Both sides need the same sentences (else it raises), each with any number of rows:
    ten seeds of a control stand against one run of a method. Where all sentences agree, zeros and ones get what
    Clopper-Pearson's limit allows: that share of unseen sentences differs, each as much as two proportions can.
    """
    a, b = _table(a_values, a_sentences), _table(b_values, b_sentences)
    if not np.array_equal(a.sentences, b.sentences):
        lone = np.setxor1d(a.sentences, b.sentences)
        raise SteerlabError(
            f"a paired difference needs the same sentences on both sides; {len(lone)} are on one side only "
            f"(such as {', '.join(map(str, lone[:5]))}): keep the rows of the sentences that both have"
        )
    draws = _draws(a.count, resamples, seed)
    difference = a.mean() - b.mean()
    spread = a.means(draws) - b.means(draws)
    return difference, *_limits(spread, difference, (a, b), level=level, least=-1.0)


def harmonic_by_sentence(
    a: Array, b: Array, sentences: Array, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The harmonic mean of mean(a) and mean(b) with its interval: (value, low, high).

    `a [row]` and `b [row]` are two scores of the same rows, of `sentences [row]`: each is averaged over all rows of
    a draw, then the two averages are combined. Where no draw differs from another (nothing is in the language), the
    limits are those of the two averages, combined.
    """
    tables = _table(a, sentences), _table(b, sentences)
    draws = _draws(tables[0].count, resamples, seed)
    value = harmonic(*(table.mean() for table in tables))
    spread = np.array([harmonic(*pair) for pair in zip(*(table.means(draws) for table in tables), strict=True)])
    if np.ptp(spread) > _SAME:
        return value, *_percentiles(spread, level)
    (_, *a_limits), (_, *b_limits) = (
        by_sentence(values, sentences, resamples=resamples, seed=seed, level=level) for values in (a, b)
    )
    low, high = map(harmonic, a_limits, b_limits)
    return value, low, high


@dataclass(frozen=True)
class _Table:
    """Rows gathered by sentence: `sums [sentence]` of the values, `rows [sentence]` how many there are."""

    sentences: Array
    sums: Floats
    rows: Floats
    binary: bool

    @property
    def count(self) -> int:
        return len(self.sentences)

    def mean(self) -> float:
        return float(self.sums.sum() / self.rows.sum())

    def means(self, draws: Floats) -> Floats:
        """The mean over all rows of each draw, `[draw]`, from how often it takes each sentence, `[draw sentence]`."""
        means: Floats = (draws @ self.sums) / (draws @ self.rows)
        return means


def _table(values: Array, sentences: Array) -> _Table:
    numbers = np.asarray(values, dtype=np.float64)
    labels = np.asarray(sentences)
    if numbers.ndim != 1 or labels.shape != numbers.shape:
        raise SteerlabError(
            f"an interval needs one sentence for each value; values have shape {numbers.shape} and sentences "
            f"{labels.shape}: give two columns of the same rows"
        )
    if not numbers.size:
        raise SteerlabError("an interval of no rows was asked for; check the filter that left nothing")
    if not np.isfinite(numbers).all():
        raise SteerlabError(
            f"{int((~np.isfinite(numbers)).sum())} of {numbers.size} values are not finite: drop those rows first, "
            "and say how many they were"
        )
    names, index = np.unique(labels, return_inverse=True)
    sums, rows = (np.bincount(index, weights).astype(np.float64) for weights in (numbers, np.ones_like(numbers)))
    return _Table(names, sums, rows, bool(np.isin(numbers, (0.0, 1.0)).all()))


@lru_cache(maxsize=4)
def _draws(count: int, resamples: int, seed: int) -> Floats:
    """How often each resample takes each of `count` sentences, `[draw sentence]`: the same for the same three."""
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = draws.astype(np.float64)
    weights.setflags(write=False)
    return weights


def _percentiles(spread: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(spread, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _limits(
    spread: Floats, value: float, tables: tuple[_Table, ...], *, level: float, least: float
) -> tuple[float, float]:
    """Percentiles of the draws; where no draw differs, what sentences that were not seen could still change.

    With n sentences that agree, at most a share u = 1 - ((1 - level) / 2)^(1/n) of all sentences differs from them
    (Clopper-Pearson's limit for 0 of n). At worst those give `least` or 1 instead: low = (1-u) value + u least,
    high = (1-u) value + u. For a proportion of 0 or 1 this is the exact interval. It needs values between 0 and 1,
    so it is kept to zeros and ones.
    """
    if np.ptp(spread) > _SAME:
        return _percentiles(spread, level)
    count = tables[0].count
    if all(table.binary for table in tables):
        unseen = 1 - ((1 - level) / 2) ** (1 / count)
        return (1 - unseen) * value + unseen * least, (1 - unseen) * value + unseen
    return (value, value) if count > 1 else (float("nan"), float("nan"))
