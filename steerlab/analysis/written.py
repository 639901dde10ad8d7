"""Results as a table of a paper: a line for each setting, each score with its interval."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.results import result
from steerlab.analysis.tables import markdown, need_columns, spelled
from steerlab.core.columns import score_records, summary_key
from steerlab.core.errors import SteerlabError

SCORES = ("joint", "in_language", "relevant", "repetition", "bits_per_byte_ratio")
SETTING = ("method", "operator", "layer", "strength")  # what one line is of
_ESCAPED = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
}


def table(
    rows: pd.DataFrame,
    kind: str = "markdown",
    *,
    scores: Sequence[str] | None = None,
    digits: int = 2,
    seed: int = 0,
) -> Any:  # text, or a frame
    """The scores of rows as a table, a line for each setting, each score with its 95 % interval
    over sentences, as `result` has it.

    A line is of one method, operator, layer and strength: settings are never averaged. Of these
    columns those are shown in which the lines differ, and the caption has the others. Rows of dev
    and of test, or of two models, do not go into one line, and raise `SteerlabError`.

    Args:
        rows: what a sweep or a run gives.
        kind: "latex" (with the rules of booktabs), "markdown", "html", or a "frame" of numbers with
            their `_low` and `_high`.
        scores: columns of scores; by default the main ones that the rows have.
        digits: decimals.
        seed: of the intervals that are drawn.
    """
    if kind not in ("latex", "markdown", "html", "frame"):
        raise SteerlabError(
            f"there is no kind {kind!r} of table; give latex, markdown, html or frame"
        )
    need_columns(rows, "a table", *SETTING, "split", "target", "sentence")
    for column in ("split", "model", "source"):
        if column in rows and rows[column].nunique() > 1:
            values = ", ".join(map(str, rows[column].unique()))
            raise SteerlabError(
                f"these rows are of several values of {column} ({values}), which are no one "
                f"result; give the rows of one, as rows[rows[{column!r}] == "
                f"{rows[column].iloc[0]!r}]"
            )
    names = [name for name in SCORES if name in rows] if scores is None else list(scores)
    for name in names:
        if name not in score_records():
            raise SteerlabError(
                f"there is no score {name!r}; there are {', '.join(score_records())}"
            )
    lines = []
    for setting, part in rows.groupby(list(SETTING), sort=False):
        found = result(part, seed=seed)
        line = dict(zip(SETTING, setting, strict=True)) | {"n": len(part)}
        lines.append((line, {name: found.get(summary_key(name)) for name in names}))
    differing = [name for name in SETTING if len({line[name] for line, _ in lines}) > 1]
    shown = [name for name in SETTING if name in differing or name == "method"]
    if kind == "frame":
        return pd.DataFrame([_numbers(line, found) for line, found in lines])
    head = [*(name.capitalize() for name in shown), *(score_records()[n].heading for n in names)]
    cells = [
        [*(_cell(line[name]) for name in shown), *(_spelled(found[n], digits) for n in names)]
        for line, found in lines
    ]
    frame = pd.DataFrame(cells, columns=head)
    caption = _caption(rows, [name for name in SETTING if name not in shown], lines[0][0])
    if kind == "markdown":
        return f"{markdown(frame)}\n\n{caption}"
    if kind == "html":
        return _html(frame, caption)
    return _latex(frame, caption, texts=len(shown))


def _numbers(line: dict[str, Any], found: dict[str, list[float] | None]) -> dict[str, Any]:
    row = dict(line)
    for name, interval in found.items():
        values = (np.nan,) * 3 if interval is None else interval
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    return row


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


def _spelled(interval: list[float] | None, digits: int) -> str:
    return "–" if interval is None else spelled(interval, digits)


def _caption(rows: pd.DataFrame, constant: Sequence[str], line: dict[str, Any]) -> str:
    """n, what all lines share, and what the brackets are."""
    facts = [f"n = {rows['sentence'].nunique():,} sentences", f"split {rows['split'].iloc[0]}"]
    facts += [f"{name} {_cell(line[name])}" for name in constant]
    targets = rows["target"].unique().tolist()
    facts.append(
        f"targets {', '.join(targets)}" if len(targets) <= 8 else f"{len(targets)} targets"
    )
    return f"Brackets: 95 % intervals over sentences; {'; '.join(facts)}."


def _latex(frame: pd.DataFrame, caption: str, *, texts: int) -> str:
    """A `table` with the rules of booktabs."""
    columns = "l" * texts + "c" * (len(frame.columns) - texts)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(_tex, frame.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_tex, row)) + r" \\" for row in frame.to_numpy().tolist()),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{_tex(caption)}}}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _tex(text: str) -> str:
    return "".join(_ESCAPED.get(sign, sign) for sign in text)


def _html(frame: pd.DataFrame, caption: str) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in frame.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in frame.to_numpy().tolist()
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )
