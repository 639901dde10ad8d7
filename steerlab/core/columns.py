"""Scores as columns of rows: what each is called, and how many rows become one number."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from steerlab.core.discovery import exported
from steerlab.core.errors import SteerlabError


@dataclass(frozen=True, kw_only=True)
class Score:
    """The record of a score, which stands in the score's own file, in `RECORDS`, under the name of
    its column.

    Args:
        label: what figures and tables call it.
        compute: from an output's `Answer` to its value, for a score that needs no more than that:
            such a score is in every row. None for one that is made elsewhere.
        aggregate: how the rows of a setting become one number: the mean of their finite values,
            the share that is true, or the harmonic mean of the means of two other columns.
        of: these two columns.
        key: what summaries call it, where that is not the name of its column.
        digits: decimals on a page.
        higher_is_better: which way it is read; None for neither.
        on_page: whether it is a column of a table of the page.
        table: of which: that of scores, or that of what became of the outputs.
        meaning: what it says in a few plain words, for a heading that has room for them.
        cites: where it comes from, for `sl.cite`: keys of steerlab/data/sources.bib, or whole
            BibTeX entries.
        no_source: where there is no paper to cite, why.
    """

    label: str
    compute: Callable[[Any], float | bool] | None = None
    aggregate: Literal["mean", "share", "harmonic"] = "mean"
    of: tuple[str, str] | None = None
    key: str = ""
    digits: int = 2
    higher_is_better: bool | None = True
    on_page: bool = True
    table: Literal["scores", "outputs"] = "scores"
    meaning: str = ""
    cites: tuple[str, ...] = ()
    no_source: str = ""

    def __post_init__(self) -> None:
        if (self.aggregate == "harmonic") != (self.of is not None):
            raise SteerlabError(
                f"the record of the score {self.label!r} is a harmonic mean with of=, the two "
                "columns that it is of, or neither; give both, or none"
            )

    @property
    def heading(self) -> str:
        """The label as a table has it, with an arrow where less is better."""
        arrow = " ↓" if self.higher_is_better is False else ""
        return f"{self.label[0].upper()}{self.label[1:]}{arrow}"


@cache
def score_records() -> dict[str, Score]:
    """Every score by the name of its column, in the order of their files.

    Analysis and figures stand on floors below the scores, so that they cannot import them; yet a
    table of rows may hold any score, and comes from anywhere. The records are words and numbers,
    found by the folder's name when they are first asked for.
    """
    return exported("steerlab.scores", "RECORDS")


def is_share(name: str) -> bool | None:
    """Whether a column holds shares, by the record of its score; None for a column without one.

    A harmonic mean is one of two shares. That the record decides, and not the values, keeps the
    kind of a column's interval the same in every table.
    """
    record = score_records().get(name)
    return None if record is None else record.aggregate != "mean"


def summary_key(name: str) -> str:
    """What a summary calls the score of this column."""
    return score_records()[name].key or name
