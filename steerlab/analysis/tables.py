"""Tables: columns that must be there, and tables as a page or a paper has them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from steerlab.core.errors import SteerlabError


def need_columns(rows: Any, what: str, *names: str) -> None:
    """Raise `SteerlabError` if a table of rows lacks a column, or has no rows.

    Args:
        rows: the table.
        what: says for what it is needed, as the beginning of the message.
        names: the columns that are needed.
    """
    missing = [name for name in names if name not in rows]
    if missing:
        there = ", ".join(map(str, rows.columns))
        raise SteerlabError(f"{what} needs the column {missing[0]!r}; the rows have {there}")
    if rows.empty:
        raise SteerlabError(f"{what} was given no rows; check the filter that left nothing")


def spelled(interval: Sequence[float], digits: int = 2) -> str:
    """A value with its interval, such as `.23 [.19, .28]` with the leading zeros."""
    value, low, high = (f"{number:.{digits}f}" for number in interval)
    return f"{value} [{low}, {high}]"


def markdown(frame: pd.DataFrame) -> str:
    """A table's columns and cells as Markdown; what is missing is left blank."""
    lines = ["| " + " | ".join(map(str, frame.columns)) + " |", "|---" * len(frame.columns) + "|"]
    blank = frame.astype(object).where(frame.notna(), "")
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in blank.to_numpy()])
