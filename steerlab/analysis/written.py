"""Results as a table of a paper: a line for each setting, each score with its interval."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.choices import at, choose, reads_as_share
from steerlab.analysis.results import own_interval, result
from steerlab.analysis.tables import markdown, need_columns, spelled
from steerlab.core.columns import score_records, summary_key
from steerlab.core.costs import cost_of
from steerlab.core.errors import SteerlabError

SCORES = ("joint", "in_language", "relevant", "repetition", "bits_per_byte_ratio")
SETTING = ("method", "operator", "layer", "strength")  # what one line is of
NO_SCORES = (*SETTING, "sentence", "draw", "seed", "tokens", "dose")  # numbers that judge nothing
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
    best: str | None = None,
    digits: int = 2,
    seed: int = 0,
) -> Any:  # text, or a frame
    """The scores of rows as a table, a line for each setting, each score with its 95 % interval
    over sentences, as `result` has it.

    A line is of one method, operator, layer and strength: settings are never averaged. Of these
    columns those are shown in which the lines differ, and the caption has the others. Rows of dev
    and of test, or of two models, do not go into one line, and raise `SteerlabError`, as a score
    does that the rows do not have. Where the rows know what the fits took (`rows.attrs["fit"]`, of
    a sweep and of a run's `rows`), two more columns have it: seconds by the clock, with all that
    was read for the fit, and the tokens that the model read, passes of training included.

    Args:
        rows: what a sweep or a run gives.
        kind: "latex" (with the rules of booktabs), "markdown", "html", or a "frame" of numbers with
            their `_low` and `_high`.
        scores: columns of scores, yours (`sweep(scorers=)`) among them; by default the main ones
            that the rows have, and yours.
        best: a score, yours too: only the setting of each method that is best by it is shown. It is
            for rows of dev; what is chosen there is reported on rows of test.
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
    names = _scores(rows, scores)
    fits = rows.attrs
    if scores is None and best is not None and best not in names:
        names += [best] if best in rows else []  # what is not there is refused by the choice
    own = {name: reads_as_share(rows, name) for name in names if name not in score_records()}
    chosen = ""
    if best is not None:
        settings = choose(rows, best)
        rows = pd.concat([at(rows, method, setting) for method, setting in settings.items()])
        chosen = f"each method at its best setting by {best} on these rows"
    lines = []
    for setting, part in rows.groupby(list(SETTING), sort=False):
        found = result(part, seed=seed)
        line = dict(zip(SETTING, setting, strict=True)) | {"n": len(part)} | _fit(part, fits)
        scored = {
            name: own_interval(part, name, share=own[name], seed=seed)
            if name in own
            else found.get(summary_key(name))
            for name in names
        }
        lines.append((line, scored))
    differing = [name for name in SETTING if len({line[name] for line, _ in lines}) > 1]
    shown = [name for name in SETTING if name in differing or name == "method"]
    if kind == "frame":
        return pd.DataFrame([_numbers(line, found) for line, found in lines])
    head = [*(name.capitalize() for name in shown), *map(_heading, names)]
    cells = [
        [*(_cell(line[name]) for name in shown), *(_spelled(found[n], digits) for n in names)]
        for line, found in lines
    ]
    if any(each["fit_tokens"] is not None for each, _ in lines):
        head += ["Fit, s", "Fit, tokens"]
        cells = [[*row, *_fit_cells(line)] for row, (line, _) in zip(cells, lines, strict=True)]
    frame = pd.DataFrame(cells, columns=head)
    caption = _caption(rows, [name for name in SETTING if name not in shown], lines[0][0], chosen)
    if kind == "markdown":
        return f"{markdown(frame)}\n\n{caption}"
    if kind == "html":
        return _html(frame, caption)
    return _latex(frame, caption, texts=len(shown))


def _scores(rows: pd.DataFrame, asked: Sequence[str] | None) -> list[str]:
    """The columns that are shown: those that are asked for, or the main ones and a user's own."""
    own = [
        str(name)
        for name in rows.attrs.get("scorers", ())
        if name in rows and _is_number(rows, name)
    ]
    if asked is None:
        return [name for name in SCORES if name in rows] + own
    # A name alone is not a list of its letters.
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        if name not in score_records() and not (name in rows and _is_number(rows, name)):
            ours = [one for one in score_records() if one in rows]
            others = [
                str(one)
                for one in rows.columns
                if one not in (*ours, *NO_SCORES) and _is_number(rows, one)
            ]
            words = f"; other columns of numbers: {', '.join(others)}" if others else ""
            raise SteerlabError(
                f"there is no score {name!r}; the rows have {', '.join(ours)}{words}"
            )
    return names


def _is_number(rows: pd.DataFrame, name: Any) -> bool:
    return bool(pd.api.types.is_numeric_dtype(rows[name]))


def _heading(name: str) -> str:
    record = score_records().get(name)
    return f"{name[0].upper()}{name[1:]}" if record is None else record.heading


def _fit(part: pd.DataFrame, fits: dict[Any, Any]) -> dict[str, Any]:
    """What fitting the part's directions took; None where the rows do not say."""
    part.attrs = fits  # which grouping drops
    seconds, tokens = cost_of(part) or (None, None)
    return {"fit_seconds": seconds, "fit_tokens": tokens}


def _fit_cells(line: dict[str, Any]) -> list[str]:
    if line["fit_tokens"] is None:
        return ["–", "–"]
    return [f"{line['fit_seconds']:.3g}", f"{line['fit_tokens']:,}"]


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


def _caption(rows: pd.DataFrame, constant: Sequence[str], line: dict[str, Any], chosen: str) -> str:
    """n, what all lines share, how lines were chosen, and what the brackets are."""
    facts = [f"n = {rows['sentence'].nunique():,} sentences", f"split {rows['split'].iloc[0]}"]
    facts += [f"{name} {_cell(line[name])}" for name in constant]
    targets = rows["target"].unique().tolist()
    facts.append(
        f"targets {', '.join(targets)}" if len(targets) <= 8 else f"{len(targets)} targets"
    )
    facts += [chosen] if chosen else []
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
