"""Tables as a page or a paper has them."""

from collections.abc import Sequence

import pandas as pd


def spelled(interval: Sequence[float], digits: int = 2) -> str:
    """A value with its interval, such as `.23 [.19, .28]` with the leading zeros."""
    value, low, high = (f"{number:.{digits}f}" for number in interval)
    return f"{value} [{low}, {high}]"


def markdown(frame: pd.DataFrame) -> str:
    """A table's columns and cells as Markdown; what is missing is left blank."""
    lines = ["| " + " | ".join(map(str, frame.columns)) + " |", "|---" * len(frame.columns) + "|"]
    blank = frame.astype(object).where(frame.notna(), "")
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in blank.to_numpy()])
