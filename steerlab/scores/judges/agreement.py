"""Outputs judged again, and how far judges agree on them."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlab.analysis.intervals import by_sentence, statistic_by_sentence
from steerlab.core.errors import SteerlabError
from steerlab.scores.judges.answers import Answer, Judge

NEEDED = ("output", "prompt", "question", "sentence", "source", "target")
NOTHING = (float("nan"),) * 3
_STEPS = 60  # of the scale from 0 to 1


def answers_of(rows: pd.DataFrame) -> list[Answer]:
    """The answers in tidy rows; a column that is missing raises."""
    if missing := [name for name in (*NEEDED, "language") if name not in rows]:
        raise SteerlabError(
            f"rows to judge need the column {missing[0]!r}; they have {', '.join(map(str, rows))}"
        )
    columns = (rows[name].tolist() for name in (*NEEDED, "language"))
    return [Answer(*told) for told in zip(*columns, strict=True)]


def rejudge(rows: pd.DataFrame, judge: Judge, *, prefix: str = "") -> pd.DataFrame:
    """The rows with a judge's columns, `relevant` and `joint`, without generating again.

    Their names begin with `prefix`, so that they stand beside what is there; without one they take
    its place.
    """
    made = dict(judge.rate(answers_of(rows)))
    made["relevant"] = np.asarray(made["rating"], dtype=float) >= 1
    if "in_language" in rows:
        made["joint"] = made["relevant"] & rows["in_language"].to_numpy(dtype=bool)
    return rows.assign(**{prefix + name: values for name, values in made.items()})


def agreement(
    rows: pd.DataFrame,
    judges: Mapping[str, Judge],
    *,
    resamples: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """How far each two judges agree on the outputs in `rows`: one row for each pair.

    `n` outputs have a rating by both; `unreadable_a` and `unreadable_b` say how many of all have
    none. `equal` is the share of equal ratings; `kappa` Cohen's, with quadratic weights, which is
    the plain one where both rate 0 or 1; `spearman` the rank correlation. Each stands with its
    interval, `_low` and `_high`, by resampling sentences, within targets that share none
    (`intervals.by_sentence`). Where a judge gives every output the same rating, the last two are
    NaN.
    """
    if len(judges) < 2:
        raise SteerlabError(f"agreement is between two judges or more; {len(judges)} were given")
    answers, sentences = answers_of(rows), rows["sentence"].to_numpy()
    ratings = {
        name: np.asarray(judge.rate(answers)["rating"], dtype=np.float64)
        for name, judge in judges.items()
    }
    targets, table = rows["target"].to_numpy(), []
    for a, b in combinations(ratings, 2):
        read = np.isfinite(ratings[a]) & np.isfinite(ratings[b])
        first, second, names = ratings[a][read], ratings[b][read], sentences[read]
        options: dict[str, Any] = {
            "strata": targets[read],
            "resamples": resamples,
            "seed": seed,
            "level": level,
        }
        told: dict[str, Any] = {"a": a, "b": b, "n": int(read.sum())}
        told |= {
            f"unreadable_{side}": int(np.isnan(ratings[name]).sum())
            for side, name in (("a", a), ("b", b))
        }
        same = (first == second).astype(np.float64)
        measures = {
            "equal": by_sentence(same, names, **options) if read.any() else NOTHING,
            "kappa": statistic_by_sentence(kappa, (first, second), names, **options),
            "spearman": statistic_by_sentence(spearman, (first, second), names, **options),
        }
        for measure, (value, low, high) in measures.items():
            told |= {measure: value, f"{measure}_low": low, f"{measure}_high": high}
        table.append(told)
    return pd.DataFrame(table)


def kappa(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Cohen's kappa with quadratic weights (Cohen 1968), NaN where both always say the same one
    thing.

    1 - sum (a-b)² / expected sum if they were independent. Ratings are rounded to the nearest 1/60,
    so that their classes lie as far apart as they do: exact for halves, thirds, quarters and
    fifths.
    """
    from sklearn.metrics import cohen_kappa_score

    first, second = (np.rint(_STEPS * ratings).astype(int) for ratings in (a, b))
    both = np.concatenate([first, second])
    if not len(both) or np.ptp(both) == 0:
        return float("nan")
    # scikit-learn weighs by place among the labels, so those that no judge gave must be there too
    labels = np.arange(both.min(), both.max() + 1)
    return float(cohen_kappa_score(first, second, labels=labels, weights="quadratic"))


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's rank correlation, equal ratings sharing their rank; NaN where one judge always
    says the same."""
    from scipy.stats import spearmanr

    if not len(a) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")  # as scipy says too, with a warning
    return float(spearmanr(a, b).statistic)
