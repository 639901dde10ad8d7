"""Outputs judged again, and how far judges agree on them."""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlab.intervals import Interval, by_sentence
from steerlab.judges.answers import Answer, Judge
from steerlab.terms import SteerlabError

NEEDED = ("output", "prompt", "question", "sentence", "source", "target")
NOTHING = (float("nan"),) * 3


def answers_of(rows: pd.DataFrame) -> list[Answer]:
    """The answers in tidy rows; a column that is missing raises."""
    if missing := [name for name in (*NEEDED, "language") if name not in rows]:
        raise SteerlabError(f"rows to judge need the column {missing[0]!r}; they have {', '.join(map(str, rows))}")
    columns = (rows[name].tolist() for name in (*NEEDED, "language"))
    return [Answer(*told) for told in zip(*columns, strict=True)]


def rejudge(rows: pd.DataFrame, judge: Judge, *, prefix: str = "") -> pd.DataFrame:
    """The rows with a judge's columns, `relevant` and `joint`, without generating again.

    Their names begin with `prefix`, so that they stand beside what is there; without one they take its place.
    """
    made = dict(judge.rate(answers_of(rows)))
    made["relevant"] = np.asarray(made["rating"], dtype=float) >= 1
    if "in_language" in rows:
        made["joint"] = made["relevant"] & rows["in_language"].to_numpy(dtype=bool)
    return rows.assign(**{prefix + name: values for name, values in made.items()})


def agreement(
    rows: pd.DataFrame, judges: Mapping[str, Judge], *, resamples: int = 500, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """How far each two judges agree on the outputs in `rows`: one row for each pair.

    `n` outputs have a rating by both; `unreadable_a` and `unreadable_b` say how many of all have none. `equal` is the
    share of equal ratings; `kappa` Cohen's, with quadratic weights, which is the plain one where both rate 0 or 1;
    `spearman` the rank correlation. Each stands with its interval, `_low` and `_high`, from resampled sentences.
    Where a judge gives every output the same rating, the last two are NaN.
    """
    if len(judges) < 2:
        raise SteerlabError(f"agreement is between two judges or more; {len(judges)} were given")
    answers, sentences = answers_of(rows), rows["sentence"].to_numpy()
    ratings = {name: np.asarray(judge.rate(answers)["rating"], dtype=np.float64) for name, judge in judges.items()}
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level}
    table = []
    for a, b in combinations(ratings, 2):
        read = np.isfinite(ratings[a]) & np.isfinite(ratings[b])
        first, second, names = ratings[a][read], ratings[b][read], sentences[read]
        told: dict[str, Any] = {"a": a, "b": b, "n": int(read.sum())}
        told |= {f"unreadable_{side}": int(np.isnan(ratings[name]).sum()) for side, name in (("a", a), ("b", b))}
        same = (first == second).astype(np.float64)
        measures = {
            "equal": by_sentence(same, names, **options) if read.any() else NOTHING,
            "kappa": _resampled(kappa, first, second, names, **options),
            "spearman": _resampled(spearman, first, second, names, **options),
        }
        for measure, (value, low, high) in measures.items():
            told |= {measure: value, f"{measure}_low": low, f"{measure}_high": high}
        table.append(told)
    return pd.DataFrame(table)


def kappa(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Cohen's kappa with quadratic weights, NaN where both always say the same one thing.

    1 - sum (a-b)² / expected sum if they were independent (Cohen 1968), by moments: the ratings keep their distances,
    whatever they are, and none has to be a class.
    """
    expected = a.var() + b.var() + (a.mean() - b.mean()) ** 2 if len(a) else 0.0
    return float(1 - ((a - b) ** 2).mean() / expected) if expected > 0 else float("nan")


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's rank correlation, equal ratings sharing their rank; NaN where one judge always says the same."""
    from scipy.stats import rankdata

    if not len(a) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _resampled(
    measure: Callable[[NDArray[Any], NDArray[Any]], float],
    a: NDArray[Any],
    b: NDArray[Any],
    sentences: NDArray[Any],
    *,
    resamples: int,
    seed: int,
    level: float,
) -> Interval:
    """The measure with percentiles over draws of sentences, each with all its rows; NaN where it is not defined."""
    value = measure(a, b)
    if not np.isfinite(value):
        return NOTHING
    names, index = np.unique(sentences, return_inverse=True)
    rows = [np.flatnonzero(index == number) for number in range(len(names))]
    random, found = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = np.concatenate([rows[number] for number in random.integers(0, len(names), len(names))])
        found.append(measure(a[drawn], b[drawn]))
    low, high = np.nanquantile(found, ((1 - level) / 2, (1 + level) / 2))
    return value, float(low), float(high)
