"""What steering costs beside its aim: how much more often outputs repeat themselves, mix scripts or
end in no language, against unsteered ones."""

import math
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.intervals import named, paired_difference
from steerlab.analysis.results import column_mean
from steerlab.analysis.tables import need_columns
from steerlab.core.errors import SteerlabError
from steerlab.scores.confusion import columns
from steerlab.scores.text import repetition

SIDE_EFFECTS = (
    "repetition",
    "compression",
    "length_ratio",
    "script_mixing",
    "unidentified",
    "bits_per_byte_ratio",
)


def side_effects(
    rows: pd.DataFrame, *, control: str | None = None, by: str = "target"
) -> pd.DataFrame:
    """What else an edit changed in the outputs, score by score, beside a control method.

    The result has a row for each method, value of `by`, and score of `SIDE_EFFECTS`:

    - `value` with `low` and `high`, on `n` outputs; `missing`: for how many it is not defined.
    - `reference`: the mean of the same score over the reference texts, what a flawless output has.
    - `control`, `control_low`, `control_high`, `control_n`: the control's score.
    - `difference` from the control with `difference_low` and `difference_high`, on the sentences
      that both have.

    Intervals are of 95 %, by resampling sentences. A column that is missing and a control without
    rows raise `SteerlabError`.

    Args:
        rows: one setting of each method, with `method`, `output`, `reference`, `target`, `language`
            and `sentence`. What `columns` computes is added where it is missing;
            `bits_per_byte_ratio` (fluency) is used where it is there.
        control: the method to compare with; None for no comparison.
        by: the column whose values are reported apart.
    """
    need_columns(
        rows, "side_effects", "method", "output", "reference", "target", "language", "sentence", by
    )
    methods = rows["method"].drop_duplicates().tolist()
    if control is not None and control not in methods:
        raise SteerlabError(
            f"there are no rows of the control {control!r}; the methods are {', '.join(methods)}"
        )
    scored = _with_scores(rows)
    table = []
    for (method, name), part in scored.groupby(["method", by], sort=False):
        control_rows = scored[(scored["method"] == control) & (scored[by] == name)]
        for score in SIDE_EFFECTS:
            line: dict[str, Any] = {"method": method, by: name, "score": score}
            line |= _score_columns("value", part, score)
            line["missing"] = len(part) - line["n"]
            line["reference"] = _reference_mean(part, score)
            if control is not None:
                line |= _score_columns("control", control_rows, score)
                line |= _difference(part, control_rows, score)
            table.append(line)
    return pd.DataFrame(table)


def _with_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column for each side effect, and `reference NAME` for the same of the
    reference text."""
    outputs = rows["output"].tolist()
    targets = rows["target"].tolist()
    references = rows["reference"].tolist()
    scores = columns(outputs, targets, references, languages=rows["language"].tolist())
    scores["repetition"] = [repetition(output) for output in outputs]
    # Rows of a sweep bring these already: a column that is there is not replaced.
    scored = rows.assign(
        **{name: values for name, values in scores.items() if name not in rows.columns}
    )
    ideal = columns(references, targets)
    ideal["repetition"] = [repetition(reference) for reference in references]
    scored = scored.assign(
        **{
            f"reference {name}": values
            for name, values in ideal.items()
            if name in SIDE_EFFECTS  # `columns` gives the length too, which is none
        }
    )
    if "bits_per_byte_ratio" not in scored:
        scored = scored.assign(bits_per_byte_ratio=math.nan)
    return scored


def _reference_mean(rows: pd.DataFrame, score: str) -> float:
    """The mean of a score over the reference texts; NaN for one that compares with them."""
    name = f"reference {score}"
    return float(rows[name].mean()) if name in rows else math.nan


def _score_columns(side: str, rows: pd.DataFrame, score: str) -> dict[str, Any]:
    """The mean of a score with its interval and number of outputs, in columns named after its side:
    "value" or "control"."""
    defined = _defined(rows, score)
    value, low, high = column_mean(defined, score)
    # The limits of the value itself are plainly `low` and `high`.
    prefix = "" if side == "value" else f"{side}_"
    return {side: value, f"{prefix}low": low, f"{prefix}high": high, f"{prefix}n": len(defined)}


def _difference(rows: pd.DataFrame, control: pd.DataFrame, score: str) -> dict[str, float]:
    """The difference of a score from the control's, with its interval, on sentences that both
    have."""
    rows = _defined(rows, score)
    control = _defined(control, score)
    shared = set(rows["sentence"]) & set(control["sentence"])
    if not shared:
        return named("difference", (math.nan, math.nan, math.nan))
    rows = rows[rows["sentence"].isin(shared)]
    control = control[control["sentence"].isin(shared)]
    interval = paired_difference(
        rows[score].to_numpy(float),
        rows["sentence"].to_numpy(),
        control[score].to_numpy(float),
        control["sentence"].to_numpy(),
    )
    return named("difference", interval)


def _defined(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """The rows for which a score is defined."""
    return rows[np.isfinite(rows[score].to_numpy(float))]
