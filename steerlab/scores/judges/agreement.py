"""Outputs judged again, and how far judges agree on them."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlab.analysis.intervals import by_sentence, named, statistic_by_sentence
from steerlab.analysis.sentences import Interval
from steerlab.core.errors import SteerlabError
from steerlab.scores.judges.answers import Answer, Judge

NEEDED = ("output", "prompt", "question", "sentence", "source", "target")
NOTHING = (float("nan"), float("nan"), float("nan"))  # an interval of no outputs
_STEPS = 60  # of the scale from 0 to 1: the least number that 2, 3, 4 and 5 divide


def answers_of(rows: pd.DataFrame) -> list[Answer]:
    """The answers in rows of a sweep; a column that is missing raises `SteerlabError`."""
    names = (*NEEDED, "language")
    if missing := [name for name in names if name not in rows]:
        raise SteerlabError(
            f"rows to judge need the column {missing[0]!r}; they have {', '.join(map(str, rows))}"
        )
    columns = [rows[name].tolist() for name in names]
    # In the order of `names`, which is that of the fields of an answer.
    return [Answer(*values) for values in zip(*columns, strict=True)]


def rejudge(rows: pd.DataFrame, judge: Judge, *, prefix: str = "") -> pd.DataFrame:
    """The rows with another judge's columns, `relevant` and `joint`, without generating again.

    A column that judging needs and that is missing raises `SteerlabError`.

    Args:
        rows: rows of a sweep.
        judge: what rates their outputs.
        prefix: what the new columns' names begin with, so that they stand beside those that are
            there; without one they replace them.
    """
    scores = dict(judge.rate(answers_of(rows)))
    scores["relevant"] = np.asarray(scores["rating"], dtype=float) >= 1
    if "in_language" in rows:
        scores["joint"] = scores["relevant"] & rows["in_language"].to_numpy(dtype=bool)
    return rows.assign(**{prefix + name: values for name, values in scores.items()})


def agreement(
    rows: pd.DataFrame,
    judges: Mapping[str, Judge],
    *,
    resamples: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """How far each two judges agree on the outputs in `rows`: one row for each pair.

    - `n`: how many outputs have a rating by both; `unreadable_a` and `unreadable_b`: how many of
      all have none by one of them.
    - `equal`: the share of equal ratings.
    - `kappa`: Cohen's, with quadratic weights; where both rate 0 or 1 it is the plain one.
    - `spearman`: the rank correlation.

    Each has its interval, `_low` and `_high`, by resampling sentences within targets that share
    none (`intervals.by_sentence`). Where a judge gives every output the same rating, kappa and the
    correlation may be NaN. Fewer than two judges raise `SteerlabError`.

    Args:
        rows: rows of a sweep.
        judges: the judges by the names that they have in the table.
        resamples: how many times sentences are drawn.
        seed: decides the draws.
        level: of the intervals.
    """
    if len(judges) < 2:
        raise SteerlabError(f"agreement is between two judges or more; {len(judges)} were given")
    answers = answers_of(rows)
    sentences = rows["sentence"].to_numpy()
    targets = rows["target"].to_numpy()
    ratings = {
        name: np.asarray(judge.rate(answers)["rating"], dtype=np.float64)
        for name, judge in judges.items()
    }
    table = []
    for a, b in combinations(ratings, 2):
        read = np.isfinite(ratings[a]) & np.isfinite(ratings[b])
        line: dict[str, Any] = {
            "a": a,
            "b": b,
            "n": int(read.sum()),
            "unreadable_a": int(np.isnan(ratings[a]).sum()),
            "unreadable_b": int(np.isnan(ratings[b]).sum()),
        }
        options: dict[str, Any] = {
            "strata": targets[read],
            "resamples": resamples,
            "seed": seed,
            "level": level,
        }
        intervals = measures(ratings[a][read], ratings[b][read], sentences[read], options)
        for measure, interval in intervals.items():
            line |= named(measure, interval)
        table.append(line)
    return pd.DataFrame(table)


def measures(
    first: NDArray[Any], second: NDArray[Any], sentences: NDArray[Any], options: dict[str, Any]
) -> dict[str, Interval]:
    """The three measures of agreement of two judges' ratings, each with its interval."""
    pair = (first, second)
    same = (first == second).astype(np.float64)
    return {
        "equal": by_sentence(same, sentences, **options) if len(same) else NOTHING,
        "kappa": statistic_by_sentence(kappa, pair, sentences, **options),
        "spearman": statistic_by_sentence(spearman, pair, sentences, **options),
    }


def kappa(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Cohen's kappa with quadratic weights (Cohen 1968): how much closer two judges' ratings are
    than if they were independent.

    1 - sum (a-b)² / its expected value if they were independent; NaN where both always give the
    same one rating. Ratings are rounded to the nearest 1/60, which is exact for halves, thirds,
    quarters and fifths.
    """
    from sklearn.metrics import cohen_kappa_score  # here, as importing it takes long

    # scikit-learn takes classes, not numbers, and weighs by the distance of their indices. In steps
    # of 1/60 classes lie as far apart as the ratings do.
    first = np.rint(_STEPS * a).astype(int)
    second = np.rint(_STEPS * b).astype(int)
    both = np.concatenate([first, second])
    if not len(both) or np.ptp(both) == 0:
        return float("nan")
    # For the distances to hold, steps that no judge gave must be among the classes too.
    labels = np.arange(both.min(), both.max() + 1)
    return float(cohen_kappa_score(first, second, labels=labels, weights="quadratic"))


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's rank correlation of two judges' ratings; equal ratings share their mean rank.

    It is NaN where one judge always gives the same rating.
    """
    from scipy.stats import spearmanr  # here, as importing it takes long

    if not len(a) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")  # scipy's answer too, but with a warning
    return float(spearmanr(a, b).statistic)
