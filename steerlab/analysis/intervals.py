"""Confidence intervals by resampling sentences, the clusters: what one sentence gives in every
language stays together.

A sentence that is hard in Spanish is hard in Portuguese too, so its outputs are no independent
draws. Where languages share their sentences (parallel text), whole sentences are drawn. Where they
share none (questions of their own for each language), sentences are drawn within each language, as
many as it has: which languages were read is no accident, and their differences must not widen the
interval. `strata` names the language of each row and decides which it is.
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

_SAME = 1e-12  # draws nearer than this agree, up to rounding


def harmonic(a: float, b: float) -> float:
    """The harmonic mean 2ab / (a + b) of two averages; 0 if either is 0 (CLaS-Bench's S of LFS
    and relevance)."""
    return 0.0 if a <= 0 or b <= 0 else float(2 * a * b / (a + b))


def named(name: str, interval: Interval) -> dict[str, float]:
    """An interval as columns of a table: `name`, `name_low`, `name_high`."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))


def by_sentence(
    values: Array,
    sentences: Array,
    *,
    strata: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of the values with its percentile bootstrap interval: (value, low, high).

    `values [row]`: finite numbers or booleans; `sentences [row]`: the sentence of each; `strata
    [row]`: its language, to draw within languages that share no sentence. Sentences are drawn with
    replacement, each with all its rows, and the rows of a draw are averaged. Where all sentences
    agree (no output is relevant, or every one is) there is no spread to resample: zeros and ones
    then get Clopper-Pearson's exact interval on the number of sentences. A single sentence, alone
    or in a stratum, shows no spread of other numbers: low and high are NaN.
    """
    table = gather(values, sentences)
    groups = strata_of(sentences, strata)
    spread = table.means(_draws(groups, resamples, seed))
    return table.mean(), *_limits(spread, table.mean(), (table,), groups, level=level, least=0.0)


def paired_difference(
    a_values: Array,
    a_sentences: Array,
    b_values: Array,
    b_sentences: Array,
    *,
    strata: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """mean(a) - mean(b), each draw taking the same sentences on both sides: (difference, low,
    high).

    Shapes as in `by_sentence`, `strata` for the rows of a. Both sides need the same sentences (else
    it raises), each with any number of rows: ten seeds of a control stand against one run of a
    method. Where all sentences agree, zeros and ones get what Clopper-Pearson's limit allows: that
    share of unseen sentences differs, each as much as two proportions can.
    """
    a, b = matched(a_values, a_sentences, b_values, b_sentences)
    groups = strata_of(a_sentences, strata)
    draws = _draws(groups, resamples, seed)
    difference = a.mean() - b.mean()
    spread = a.means(draws) - b.means(draws)
    return difference, *_limits(spread, difference, (a, b), groups, level=level, least=-1.0)


def harmonic_by_sentence(
    a: Array,
    b: Array,
    sentences: Array,
    *,
    has_b: Array | None = None,
    strata: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The harmonic mean of mean(a) and mean(b) with its interval: (value, low, high).

    Each score is averaged over all rows of a draw, then the two averages are combined. Where no
    draw differs from another (nothing is in the language), the limits are those of the two
    averages, combined.

    Args:
        a: one score, `[row]`.
        b: the other score of the same rows, `[row]`.
        sentences: the sentence of each, `[row]`.
        has_b: where some rows have no second score, whether each has one, `[row]`. The others count
            in a's average only; a draw of sentences without any b has no value and is left out.
        strata: the language of each, `[row]`, as in `by_sentence`.
        resamples: how many draws.
        seed: decides the draws.
        level: of the interval.
    """
    names = np.asarray(sentences)
    kept = np.ones(names.shape, bool) if has_b is None else np.asarray(has_b, bool)
    if not names.shape == np.shape(b) == kept.shape:
        raise SteerlabError(
            f"b has shape {np.shape(b)}, has_b {kept.shape} and sentences {names.shape}: give "
            "columns of the same rows"
        )
    whole = gather(a, names)
    known = gather(np.asarray(b)[kept], names[kept])
    part = known.among(whole.sentences)
    groups = strata_of(names, strata)
    draws = _draws(groups, resamples, seed)
    seen = draws @ part.rows > 0
    draws = draws if seen.all() else draws[seen]
    value = harmonic(whole.mean(), known.mean())
    pairs = zip(whole.means(draws), part.means(draws), strict=True)
    spread = np.array([harmonic(*pair) for pair in pairs])
    if len(spread) and np.ptp(spread) > _SAME:
        return value, *_percentiles(spread, groups, level)
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level}
    kinds = None if strata is None else np.asarray(strata)
    of_b = None if kinds is None else kinds[kept]
    _, a_low, a_high = by_sentence(a, names, strata=kinds, **options)
    _, b_low, b_high = by_sentence(np.asarray(b)[kept], names[kept], strata=of_b, **options)
    return value, harmonic(a_low, b_low), harmonic(a_high, b_high)


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
    numbers = [np.asarray(column) for column in columns]
    _, index = np.unique(np.asarray(sentences), return_inverse=True)
    if shapes := [column.shape for column in numbers if column.shape != index.shape]:
        raise SteerlabError(
            f"a column has shape {shapes[0]} and sentences {index.shape}: give columns of the same "
            "rows"
        )
    value = float(statistic(*numbers))
    if not math.isfinite(value):
        return value, math.nan, math.nan
    groups, found = strata_of(sentences, strata), []
    for taken in _draws(groups, resamples, seed):
        rows = np.repeat(np.arange(len(index)), taken[index].astype(int))
        found.append(float(statistic(*(column[rows] for column in numbers))))
    spread = np.array(found)
    spread = spread[np.isfinite(spread)]
    if not len(spread):
        return value, math.nan, math.nan
    return value, *_percentiles(spread, groups, level)


