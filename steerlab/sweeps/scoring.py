"""The scores of decoded rows, made with the rows and from them alone.

Scores that depended on what else was run before (a cache of fluencies that grows) would make a
resumed run differ from one that was never stopped.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.models.model import Model
from steerlab.scores.judges import Answer, Judge, score
from steerlab.scores.langid import Identifier

# Bits per byte of each reference, by split and target.
ReferenceBits = Callable[[str, str], Mapping[str, float]]


def score_rows(
    table: pd.DataFrame, *, identifier: Identifier, judge_of: Callable[[str], Judge]
) -> pd.DataFrame:
    """The table with the columns of `judges.score`; `judge_of` gives the judge of a split."""
    for split, rows in table.groupby("split"):
        columns = score(_answers(rows), identifier=identifier, judge=judge_of(str(split)))
        for name, values in columns.items():
            table.loc[rows.index, name] = pd.Series(values, index=rows.index)
    return table.astype({"in_language": bool, "relevant": bool, "joint": bool})


def _answers(rows: pd.DataFrame) -> list[Answer]:
    columns = zip(
        rows.output,
        rows.prompt,
        rows.question,
        rows.sentence,
        rows.source,
        rows.target,
        strict=True,
    )
    return [Answer(*values) for values in columns]


def bits_ratio(model: Model, table: pd.DataFrame, reference_bits: ReferenceBits) -> np.ndarray:
    """Bits per byte of each output over its reference's: 1 is as fluent as the reference, more is
    worse.

    The texts of a batch are computed together.
    """
    bits = bits_per_byte(model, table["output"].tolist())
    rows = zip(table["split"], table["target"], table["reference"], strict=True)
    expected = [reference_bits(split, target)[reference] for split, target, reference in rows]
    return bits / np.array(expected)


def as_json(table: pd.DataFrame) -> dict[str, list[Any]]:
    """The columns as JSON has them: None for NaN."""
    columns = {}
    for name in table.columns:
        values = table[name].tolist()
        if table[name].dtype.kind == "f":
            values = [None if value != value else value for value in values]
        columns[str(name)] = values
    return columns
