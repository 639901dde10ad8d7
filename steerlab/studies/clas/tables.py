"""The scores as a person reads them: on a terminal, and as a Markdown file."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from steerlab.core.languages import language
from steerlab.studies.clas.scoring import SCORES

HEADS = {"lfs": "LFS", "or": "OR", "s": "S", "joint": "joint"}


def markdown(scored: pd.DataFrame, *, title: str, notes: Sequence[str]) -> str:
    """The whole table: every method over all rows, then S and joint by target and by source."""
    parts = [f"# CLaS-Bench: {title}", "\n".join(f"- {note}" for note in notes)]
    for group, heading in (("pooled", "All pairs"), ("across", "Two different languages")):
        rows = [[row["method"], *_cells(row)] for row in _records(scored, group)]
        if rows:
            parts += [
                f"## {heading}",
                _lines(["method", *HEADS.values(), "answers", "unread"], rows),
            ]
    for group, heading in (("target", "By target"), ("source", "By source")):
        parts += [f"## {heading}", "S / joint, in percent.", _by_language(_records(scored, group))]
    parts.append(
        "In percent, with 95 % intervals over questions. LFS: answers in the target "
        "language. OR: mean "
        "rating. S: harmonic mean of these two averages. joint: answers in the language that have "
        "the full rating."
    )
    return "\n\n".join(parts) + "\n"


def show(scored: pd.DataFrame, notes: Sequence[str], *, console: Console) -> None:
    """The methods over all pairs and over those of two languages, on a terminal."""
    shown = Table("method", "pairs", *HEADS.values(), "unread")
    for row in _records(scored, "pooled", "across"):
        means = [_number(row[name]) for name in ("lfs", "or")]
        intervals = [_interval_of(row, name) for name in ("s", "joint")]
        shown.add_row(
            row["method"],
            "all" if row["group"] == "pooled" else "across",
            *means,
            *intervals,
            str(row["unread"]),
        )
    console.print(shown)
    for note in notes:
        console.print(note, markup=False, highlight=False)


def _records(scored: pd.DataFrame, *groups: str) -> list[dict[str, Any]]:
    """The rows of some groups, by their columns' names."""
    records = scored[scored["group"].isin(groups)].to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


def _cells(row: Mapping[str, Any]) -> list[str]:
    intervals = [_interval_of(row, name) for name in SCORES]
    return [*intervals, str(row["n"]), str(row["unread"])]


def _interval_of(row: Mapping[str, Any], name: str) -> str:
    return _interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _interval(value: float, low: float, high: float) -> str:
    if value != value:  # NaN: there were no ratings
        return "–"
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    """One digit after the point; two below one percent, so that one success of thousands is not
    read as none."""
    if value != value:
        return "–"
    return f"{value:.2f}" if 0 < value < 1 else f"{value:.1f}"


def _by_language(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a line for each language and a column for each method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    langs = list(dict.fromkeys(row["language"] for row in rows))
    entries = {
        (row["language"], row["method"]): f"{_number(row['s'])} / {_number(row['joint'])}"
        for row in rows
    }
    lines = []
    for lang in langs:
        own = [entries.get((lang, method), "–") for method in methods]
        lines.append([f"{language(lang).name} ({lang})", *own])
    return _lines(["language", *methods], lines)


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column on the left, numbers on the right."""
    ruled = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)
