"""Languages against edits: the rises of cross-entropy as a matrix."""

import numpy as np
import pandas as pd

from steerlab.analysis.tables import need_columns
from steerlab.core.errors import SteerlabError

EDIT, CONTROL = "edit", "control"


def effect_matrix(
    rows: pd.DataFrame, *, kind: str = EDIT, value: str = "rise", relative: bool = False
) -> pd.DataFrame:
    """The mean of `language_effects`' rows, languages down and edits across, in their order.

    Where there are controls, a last column `control` has the mean over all of them;
    `kind="control"` shows each. With `relative` a language's rises are shares of its mean nats per
    token without an edit, since a token of one language says more than one of another.
    """
    need_columns(rows, "effect_matrix", "edit", "kind", "language", value)
    known = relatively(rows) if relative else rows
    known = known[np.isfinite(known[value].to_numpy(float))]
    chosen = known[known["kind"] == kind]
    if chosen.empty:
        raise SteerlabError(
            f"there are no rows of the kind {kind!r}; the kinds are "
            f"{', '.join(rows['kind'].unique())}"
        )
    table = chosen.pivot_table(index="language", columns="edit", values=value, sort=False)
    table = table.reindex(index=rows["language"].unique(), columns=chosen["edit"].unique())
    controls = known[known["kind"] == CONTROL]
    if kind == EDIT and len(controls):
        table[CONTROL] = controls.groupby("language")[value].mean()
    return table


def relatively(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with each `rise` over its language's mean `unsteered` nats, which is taken as
    known without error."""
    need_columns(rows, "a relative rise", "language", "unsteered", "rise")
    level = rows.groupby("language")["unsteered"].transform("mean")
    return rows.assign(rise=rows["rise"] / level)
