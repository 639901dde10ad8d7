"""Two groups of outputs compared at equal cost."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from steerlab.core.errors import SteerlabError


def matched_by(
    rows: pd.DataFrame, *, by: str, group: str, value: str, within: float = np.inf
) -> dict[str, Any]:
    """The difference of two groups of outputs of nearest cost: does a value differ at equal bits
    per byte?

    Pairs are taken greedily, the nearest in `by` first, each output once. Returns `difference`
    (mean over pairs, second group less first), its `low` and `high` (95 %, paired t), `pairs`, and
    `gap` (the mean difference of `by` within pairs). Source: the perplexity-matched control of
    Brain-Grounded Axes (arXiv 2512.19399).

    Args:
        rows: of outputs.
        by: the column that is made equal.
        group: the column of two groups.
        value: the column that is compared.
        within: the largest difference of `by` in a pair; outputs without one are left out.
    """
    for column in (by, group, value):
        if column not in rows:
            raise SteerlabError(f"the rows have no column {column!r}")
    kept = rows.dropna(subset=[by, value])
    names = sorted(kept[group].unique())
    if len(names) != 2:
        raise SteerlabError(f"{group} has {len(names)} groups with numbers; two are compared")
    one, other = (kept[kept[group] == name] for name in names)
    cost = np.abs(one[by].to_numpy()[:, None] - other[by].to_numpy()[None])
    differences, gaps = [], []
    for flat in cost.argsort(axis=None, kind="stable"):
        a, b = divmod(int(flat), len(other))
        if np.isinf(cost[a, b]):
            continue  # one of them is in a pair already
        if cost[a, b] > within:
            break
        differences.append(other[value].iloc[b] - one[value].iloc[a])
        gaps.append(other[by].iloc[b] - one[by].iloc[a])
        cost[a, :] = cost[:, b] = np.inf
        if len(differences) == min(len(one), len(other)):
            break
    if not differences:
        raise SteerlabError(f"no two outputs are within {within} in {by}; give a larger one")
    d = np.array(differences, float)
    half = float("inf")
    if len(d) > 1:
        half = float(t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5)
    mean = float(d.mean())
    return {
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "pairs": len(d),
        "gap": float(np.mean(gaps)),
    }