@dataclass(frozen=True)
class Table:
    """Rows gathered by sentence: `sums [sentence]` of the values, `rows [sentence]` how many
    there are."""

    sentences: Array
    sums: Floats
    rows: Floats
    binary: bool

    @property
    def count(self) -> int:
        return len(self.sentences)

    @property
    def each(self) -> Floats:
        """The mean of each sentence, `[sentence]`."""
        means: Floats = self.sums / self.rows
        return means

    def among(self, sentences: Array) -> "Table":
        """The same rows among more sentences, in their order; those that are new have no rows."""
        index = np.searchsorted(sentences, self.sentences)
        sums, rows = np.zeros((2, len(sentences)))
        sums[index], rows[index] = self.sums, self.rows
        return Table(sentences, sums, rows, self.binary)

    def mean(self) -> float:
        return float(self.sums.sum() / self.rows.sum())

    def means(self, draws: Floats) -> Floats:
        """The mean over all rows of each draw, `[draw]`, from how often it takes each sentence,
        `[draw sentence]`."""
        means: Floats = (draws @ self.sums) / (draws @ self.rows)
        return means


def gather(values: Array, sentences: Array) -> Table:
    """Values `[row]` by sentence `[row]`; raises for shapes that differ, for no rows and for
    what is not finite."""
    numbers = np.asarray(values, dtype=np.float64)
    labels = np.asarray(sentences)
    if numbers.ndim != 1 or labels.shape != numbers.shape:
        raise SteerlabError(
            f"an interval needs one sentence for each value; values have shape {numbers.shape} and "
            "sentences "
            f"{labels.shape}: give two columns of the same rows"
        )
    if not numbers.size:
        raise SteerlabError(
            "an interval of no rows was asked for; check the filter that left nothing"
        )
    if not np.isfinite(numbers).all():
        raise SteerlabError(
            f"{int((~np.isfinite(numbers)).sum())} of {numbers.size} values are not finite: drop "
            "those rows first, "
            "and say how many they were"
        )
    names, index = np.unique(labels, return_inverse=True)
    sums, rows = (
        np.bincount(index, weights).astype(np.float64)
        for weights in (numbers, np.ones_like(numbers))
    )
    return Table(names, sums, rows, bool(np.isin(numbers, (0.0, 1.0)).all()))


