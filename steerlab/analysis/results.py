"""The scores of rows with their intervals, and the differences between two sets of rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.intervals import by_sentence, harmonic_by_sentence, paired_difference
from steerlab.core.errors import SteerlabError

SCORES = ("joint", "in_language", "relevant", "repetition", "bits_per_byte_ratio")
# What decides an output at one setting, but for the luck of sampling.
OUTPUT = ["target", "sentence"]


def outputs(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one setting, those of one target and sentence averaged: several sampling seeds
    count as one output.

    Raises `SteerlabError` for no rows.
    """
    if rows.empty:
        raise SteerlabError("there are no rows to summarise; the cell was not run")
    if not rows.duplicated(OUTPUT).any():
        return rows
    scores = [name for name in SCORES if name in rows.columns]
    # Some scores are booleans, which have no mean until they are numbers.
    numbers = rows.astype(dict.fromkeys(scores, float))
    return numbers.groupby(OUTPUT, as_index=False)[scores].mean()


def result(rows: pd.DataFrame, *, seed: int = 0) -> dict[str, Any]:
    """The scores of rows of one setting, each with its 95 % interval by resampling sentences.

    Sentences are drawn with all their targets, or within targets that share none
    (`intervals.by_sentence`). Where sampling gave a sentence several outputs, they are averaged
    first; `n` counts them all.
    """
    table = outputs(rows)
    sentences, strata, first = (
        table["sentence"].to_numpy(),
        table["target"].to_numpy(),
        rows.iloc[0],
    )

    def score(name: str) -> list[float]:
        return list(by_sentence(table[name].to_numpy(float), sentences, strata=strata, seed=seed))

    spoken, relevant = table["in_language"].to_numpy(float), table["relevant"].to_numpy(float)
    found = {
        "operator": first["operator"],
        "layer": int(first["layer"]),
        "strength": float(first["strength"]),
        "dose": float(rows["dose"].mean()),
        "joint": score("joint"),
        "lfs": score("in_language"),
        "relevance": score("relevant"),
        "score": list(harmonic_by_sentence(spoken, relevant, sentences, strata=strata, seed=seed)),
        "repetition": score("repetition"),
        "n": len(rows),
    }
    ratio = table["bits_per_byte_ratio"].to_numpy(float)
    kept = np.isfinite(ratio)  # an empty output has no bits per byte; how many is said
    if kept.any():
        found["bits_per_byte_ratio"] = list(
            by_sentence(ratio[kept], sentences[kept], strata=strata[kept], seed=seed)
        )
    found["empty"] = int((rows["output"].str.len() == 0).sum())
    return found


def difference(
    method: pd.DataFrame, control: pd.DataFrame, *, seed: int = 0
) -> dict[str, list[float]]:
    """The method's joint and LFS less the control's, on the same sentences, with 95 % intervals.

    Both are rows of one setting. Raises `SteerlabError` for a sentence that one of them lacks.
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
            strata=a["target"].to_numpy(),
            seed=seed,
        )
        differences[name] = list(interval)
    return differences


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
        mean, low, high = by_sentence(values, sentences, strata=strata)
        points.append(
            {"by": name, "x": position, "value": mean, "low": low, "high": high, "n": len(part)}
        )
    return pd.DataFrame(points)
