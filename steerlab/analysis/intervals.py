"""Confidence intervals by resampling sentences: what one sentence gives in every language stays
together.

A sentence that is hard in Spanish is hard in Portuguese too, so its outputs are no independent
draws; in the words of statistics, sentences are the clusters. Where languages share their sentences
(parallel text), whole sentences are drawn. Where they share none (questions of their own for each
language), sentences are drawn within each language, as many as it has: which languages were read is
no accident, and their differences must not widen the interval. `strata` names the language of each
row and decides which it is.

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

_SAME = 1e-12  # draws that differ by less agree: sums of the same numbers round differently


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
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of the values with its percentile bootstrap interval: (value, low, high).

    Sentences are drawn with replacement, each with all its rows, and the rows of a draw are
    averaged. Where all sentences agree (no output is relevant, or every one is) there is no spread
    to resample: zeros and ones then get Clopper-Pearson's exact interval on the number of
    sentences. A single sentence, alone or in a stratum, shows no spread of other numbers: low and
    high are NaN. Raises `SteerlabError` for columns of different lengths, for no rows and for
    values that are not finite.

    Args:
        values: numbers or booleans, `[row]`.
        sentences: the sentence of each, `[row]`.
        strata: the language of each, `[row]`, to draw within languages that share no sentence.
        resamples: how many draws.
        seed: decides the draws.
        level: of the interval.
    """
    table = gather(values, sentences)
    # Which sentences a draw takes depends on the strata and the seed alone, so intervals of
    # several scores rest on the same draws.
    groups = strata_of(sentences, strata)
    means = table.means(_draws(groups, resamples, seed))
    low, high = _limits(means, table.mean(), (table,), groups, level=level, least=0.0)
    return table.mean(), low, high


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
    """mean(a) - mean(b) with its interval, each draw taking the same sentences on both sides.

    Both sides need the same sentences, each with any number of rows: ten seeds of a control stand
    against one run of a method. Where all sentences agree, zeros and ones get what
    Clopper-Pearson's limit allows: that share of unseen sentences differs, each as much as two
    proportions can. Raises `SteerlabError` for a sentence on one side only, and as `by_sentence`
    does.

    Args:
        a_values: numbers or booleans of one side, `[row]`.
        a_sentences: the sentence of each, `[row]`.
        b_values: the same of the other side, with rows of its own.
        b_sentences: the sentence of each of these.
        strata: the language of each row of a, `[row]`, as in `by_sentence`.
        resamples: how many draws.
        seed: decides the draws.
        level: of the interval.
    """
    a, b = matched(a_values, a_sentences, b_values, b_sentences)
    groups = strata_of(a_sentences, strata)
    draws = _draws(groups, resamples, seed)
    difference = a.mean() - b.mean()
    differences = a.means(draws) - b.means(draws)
    low, high = _limits(differences, difference, (a, b), groups, level=level, least=-1.0)
    return difference, low, high


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
    a = np.asarray(a)
    b = np.asarray(b)
    sentences = np.asarray(sentences)
    with_b = np.ones(sentences.shape, bool) if has_b is None else np.asarray(has_b, bool)
    if not sentences.shape == b.shape == with_b.shape:
        raise SteerlabError(
            f"b has shape {b.shape}, has_b {with_b.shape} and sentences {sentences.shape}: give "
            "columns of the same rows"
        )
    table_a = gather(a, sentences)
    table_b = gather(b[with_b], sentences[with_b])
    # b's rows among all sentences, so that a draw of sentences is one for both scores.
    spread_b = table_b.among(table_a.sentences)
    groups = strata_of(sentences, strata)
    draws = _draws(groups, resamples, seed)
    # A draw may take no sentence with a second score: it has no value.
    has_value = draws @ spread_b.rows > 0
    if not has_value.all():
        draws = draws[has_value]
    value = harmonic(table_a.mean(), table_b.mean())
    values = np.array(
        [
            harmonic(mean_a, mean_b)
            for mean_a, mean_b in zip(table_a.means(draws), spread_b.means(draws), strict=True)
        ]
    )
    if len(values) and np.ptp(values) > _SAME:
        low, high = _percentiles(values, groups, level)
        return value, low, high
    # No draw differs: combine the limits of the two averages, which may be exact ones.
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level}
    strata_a = None if strata is None else np.asarray(strata)
    strata_b = None if strata_a is None else strata_a[with_b]
    _, a_low, a_high = by_sentence(a, sentences, strata=strata_a, **options)
    _, b_low, b_high = by_sentence(b[with_b], sentences[with_b], strata=strata_b, **options)
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
    """

    sentences: Array
    sums: Floats
    rows: Floats
    binary: bool

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
        return Table(sentences, sums, rows, self.binary)

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
    binary = bool(np.isin(numbers, (0.0, 1.0)).all())
    return Table(names, sums, rows, binary)


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
    """The ends of the middle share `level` of the draws.

    NaN where a stratum has a single sentence: every draw takes it, so its spread is not in them.
    """
    if 1 in Counter(groups).values():
        return math.nan, math.nan
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _limits(
    draws: Floats,
    value: float,
    tables: tuple[Table, ...],
    groups: tuple[int, ...],
    *,
    level: float,
    least: float,
) -> tuple[float, float]:
    """The interval from what the draws gave; where no draw differs, what sentences that were not
    seen could still change.

    With n sentences that agree, at most a share u = 1 - ((1 - level) / 2)^(1/n) of all sentences
    differs from them (Clopper-Pearson's limit for 0 of n). At worst those give `least` or 1
    instead, in the stratum where that changes most: low = value - u (highest - least), high = value
    + u (1 - lowest), of the strata's own values. For a proportion of 0 or 1 this is the exact
    interval. It needs values between 0 and 1, so it is kept to zeros and ones.

    Args:
        draws: the value of each draw, `[draw]`.
        value: the value of the rows themselves.
        tables: the rows; of a difference, those of both sides.
        groups: the stratum of each sentence.
        level: of the interval.
        least: the smallest value that a sentence can give: 0, or -1 for a difference.
    """
    if np.ptp(draws) > _SAME:
        return _percentiles(draws, groups, level)
    if all(table.binary for table in tables):
        own = tables[0].each
        if len(tables) == 2:
            own = own - tables[1].each
        unseen = 1 - ((1 - level) / 2) ** (1 / tables[0].count)
        low = value - unseen * (own.max() - least)
        high = value + unseen * (1 - own.min())
        return max(float(low), least), min(float(high), 1.0)
    if 1 in Counter(groups).values():
        return math.nan, math.nan
    return value, value
