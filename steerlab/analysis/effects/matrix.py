"""Languages against edits: how much each edit raises the cross-entropy of each language, as a
matrix."""

import numpy as np
import pandas as pd

from steerlab.analysis.tables import need_columns
from steerlab.core.errors import SteerlabError

# The kinds of edits in the rows of `language_effects`.
EDIT = "edit"
CONTROL = "control"


def effect_matrix(
    rows: pd.DataFrame, *, kind: str = EDIT, value: str = "rise", relative: bool = False
) -> pd.DataFrame:
    """The mean rise of each language under each edit: languages down, edits across, in their
    order.

    Where there are controls, a last column `control` has the mean over all of them. Raises
    `SteerlabError` for a missing column, and for a kind without rows.

    Args:
        rows: the rows of `language_effects`.
        kind: the edits to show; "control" shows each control.
        value: the column of the rise.
        relative: whether a language's rises are shares of its mean nats per token without an edit,
            since a token of one language carries more information than one of another.
    """
    need_columns(rows, "effect_matrix", "edit", "kind", "language", value)
    rises = relatively(rows) if relative else rows
    rises = rises[np.isfinite(rises[value].to_numpy(float))]
    chosen = rises[rises["kind"] == kind]
    if chosen.empty:
        raise SteerlabError(
            f"there are no rows of the kind {kind!r}; the kinds are "
            f"{', '.join(rows['kind'].unique())}"
        )
    table = chosen.pivot_table(index="language", columns="edit", values=value, sort=False)
    # Languages and edits without a finite rise keep their place, with NaN.
    table = table.reindex(index=rows["language"].unique(), columns=chosen["edit"].unique())
    # One column for all controls: each by itself is a random draw.
    controls = rises[rises["kind"] == CONTROL]
    if kind == EDIT and len(controls):
        table[CONTROL] = controls.groupby("language")[value].mean()
    return table


def relatively(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with each `rise` divided by its language's mean `unsteered` nats per token.

    The mean is taken as known without error: an interval of the ratio does not resample it.
    """
    need_columns(rows, "a relative rise", "language", "unsteered", "rise")
    unsteered = rows.groupby("language")["unsteered"].transform("mean")
    return rows.assign(rise=rows["rise"] / unsteered)
