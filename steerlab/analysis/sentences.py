"""Rows gathered by sentence, the unit that is resampled: strata, draws, percentiles."""

import math
from collections import Counter
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


SAME = 1e-12  # what differs by less agrees: sums of the same numbers round differently


def student_quantile(freedom: float, level: float) -> float:
    """Student's two-sided quantile."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


@dataclass(frozen=True)
class Table:
    """Rows gathered by sentence, so that a draw of sentences is a product of matrices.

    Args:
        sentences: the distinct sentences, sorted, `[sentence]`.
        sums: the sum of each sentence's values, `[sentence]`.
        rows: how many rows each has, `[sentence]`.
        binary: whether they are shares and all values are zeros and ones.
        share: whether they are shares, or averages of them.
    """

    sentences: Array
    sums: Floats
    rows: Floats
    binary: bool
    share: bool

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
        return Table(sentences, sums, rows, self.binary, self.share)

    def mean(self) -> float:
        """The mean over all rows."""
        return float(self.sums.sum() / self.rows.sum())

    def means(self, draws: Floats) -> Floats:
        """The mean over all rows of each draw, `[draw]`.

        `draws [draw sentence]` says how often each takes each sentence.
        """
        means: Floats = (draws @ self.sums) / (draws @ self.rows)
        return means


def gather(values: Array, sentences: Array, *, share: bool | None = None) -> Table:
    """Gather values `[row]` by their sentences `[row]`.

    Raises `SteerlabError` for shapes that differ, for no rows, for values that are not finite and
    for shares beyond 0 and 1. `share` is that of `by_sentence`.
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
    binary = bool((np.minimum(np.abs(numbers), np.abs(numbers - 1)) < SAME).all())
    if share and not (numbers.min() > -SAME and numbers.max() < 1 + SAME):
        raise SteerlabError(
            f"shares lie between 0 and 1, and the values between {numbers.min():g} and "
            f"{numbers.max():g}; leave share= out, or give False"
        )
    share = binary if share is None else share
    return Table(names, sums, rows, binary and share, share)


def matched(
    a_values: Array,
    a_sentences: Array,
    b_values: Array,
    b_sentences: Array,
    *,
    share: bool | None = None,
) -> tuple[Table, Table]:
    """Both sides of a comparison gathered by sentence.

    Raises `SteerlabError` for a sentence that is on one side only.

    Args:
        a_values: numbers or booleans of one side, `[row]`.
        a_sentences: the sentence of each, `[row]`.
        b_values: the same of the other side, with rows of its own.
        b_sentences: the sentence of each of these.
        share: as for `by_sentence`, of both sides.
    """
    a = gather(a_values, a_sentences, share=share)
    b = gather(b_values, b_sentences, share=share)
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
def draw_sentences(groups: tuple[int, ...], resamples: int, seed: int) -> Floats:
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


def percentile_limits(values: Floats, groups: tuple[int, ...], level: float) -> tuple[float, float]:
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
    tail = float(ndtr(-math.sqrt(sentences / freedom) * student_quantile(freedom, level)))
    return tail, 1 - tail
