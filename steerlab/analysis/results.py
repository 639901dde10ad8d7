"""The scores of rows with their intervals, and the differences between two sets of rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.intervals import by_sentence, harmonic_by_sentence, paired_difference
from steerlab.analysis.tables import need_columns
from steerlab.core.columns import score_records, summary_key
from steerlab.core.errors import SteerlabError

OUTPUT = [
    "target",
    "sentence",
]  # what decides an output at one setting, but for the luck of sampling


def outputs(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one setting, those of one target and sentence averaged: several sampling seeds
    count as one output."""
    if rows.empty:
        raise SteerlabError("there are no rows to summarise; the cell was not run")
    if not rows.duplicated(OUTPUT).any():
        return rows
    kept = [name for name in score_records() if name in rows.columns]
    return rows.astype(dict.fromkeys(kept, float)).groupby(OUTPUT, as_index=False)[kept].mean()


def result(rows: pd.DataFrame, *, seed: int = 0) -> dict[str, Any]:
    """The scores of rows of one setting, each with its 95 % interval by resampling sentences.

    The scores are those of `core.columns.score_records`, each aggregated as its record says; one
    that no row has a finite value of is left out, such as a score that is newer than the rows.

    Sentences are drawn with all their targets, or within targets that share none
    (`intervals.by_sentence`). Where sampling gave a sentence several outputs, they are averaged
    first; `n` counts them all.
    """
    table = outputs(rows)
    need_columns(rows, "a summary of scores", "joint", "in_language", "relevant")
    first = rows.iloc[0]
    means = {}
    for name in score_records():
        if (interval := _aggregate(table, name, seed)) is not None:
            means[summary_key(name)] = interval
    return {
        "operator": first["operator"],
        "layer": int(first["layer"]),
        "strength": float(first["strength"]),
        "dose": float(rows["dose"].mean()),
        **means,
        "n": len(rows),
        "empty": int((rows["output"].str.len() == 0).sum()),
    }


def _aggregate(table: pd.DataFrame, name: str, seed: int) -> list[float] | None:
    """A score of outputs as its record aggregates it: value, low, high; None where no output has
    it."""
    needed = score_records()[name].of or (name,)
    if any(column not in table for column in needed):
        return None
    columns = [table[column].to_numpy(float) for column in needed]
    kept = np.logical_and.reduce([np.isfinite(values) for values in columns])
    if not kept.any():
        return None
    sentences = table["sentence"].to_numpy()[kept]
    strata = table["target"].to_numpy()[kept]
    aggregate = harmonic_by_sentence if len(columns) == 2 else by_sentence
    values = [column[kept] for column in columns]
    return list(aggregate(*values, sentences, strata=strata, seed=seed))


def difference(
    method: pd.DataFrame, control: pd.DataFrame, *, seed: int = 0
) -> dict[str, list[float]]:
    """The method's joint and LFS less the control's, on the same sentences, with 95 % intervals."""
    found, tables = {}, (outputs(method), outputs(control))
    for name, column in (("joint", "joint"), ("lfs", "in_language")):
        a, b = ((table[column].to_numpy(float), table["sentence"].to_numpy()) for table in tables)
        found[name] = list(
            paired_difference(*a, *b, strata=tables[0]["target"].to_numpy(), seed=seed)
        )
    return found


def stronger(candidates: Mapping[str, pd.DataFrame]) -> tuple[str, pd.DataFrame]:
    """Of a control's variants the one with the most `joint`, then LFS."""
    ranked = sorted(
        candidates.items(),
        key=lambda item: (item[1]["joint"].mean(), item[1]["in_language"].mean()),
    )
    return ranked[-1]


def curve(rows: pd.DataFrame, *, x: str, value: str, by: str) -> pd.DataFrame:
    """Mean and interval of `value` for each `x` and `by`: what dose curves draw."""
    table = []
    for (name, place), part in rows.groupby([by, x]):
        strata = part["target"].to_numpy() if "target" in part.columns else None
        values, sentences = part[value].to_numpy(float), part["sentence"].to_numpy()
        mean, low, high = by_sentence(values, sentences, strata=strata)
        table.append(
            {"by": name, "x": place, "value": mean, "low": low, "high": high, "n": len(part)}
        )
    return pd.DataFrame(table)
