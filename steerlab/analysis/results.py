"""The scores of rows with their intervals, and the differences between two sets of rows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.intervals import by_sentence, harmonic_by_sentence, paired_difference
from steerlab.analysis.sentences import Interval
from steerlab.analysis.tables import need_columns
from steerlab.core.columns import is_share, score_records, summary_key
from steerlab.core.errors import SteerlabError

# What decides an output at one setting, but for the luck of sampling and a control's seeds.
OUTPUT = ["target", "sentence"]
# The column that says which of a control's seeds gave a row; 0 where there is one alone.
SEED = "seed"


def outputs(rows: pd.DataFrame, own: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of one setting, those of one target and sentence averaged: several samples count as one
    output. What several seeds of a control gave stays apart.

    Raises `SteerlabError` for no rows.

    Args:
        rows: the rows.
        own: columns of scores beside those of `core.columns.score_records`.
    """
    if rows.empty:
        raise SteerlabError("there are no rows to summarise; the cell was not run")
    key = [*OUTPUT, SEED] if SEED in rows.columns else OUTPUT
    if not rows.duplicated(key).any():
        return rows
    scores = [name for name in (*score_records(), *own) if name in rows.columns]
    # Some scores are booleans, which have no mean until they are numbers.
    numbers = rows.astype(dict.fromkeys(scores, float))
    return numbers.groupby(key, as_index=False)[scores].mean()


def result(rows: pd.DataFrame, *, seed: int = 0) -> dict[str, Any]:
    """The scores of rows of one setting, each with its 95 % interval over sentences.

    The scores are those of `core.columns.score_records`, each aggregated as its record says; one
    that no row has a finite value of is left out, such as a score that is newer than the rows.

    Sentences vary with all their targets, or within targets that share none
    (`intervals.by_sentence`). Where the rows are of several seeds of a control (column "seed"), the
    interval covers other seeds too. Where sampling gave a sentence several outputs, they are
    averaged first; `n` counts them all. `joint_of_ceiling` is `joint` over the mean of `ceiling`,
    which is taken as known.
    """
    table = outputs(rows)
    need_columns(rows, "a summary of scores", "joint", "in_language", "relevant")
    first = rows.iloc[0]
    intervals = {}
    for name in score_records():
        interval = _aggregate(table, name, seed)
        if interval is not None:
            intervals[summary_key(name)] = interval
    return {
        "operator": first["operator"],
        "layer": int(first["layer"]),
        "strength": float(first["strength"]),
        "dose": float(rows["dose"].mean()),
        "displacement": _displacement(rows),
        **intervals,
        **_of_ceiling(intervals),
        "n": len(rows),
        "empty": int((rows["output"].str.len() == 0).sum()),
    }


