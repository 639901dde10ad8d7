"""From tidy rows to what a table says: the choice on dev, the scores on test, the differences from controls."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from steerlab.intervals import by_sentence, harmonic_by_sentence, paired_difference
from steerlab.terms import SteerlabError

SETTING = ["layer", "strength"]


def choose(dev: pd.DataFrame) -> dict[str, tuple[int, float]]:
    """The best layer and strength of each method on dev, of those that read the most lines (all did, but in a race)."""
    if set(dev["split"]) != {"dev"}:
        raise SteerlabError(f"a choice is made on dev rows only, not on {sorted(set(dev['split']))}")
    chosen = {}
    for method, rows in dev.groupby("method"):
        size = rows.groupby(SETTING)["joint"].transform("size")
        chosen[str(method)] = ranking(rows[size == size.max()])[0]
    return chosen


def ranking(rows: pd.DataFrame) -> list[tuple[int, float]]:
    """One method's settings by `joint`, best first; ties go to LFS, then to the smaller dose."""
    means = rows.groupby(SETTING)[["joint", "in_language", "dose"]].mean().reset_index()
    best = means.sort_values(["joint", "in_language", "dose"], ascending=[False, False, True])
    return [(int(layer), float(strength)) for layer, strength in best[SETTING].to_numpy()]


def at(rows: pd.DataFrame, method: str, setting: tuple[int, float]) -> pd.DataFrame:
    """A method's rows at one layer and strength."""
    return rows[(rows["method"] == method) & (rows["layer"] == setting[0]) & (rows["strength"] == setting[1])]


def result(rows: pd.DataFrame, *, seed: int = 0) -> dict[str, Any]:
    """The scores of rows of one setting, each with its 95 % interval by resampling sentences."""
    if rows.empty:
        raise SteerlabError("there are no rows to summarise; the cell was not run")
    sentences, first = rows["sentence"].to_numpy(), rows.iloc[0]
    score = lambda name: list(by_sentence(rows[name].to_numpy(float), sentences, seed=seed))  # noqa: E731
    found = {
        "operator": first["operator"],
        "layer": int(first["layer"]),
        "strength": float(first["strength"]),
        "dose": float(rows["dose"].mean()),
        "joint": score("joint"),
        "lfs": score("in_language"),
        "relevance": score("relevant"),
        "score": list(
            harmonic_by_sentence(
                rows["in_language"].to_numpy(float), rows["relevant"].to_numpy(float), sentences, seed=seed
            )
        ),
        "repetition": score("repetition"),
        "n": len(rows),
    }
    ratio = rows["bits_per_byte_ratio"].to_numpy(float)
    kept = np.isfinite(ratio)  # an empty output has no bits per byte; how many is said
    if kept.any():
        found["bits_per_byte_ratio"] = list(by_sentence(ratio[kept], sentences[kept], seed=seed))
    found["empty"] = int((rows["output"].str.len() == 0).sum())
    return found


def difference(method: pd.DataFrame, control: pd.DataFrame, *, seed: int = 0) -> dict[str, list[float]]:
    """The method's joint and LFS less the control's, on the same sentences, with 95 % intervals."""
    found = {}
    for name, column in (("joint", "joint"), ("lfs", "in_language")):
        sides = [(rows[column].to_numpy(float), rows["sentence"].to_numpy()) for rows in (method, control)]
        found[name] = list(paired_difference(*sides[0], *sides[1], seed=seed))
    return found


def stronger(candidates: Mapping[str, pd.DataFrame]) -> tuple[str, pd.DataFrame]:
    """Of a control's variants the one with the most `joint`, then LFS."""
    ranked = sorted(candidates.items(), key=lambda item: (item[1]["joint"].mean(), item[1]["in_language"].mean()))
    return ranked[-1]


def curve(rows: pd.DataFrame, *, x: str, value: str, by: str) -> pd.DataFrame:
    """Mean and interval of `value` for each `x` and `by`: what dose curves draw."""
    table = []
    for (name, place), part in rows.groupby([by, x]):
        mean, low, high = by_sentence(part[value].to_numpy(float), part["sentence"].to_numpy())
        table.append({"by": name, "x": place, "value": mean, "low": low, "high": high, "n": len(part)})
    return pd.DataFrame(table)
