"""Which way round is harder: from a language to another, or back."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.intervals import by_sentence, named, paired_difference
from steerlab.analysis.tables import need_columns
from steerlab.analysis.tests import holm, paired_test
from steerlab.core.errors import SteerlabError

_NO_INTERVAL = (math.nan, math.nan, math.nan)


def asymmetry(
    rows: pd.DataFrame, *, value: str = "joint", by: Sequence[str] = ("method",), seed: int = 0
) -> pd.DataFrame:
    """Steering from a to b against steering from b to a, for every pair of languages with both.

    One row for each group and pair, with the columns `by`, a, b; n, the sentences that both
    directions have; forward (from a to b, in alphabetical order) and backward with their 95 %
    intervals; difference = forward - backward with its interval; p of a paired permutation test by
    sentence, and p_holm, corrected over the table. Raises `SteerlabError` for a missing column, and
    where no pair was run both ways.

    Args:
        rows: outputs with `source`, `target`, `sentence`, the score and the columns of `by`, of one
            setting for each group and direction.
        value: the column of the score.
        by: the columns that tell groups apart.
        seed: decides the resampling of sentences.
    """
    by = list(by)
    need_columns(rows, "asymmetry", "source", "target", "sentence", value, *by)
    results = []
    for names, group in rows.groupby(by, sort=False):
        directions = {}
        for (source, target), part in group.groupby(["source", "target"], sort=True):
            directions[str(source), str(target)] = part
        for a, b in directions:
            # Each pair once, by its first direction; pairs that were run one way only are left out.
            if a < b and (b, a) in directions:
                result = dict(zip(by, names, strict=True)) | {"a": a, "b": b}
                result |= _compare(directions[a, b], directions[b, a], value, seed)
                results.append(result)
    if not results:
        pairs = {f"{a} to {b}" for a, b in zip(rows["source"], rows["target"], strict=True)}
        raise SteerlabError(
            f"no pair of languages was run both ways ({', '.join(sorted(pairs)[:6])}); run each "
            "target as a source too"
        )
    table = pd.DataFrame(results)
    # Pairs with a single sentence in common have no test, and do not count as comparisons.
    tested = table["p"].notna()
    table.loc[tested, "p_holm"] = (
        holm(table.loc[tested, "p"].tolist()) if tested.any() else math.nan
    )
    return table


def _compare(
    forward: pd.DataFrame, backward: pd.DataFrame, value: str, seed: int
) -> dict[str, Any]:
    """The scores of both directions and their difference, on the sentences that both have."""
    # A score without a value (of an empty output) takes its sentence out of both directions.
    forward = forward[np.isfinite(forward[value].to_numpy(float))]
    backward = backward[np.isfinite(backward[value].to_numpy(float))]
    shared = set(forward["sentence"]) & set(backward["sentence"])
    forward = forward[forward["sentence"].isin(shared)]
    backward = backward[backward["sentence"].isin(shared)]
    a = (forward[value].to_numpy(float), forward["sentence"].to_numpy())
    b = (backward[value].to_numpy(float), backward["sentence"].to_numpy())
    result: dict[str, Any] = {"n": len(shared)}
    if shared:
        result |= named("forward", by_sentence(*a, seed=seed))
        result |= named("backward", by_sentence(*b, seed=seed))
        result |= named("difference", paired_difference(*a, *b, seed=seed))
    else:
        result |= named("forward", _NO_INTERVAL)
        result |= named("backward", _NO_INTERVAL)
        result |= named("difference", _NO_INTERVAL)
    # A test needs two sentences: the sign of a single one is chance.
    result["p"] = paired_test(*a, *b, seed=seed).p if len(shared) > 1 else math.nan
    return result
