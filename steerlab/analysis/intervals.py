"""Confidence intervals by sentence: what one sentence gives in every language stays together.

A sentence that is hard in Spanish is hard in Portuguese too, so its outputs are no independent
draws; in the words of statistics, sentences are the clusters. Where languages share their sentences
(parallel text), whole sentences vary. Where they share none (questions of their own for each
language), sentences vary within each language: which languages were read is no accident, and their
differences must not widen the interval. `strata` names the language of each row and decides which
it is.

Shares and averages of them have a formula (`clustered_share`); only other numbers and statistics
are resampled. What covers the truth how often is in docs/coverage.md.

Everywhere `[row]` is an axis of outputs, an `Interval` is (value, low, high), and

- `sentences [row]` names the sentence of each output;
- `strata [row]` names its language, or is None where all languages share their sentences;
- `share` says whether the values are shares: True for averages of zeros and ones, and for ratings
  from 0 to 1; False for nats, ratios and the like, which may lie between 0 and 1 by chance. None
  takes zeros and ones for shares, and nothing else;
- `resamples` is the number of draws, `seed` decides them, `level` is that of the interval.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from steerlab.analysis.clustered import (
    clustered_mean,
    clustered_share,
    covariance,
    difference_of_shares,
    harmonic,
    harmonic_of_shares,
    mean_of,
    student_difference,
    student_limits,
    unseen_limits,
    variance_of,
)
from steerlab.analysis.sentences import (
    SAME,
    Array,
    Interval,
    draw_sentences,
    matched,
    percentile_limits,
    strata_of,
)
from steerlab.core.errors import SteerlabError


def named(name: str, interval: Interval) -> dict[str, float]:
    """An interval as columns of a table: `name`, `name_low`, `name_high`."""
    value, low, high = interval
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def by_sentence(
    values: Array,
    sentences: Array,
    *,
    share: bool | None = None,
    strata: Array | None = None,
    control_seeds: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of the values with its interval: (value, low, high).

    Shares get the clustered Wilson interval of `clustered_share`, in which nothing
    is drawn. Other numbers get the expanded percentile interval of sentences drawn with
    replacement, each with all its rows; or, with seeds of a control, Student's. Where all sentences
    agree (no output is relevant, or every one is) there is no spread: zeros and ones then get
    Clopper-Pearson's exact interval on the number of sentences. A single sentence, alone or in a
    stratum, shows no spread of other numbers: low and high are NaN. Raises `SteerlabError` for
    columns of different lengths, for no rows and for values that are not finite.

    Args:
        values: numbers or booleans, `[row]`.
        sentences: the sentence of each, `[row]`.
        share: whether the values are shares; by default where all are zeros and ones.
        strata: the language of each, `[row]`, to take sentences within languages that share none.
        control_seeds: which of a control's seeds gave each, `[row]`: the interval then covers other
            seeds too.
        resamples: how many draws.
        seed: decides the draws.
        level: of the interval.
    """
    mean = clustered_mean(
        values, sentences, share=share, strata=strata, control_seeds=control_seeds
    )
    if mean.unvaried:
        low, high = unseen_limits((mean,), mean.value, level=level, least=0.0)
    elif mean.share:
        low, high = clustered_share(mean, level=level)
    elif mean.seeded:
        low, high = student_limits(mean.value, mean.variance, mean.freedom, level)
    else:
        means = mean.table.means(draw_sentences(mean.groups, resamples, seed))
        low, high = percentile_limits(means, mean.groups, level)
    return mean.value, low, high


