"""What it took to fit something: seconds of this machine, and tokens that the model read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

NAMES = ("seconds", "tokens")


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and the tokens that went through the model.

    Args:
        seconds: of the machine that fitted, so that they compare within one run alone.
        tokens: of every pass, those of training too; the beginning of a text counts, padding does
            not.
    """

    seconds: float = 0.0
    tokens: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.tokens + other.tokens)

    @property
    def record(self) -> dict[str, Any]:
        """As a file's header and a table's `attrs` keep it."""
        return {"seconds": round(self.seconds, 3), "tokens": self.tokens}


def costs_of(directions: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The records of what `Directions` took, by their names; those that do not say are left
    out."""
    found = {}
    for name, made in directions.items():
        cost = made.provenance.get("cost")
        if isinstance(cost, Mapping) and all(each in cost for each in NAMES):
            found[name] = {each: cost[each] for each in NAMES}
    return found


def cost_of(rows: pd.DataFrame) -> tuple[float, int] | None:
    """(seconds, tokens) of fitting what made some rows, as their `attrs` have it under "fit"; None
    where they do not say, and for what several fits made, such as a control of several seeds.

    Args:
        rows: of one method.
    """
    fits: Iterable[Any] = rows["estimator"].unique() if "estimator" in rows else ()
    names = [str(name) for name in fits if str(name)]
    recorded = rows.attrs.get("fit") or {}
    if len(names) != 1 or names[0] not in recorded:
        return None
    cost = recorded[names[0]]
    return cost["seconds"], cost["tokens"]
