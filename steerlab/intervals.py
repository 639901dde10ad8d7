"""Confidence intervals by resampling sentences: what one sentence gives in every language is kept together."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerlab.terms import SteerlabError

Array = NDArray[Any]
Interval = tuple[float, float, float]


def by_sentence(
    values: Array, sentences: Array, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The mean of the values and its percentile bootstrap interval, (value, low, high).

    `values [row]` numbers or booleans, `sentences [row]` the sentence that each came from: sentences are drawn with
    replacement, each with all its rows, and the rows of a draw are averaged. Proportions that are the same for every
    sentence (none, or all, succeed) have no spread to resample: their interval is Clopper-Pearson's for the number
    of sentences. From a single sentence nothing else can be told: low and high are then NaN.
    """
    table = _Table(values, sentences)
    draws = _draws(table.size, resamples, seed)
    return table.close(table.mean(), table.mean(draws), least=0.0, level=level)


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
    """mean(a) - mean(b) with its interval, (value, low, high), where each draw takes the same sentences in both.

    Both need rows of the same sentences, but may have any number of them: ten seeds of a control, one of a method.
    When no two sentences differ in what they give, the interval says how far the sentences that were not seen could
    move the difference (Clopper-Pearson's limit on their share, at the worst difference of two proportions).
    """
    a, b = _Table(a_values, a_sentences), _Table(b_values, b_sentences)
    if not np.array_equal(a.names, b.names):
        lone = np.setxor1d(a.names, b.names)
        raise SteerlabError(
            f"a paired difference needs the same sentences on both sides; {len(lone)} are on one side only, "
            f"such as {lone[:5].tolist()}: keep the rows that both have"
        )
    draws = _draws(a.size, resamples, seed)
    joined = a if a.proportions and b.proportions else _Unbounded
    value, spread = a.mean() - b.mean(), a.mean(draws) - b.mean(draws)
    return a.close(value, spread, least=-1.0, level=level) if joined is a else _percentiles(value, spread, level)