def _of_ceiling(intervals: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """`joint` as a share of what the references themselves have, since an identifier does not know
    every one of them; empty where rows do not say."""
    ceiling = intervals.get("ceiling", [0.0])[0]
    if not ceiling:
        return {}
    return {"joint_of_ceiling": [value / ceiling for value in intervals["joint"]]}


def _displacement(rows: pd.DataFrame) -> float | None:
    """The mean of the rows that have one; None where none has, and in rows of older versions."""
    if "displacement" not in rows or not np.isfinite(rows["displacement"].to_numpy(float)).any():
        return None
    return float(rows["displacement"].mean())


def _aggregate(table: pd.DataFrame, name: str, seed: int) -> list[float] | None:
    """A score of outputs as its record aggregates it: value, low, high; None where no output has
    it."""
    needed = score_records()[name].of or (name,)
    if any(column not in table for column in needed):
        return None
    return _interval(table, needed, share=is_share(name), seed=seed)


def own_interval(
    rows: pd.DataFrame, name: str, *, share: bool | None = None, seed: int = 0
) -> list[float] | None:
    """The mean of a user's own score over rows of one setting, with its interval as `result` has
    those of ours: value, low, high; None where no output has a finite one.

    Args:
        rows: of one setting.
        name: the column, as `sweep(scorers=)` named it.
        share: whether it is a share; by default where its values are zeros and ones.
        seed: of an interval that is drawn.
    """
    return _interval(outputs(rows, [name]), (name,), share=share, seed=seed)


def _interval(
    table: pd.DataFrame, needed: Sequence[str], *, share: bool | None, seed: int
) -> list[float] | None:
    """The mean of one column of outputs, or the harmonic mean of two, with its interval."""
    columns = [table[column].to_numpy(float) for column in needed]
    # Not every output has every score: an empty one has no bits per byte.
    kept = np.logical_and.reduce([np.isfinite(values) for values in columns])
    if not kept.any():
        return None
    values = [column[kept] for column in columns]
    sentences = table["sentence"].to_numpy()[kept]
    options: dict[str, Any] = {"strata": table["target"].to_numpy()[kept], "seed": seed}
    options["share"] = share
    if SEED in table:
        options["control_seeds"] = table[SEED].to_numpy()[kept]
    if len(values) == 1:
        return list(by_sentence(values[0], sentences, **options))
    a, b = values
    return list(harmonic_by_sentence(a, b, sentences, **options))


def difference(
    method: pd.DataFrame, control: pd.DataFrame, *, seed: int = 0
) -> dict[str, list[float]]:
    """The method's joint and LFS less the control's, on the same sentences, with 95 % intervals.

    Both are rows of one setting. Where one is of several seeds, the interval covers other seeds
    too. Raises `SteerlabError` for a sentence that one of them lacks.
    """
    a = outputs(method)
    b = outputs(control)
    differences = {}
    for name, column in (("joint", "joint"), ("lfs", "in_language")):
        interval = paired_difference(
            a[column].to_numpy(float),
            a["sentence"].to_numpy(),
            b[column].to_numpy(float),
            b["sentence"].to_numpy(),
            share=True,  # of several samples or seeds
            strata=a["target"].to_numpy(),
            a_seeds=a[SEED].to_numpy() if SEED in a else None,
            b_seeds=b[SEED].to_numpy() if SEED in b else None,
            seed=seed,
        )
        differences[name] = list(interval)
    return differences


def column_mean(rows: pd.DataFrame, column: str) -> Interval:
    """The mean of a column with its interval by sentence; NaN three times without rows."""
    if rows.empty:
        return math.nan, math.nan, math.nan
    return by_sentence(
        rows[column].to_numpy(float), rows["sentence"].to_numpy(), share=is_share(column)
    )


def stronger(candidates: Mapping[str, pd.DataFrame]) -> tuple[str, pd.DataFrame]:
    """Of a control's variants, by name, the one with the most `joint`, then LFS: (name, rows)."""

    def scores(candidate: tuple[str, pd.DataFrame]) -> tuple[float, float]:
        _, rows = candidate
        return rows["joint"].mean(), rows["in_language"].mean()

    # The last of equals, as sorting leaves them in their order.
    return sorted(candidates.items(), key=scores)[-1]


def curve(rows: pd.DataFrame, *, x: str, value: str, by: str) -> pd.DataFrame:
    """The mean of a score with its interval along a column, for each curve of a figure.

    Columns of the result: by, x, value, low, high, n.

    Args:
        rows: rows of any methods and settings.
        x: the column along which the curves run.
        value: the column of the score.
        by: the column that tells the curves apart.
    """
    points = []
    for (name, position), part in rows.groupby([by, x]):
        strata = part["target"].to_numpy() if "target" in part.columns else None
        values = part[value].to_numpy(float)
        sentences = part["sentence"].to_numpy()
        seeds = part[SEED].to_numpy() if SEED in part.columns else None
        mean, low, high = by_sentence(
            values, sentences, share=is_share(value), strata=strata, control_seeds=seeds
        )
        points.append(
            {"by": name, "x": position, "value": mean, "low": low, "high": high, "n": len(part)}
        )
    return pd.DataFrame(points)