def matched(
    a_values: Array, a_sentences: Array, b_values: Array, b_sentences: Array
) -> tuple[Table, Table]:
    """Both sides by sentence; raises where a sentence is on one side only."""
    a, b = gather(a_values, a_sentences), gather(b_values, b_sentences)
    if not np.array_equal(a.sentences, b.sentences):
        lone = np.setxor1d(a.sentences, b.sentences)
        raise SteerlabError(
            f"a paired difference needs the same sentences on both sides; {len(lone)} are on one "
            "side only "
            f"(such as {', '.join(map(str, lone[:5]))}): keep the rows of the sentences that both "
            "have"
        )
    return a, b


def strata_of(sentences: Array, strata: Array | None) -> tuple[int, ...]:
    """The stratum of each distinct sentence, in their order: languages that share a sentence are
    one stratum.

    Parallel text is thus one stratum, also where some rows are missing; questions of its own make a
    language one.
    """
    names, row = np.unique(np.asarray(sentences), return_inverse=True)
    if strata is None:
        return (0,) * len(names)
    if np.shape(strata) != row.shape:
        raise SteerlabError(
            f"strata have shape {np.shape(strata)}, sentences {row.shape}: give one stratum for "
            "each row"
        )
    kinds, column = np.unique(np.asarray(strata), return_inverse=True)
    size = len(names) + len(kinds)
    edges = coo_array((np.ones(len(row)), (row, len(names) + column)), shape=(size, size))
    return tuple(connected_components(edges, directed=False)[1][: len(names)].tolist())


@lru_cache(maxsize=4)
def _draws(groups: tuple[int, ...], resamples: int, seed: int) -> Floats:
    """How often each resample takes each sentence, `[draw sentence]`: as many of a stratum as it
    has."""
    random, strata = np.random.default_rng(seed), np.array(groups)
    weights = np.empty((resamples, len(groups)))
    for stratum in np.unique(strata):
        count = int((strata == stratum).sum())
        weights[:, strata == stratum] = random.multinomial(
            count, np.full(count, 1 / count), size=resamples
        )
    weights.setflags(write=False)
    return weights


def _percentiles(spread: Floats, groups: tuple[int, ...], level: float) -> tuple[float, float]:
    """The middle of the draws; none where a stratum has one sentence, whose spread they leave
    out."""
    if 1 in Counter(groups).values():
        return math.nan, math.nan
    low, high = np.quantile(spread, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _limits(
    spread: Floats,
    value: float,
    tables: tuple[Table, ...],
    groups: tuple[int, ...],
    *,
    level: float,
    least: float,
) -> tuple[float, float]:
    """Percentiles of the draws; where no draw differs, what sentences that were not seen could
    still change.

    With n sentences that agree, at most a share u = 1 - ((1 - level) / 2)^(1/n) of all sentences
    differs from them (Clopper-Pearson's limit for 0 of n). At worst those give `least` or 1
    instead, in the stratum where that changes most: low = value - u (highest - least), high = value
    + u (1 - lowest), of the strata's own values. For a proportion of 0 or 1 this is the exact
    interval. It needs values between 0 and 1, so it is kept to zeros and ones.
    """
    if np.ptp(spread) > _SAME:
        return _percentiles(spread, groups, level)
    count = tables[0].count
    if all(table.binary for table in tables):
        own = tables[0].each if len(tables) == 1 else tables[0].each - tables[1].each
        unseen = 1 - ((1 - level) / 2) ** (1 / count)
        low, high = value - unseen * (own.max() - least), value + unseen * (1 - own.min())
        return max(float(low), least), min(float(high), 1.0)
    return (math.nan, math.nan) if 1 in Counter(groups).values() else (value, value)
