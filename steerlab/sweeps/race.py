"""Racing: find the best layer and strength by successive halving, at a fraction of the whole grid's
cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from steerlab.analysis.choices import (
    SETTING,
    Setting,
    less_is_better,
    need_score,
    ranking,
    reads_as_share,
)
from steerlab.analysis.intervals import by_sentence, paired_difference
from steerlab.core.errors import SteerlabError
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.runner import Runner

FIRST = 8  # the first round reads the n-th part of the lines, each later one twice as many
KEEP = 2  # the n-th part of the settings goes on

# The cells of each setting, of each method.
CellsBySetting = dict[str, dict[Setting, list[Cell]]]


@dataclass(frozen=True)
class Race:
    """What a race ran, and how far each setting went.

    Args:
        rows: of all cells, on the lines that each was run on.
        settings: one row for each setting: method, layer, strength, lines (that it read), of (all
            lines), joint (or the score that was raced by) with its 95 % interval low to high, kept
            (whether it went to the end).
    """

    rows: pd.DataFrame
    settings: pd.DataFrame


def race(
    runner: Runner,
    cells: Sequence[Cell],
    *,
    value: str = "joint",
    seed: int = 0,
    title: str = "race",
    progress: bool = False,
) -> Race:
    """Run the cells of each method on a few lines, then the better half of its settings on twice as
    many, and so on.

    A setting is one layer and strength, on all of its cells' targets. After each round the better
    half by the score goes on (at least two settings), without those that are plainly worse: whose
    paired difference from the leader has a 95 % interval that leaves out 0. Outputs without the
    score (NaN) are left out of both. The settings that are left at the end have read every line.
    From 12 settings on that is about a third of the grid's rows (at most 0.36: halves are rounded
    up); of fewer it is more, since two always go on. Source: successive halving (Jamieson and
    Talwalkar, 2016).

    Args:
        runner: runs the cells.
        cells: all of them, of one split.
        value: the column of the score; one of a user's own is better where it is larger.
        seed: of the order in which lines are read.
        title: what the display of progress says.
        progress: show how far each round is.
    """
    left: CellsBySetting = {}
    for cell in cells:
        left.setdefault(cell.method, {}).setdefault(cell.setting, []).append(cell)
    counts = {len(runner.lines(cell)) for cell in cells}
    if len(counts) != 1:
        raise SteerlabError(f"a race needs cells of one split; these have {sorted(counts)} lines")
    lines = counts.pop()
    order = np.random.default_rng(seed).permutation(lines).tolist()
    rows = pd.DataFrame()
    failed: dict[str, str] = {}
    done = 0
    while done < lines:
        until = min(lines, max(2 * done, math.ceil(lines / FIRST)))
        running = _on_lines(left, tuple(sorted(order[done:until])))
        fresh = runner.run(running, title=f"{title}: {until} of {lines} lines", progress=progress)
        rows = pd.concat([rows, fresh.reset_index(drop=True)], ignore_index=True)
        need_score(rows, value)
        done = until
        lost = fresh.attrs.get("failed", {})
        if lost:
            failed |= lost
            # A setting with a failed cell has rows of some targets only, and cannot be compared.
            gone = {(cell.method, cell.setting) for cell in running if runner.key(cell) in lost}
            left = _without(left, gone)
        if done < lines:
            left = {
                method: {setting: part[setting] for setting in survivors(rows, method, part, value)}
                for method, part in left.items()
            }
    rows.attrs = {"failed": failed} if failed else {}
    return Race(rows, _table(rows, left, lines, value))


def _on_lines(running: CellsBySetting, lines: tuple[int, ...]) -> list[Cell]:
    """The cells of all settings, on these lines only."""
    on_lines = []
    for settings in running.values():
        for cells in settings.values():
            on_lines += [replace(cell, lines=lines) for cell in cells]
    return on_lines


def _without(running: CellsBySetting, lost: set[tuple[str, Setting]]) -> CellsBySetting:
    """What is left without settings of which a cell failed, and without methods that have no
    other."""
    kept = {}
    for method, settings in running.items():
        finished = {
            setting: cells for setting, cells in settings.items() if (method, setting) not in lost
        }
        if finished:
            kept[method] = finished
    return kept


def survivors(
    rows: pd.DataFrame, method: str, settings: Mapping[Setting, object], value: str = "joint"
) -> list[Setting]:
    """The settings of a method that go on to the next round, the best first.

    Args:
        rows: of all that was run so far.
        method: its name.
        settings: those that are still in the race.
        value: the column of the score.
    """
    of_method = rows[rows["method"] == method]
    ranked = [setting for setting in ranking(of_method, value) if setting in settings]
    # Two at least: the difference of the last two may well be chance.
    leader, *others = ranked[: max(2, math.ceil(len(ranked) / KEEP))]
    return [leader, *(other for other in others if not _behind(of_method, other, leader, value))]


def _behind(rows: pd.DataFrame, setting: Setting, leader: Setting, value: str = "joint") -> bool:
    """Whether a setting's paired difference from the leader is plainly for the worse."""
    own, other = _finite(_at(rows, setting), _at(rows, leader), value)
    if own["sentence"].nunique() < 2:
        return False  # one sentence has no interval
    _, low, high = paired_difference(
        own[value].to_numpy(float),
        own["sentence"].to_numpy(),
        other[value].to_numpy(float),
        other["sentence"].to_numpy(),
        share=reads_as_share(rows, value),
    )
    return bool(low > 0 if less_is_better(value) else high < 0)


def _at(rows: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    layer, strength = setting
    return rows[(rows["layer"] == layer) & (rows["strength"] == strength)]


def _finite(a: pd.DataFrame, b: pd.DataFrame, value: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The outputs of two settings without those whose score one of the two lacks."""
    finite = [np.isfinite(side[value].to_numpy(float)) for side in (a, b)]
    if all(each.all() for each in finite):
        return a, b
    names = [name for name in ("target", "sentence", "draw") if name in a]
    keys = [pd.MultiIndex.from_frame(side[names]) for side in (a, b)]
    both = keys[0][finite[0]].intersection(keys[1][finite[1]])
    return a[keys[0].isin(both)], b[keys[1].isin(both)]


def _table(
    rows: pd.DataFrame, left: Mapping[str, Mapping[Setting, object]], lines: int, value: str
) -> pd.DataFrame:
    table = []
    share = reads_as_share(rows, value)
    for (method, layer, strength), part in rows.groupby(["method", *SETTING]):
        known = part[np.isfinite(part[value].to_numpy(float))]
        mean = low = high = math.nan
        if len(known):
            mean, low, high = by_sentence(
                known[value].to_numpy(float), known["sentence"].to_numpy(), share=share
            )
        table.append(
            {
                "method": method,
                "layer": layer,
                "strength": strength,
                "lines": part["sentence"].nunique(),
                "of": lines,
                value: mean,
                "low": low,
                "high": high,
                "kept": (layer, strength) in left.get(str(method), {}),
            }
        )
    return pd.DataFrame(table)