def paired_difference(
    a_values: Array,
    a_sentences: Array,
    b_values: Array,
    b_sentences: Array,
    *,
    share: bool | None = None,
    strata: Array | None = None,
    a_seeds: Array | None = None,
    b_seeds: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """mean(a) - mean(b) with its interval, both sides of a sentence belonging together.

    Both sides need the same sentences, each with any number of rows: ten seeds of a control stand
    against one run of a method. Shares get the interval of `difference_of_shares`,
    others the expanded percentile interval of draws that take the same sentences on both sides, or
    with seeds Student's. Where all sentences agree, zeros and ones get what Clopper-Pearson's limit
    allows: that share of unseen sentences differs, each as much as two proportions can. Raises
    `SteerlabError` for a sentence on one side only, and as `by_sentence` does.

    Args:
        a_values: numbers or booleans of one side, `[row]`.
        a_sentences: the sentence of each, `[row]`.
        b_values: the same of the other side, with rows of its own.
        b_sentences: the sentence of each of these.
        share: as in `by_sentence`, of both sides.
        strata: the language of each row of a, `[row]`, as in `by_sentence`.
        a_seeds: which of a control's seeds gave each row of a, `[row]`.
        b_seeds: the same of b. The seeds of two sides are taken to be different ones.
        resamples: how many draws.
        seed: decides the draws.
        level: of the interval.
    """
    table_a, table_b = matched(a_values, a_sentences, b_values, b_sentences, share=share)
    groups = strata_of(a_sentences, strata)
    a = mean_of(table_a, a_values, a_sentences, groups, a_seeds)
    b = mean_of(table_b, b_values, b_sentences, groups, b_seeds)
    difference = a.value - b.value
    shared = covariance(a.influence, b.influence, groups)
    spread = covariance(a.influence - b.influence, a.influence - b.influence, groups)
    unvaried = not a.seeded and not b.seeded and spread <= SAME**2
    if unvaried or (a.unvaried and b.unvaried):
        low, high = unseen_limits((a, b), difference, level=level, least=-1.0)
    elif a.share and b.share:
        low, high = difference_of_shares(a, b, shared, level)
    elif a.seeded or b.seeded:
        low, high = student_difference(a, b, shared, level)
    else:
        draws = draw_sentences(groups, resamples, seed)
        low, high = percentile_limits(table_a.means(draws) - table_b.means(draws), groups, level)
    return difference, low, high


def harmonic_by_sentence(
    a: Array,
    b: Array,
    sentences: Array,
    *,
    has_b: Array | None = None,
    share: bool | None = None,
    strata: Array | None = None,
    control_seeds: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The harmonic mean of mean(a) and mean(b) with its interval: (value, low, high).

    Each score is averaged over all its rows, then the two averages are combined, and so are their
    limits (`harmonic_of_shares`). Where one average is 0, the limits are the harmonic means of the
    two averages' own. What is no share gets the expanded percentile interval of sentences drawn
    with replacement, which knows no seeds of a control.

    Args:
        a: one score, `[row]`.
        b: the other score of the same rows, `[row]`.
        sentences: the sentence of each, `[row]`.
        has_b: where some rows have no second score, whether each has one, `[row]`. The others count
            in a's average only; a draw of sentences without any b has no value and is left out.
        share: as in `by_sentence`, of both scores.
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
    mean_a = clustered_mean(a, sentences, share=share, strata=strata, control_seeds=control_seeds)
    mean_b = clustered_mean(
        b[with_b],
        sentences[with_b],
        share=share,
        strata=None if strata is None else np.asarray(strata)[with_b],
        control_seeds=None if control_seeds is None else np.asarray(control_seeds)[with_b],
    )
    value = harmonic(mean_a.value, mean_b.value)
    if mean_a.share and mean_b.share:
        # The influence of each row on both means, so that the variance of their sum tells how the
        # two go together, seeds included.
        both = (a - mean_a.value) / len(a)
        both[with_b] += (b[with_b] - mean_b.value) / with_b.sum()
        variance, _, _ = variance_of(both, sentences, mean_a.groups, control_seeds)
        shared = (variance - mean_a.variance - mean_b.variance) / 2
        low, high = harmonic_of_shares(mean_a, mean_b, shared, level)
        return value, low, high
    if 1 in Counter(mean_b.groups).values():  # b shows no spread, whatever a does
        return value, math.nan, math.nan
    # b's rows among all sentences, so that a draw of sentences is one for both scores.
    spread_b = mean_b.table.among(mean_a.table.sentences)
    draws = draw_sentences(mean_a.groups, resamples, seed)
    draws = draws[draws @ spread_b.rows > 0]  # a draw without a second score has no value
    values = []
    for draw_a, draw_b in zip(mean_a.table.means(draws), spread_b.means(draws), strict=True):
        values.append(harmonic(draw_a, draw_b))
    low, high = percentile_limits(np.array(values), mean_a.groups, level)
    return value, low, high


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
    for times in draw_sentences(groups, resamples, seed):
        # Every row as often as its sentence was drawn: the statistic may be of any kind, so it
        # cannot be computed from sums.
        rows = np.repeat(np.arange(len(index)), times[index].astype(int))
        results.append(float(statistic(*(array[rows] for array in arrays))))
    values = np.array(results)
    values = values[np.isfinite(values)]
    if not len(values):
        return value, math.nan, math.nan
    low, high = percentile_limits(values, groups, level)
    return value, low, high
