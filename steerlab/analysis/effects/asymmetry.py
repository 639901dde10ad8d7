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


def asymmetry(
    rows: pd.DataFrame, *, value: str = "joint", by: Sequence[str] = ("method",), seed: int = 0
) -> pd.DataFrame:
    """From a to b against from b to a: a line for each group of `by` and pair of languages that has
    both.

    `rows`: tidy, with `source`, `target`, `sentence` and `value`, one setting for each group and
    direction. `forward` (a to b, in alphabetical order) and `backward` with 95 % intervals;
    `difference` = forward - backward, on the `n` sentences that both have; `p` of a paired
    permutation test by sentence, and `p_holm` corrected over the table.
    """
    by = list(by)
    need_columns(rows, "asymmetry", "source", "target", "sentence", value, *by)
    table = []
    for names, part in rows.groupby(by, sort=False):
        ways = {
            (str(a), str(b)): way for (a, b), way in part.groupby(["source", "target"], sort=True)
        }
        pairs = [(a, b) for a, b in ways if a < b and (b, a) in ways]
        table += [
            dict(zip(by, names, strict=True))
            | {"a": a, "b": b}
            | _pair(ways[a, b], ways[b, a], value, seed)
            for a, b in pairs
        ]
    if not table:
        told = ", ".join(
            sorted({f"{a} to {b}" for a, b in zip(rows["source"], rows["target"], strict=True)})[:6]
        )
        raise SteerlabError(
            f"no pair of languages was run both ways ({told}); run each target as a source too"
        )
    found = pd.DataFrame(table)
    tested = found["p"].notna()
    found.loc[tested, "p_holm"] = (
        holm(found.loc[tested, "p"].tolist()) if tested.any() else math.nan
    )
    return found


def _pair(forward: pd.DataFrame, backward: pd.DataFrame, value: str, seed: int) -> dict[str, Any]:
    finite = [side[np.isfinite(side[value].to_numpy(float))] for side in (forward, backward)]
    shared = set(finite[0]["sentence"]) & set(finite[1]["sentence"])
    sides = [side[side["sentence"].isin(shared)] for side in finite]
    told = [(side[value].to_numpy(float), side["sentence"].to_numpy()) for side in sides]
    nothing = (math.nan,) * 3
    found: dict[str, Any] = {"n": len(shared)}
    for name, side in zip(("forward", "backward"), told, strict=True):
        found |= named(name, by_sentence(*side, seed=seed) if shared else nothing)
    found |= named(
        "difference", paired_difference(*told[0], *told[1], seed=seed) if shared else nothing
    )
    return found | {
        "p": paired_test(*told[0], *told[1], seed=seed).p if len(shared) > 1 else math.nan
    }
