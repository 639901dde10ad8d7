"""Racing: the best layer and strength by successive halving, where the whole grid would cost
several times as much."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from steerlab.analysis.choices import SETTING, Setting, ranking
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
    """The rows of all that was run, and a table of the settings: which went how far, with what
    score.

    `settings`: method, layer, strength, lines (read), of (all lines), joint, low, high, kept (to
    the end).
    """

    rows: pd.DataFrame
    settings: pd.DataFrame


def race(
    runner: Runner,
    cells: Sequence[Cell],
    *,
    seed: int = 0,
    title: str = "race",
    progress: bool = False,
) -> Race:
    """Run the cells of each method on a few lines, then the better half of its settings on twice as
    many, and so on.

    A setting is one layer and strength, on all of its cells' targets. After each round those go on
    that are among the better half by `joint` (at least two), unless their paired difference from
    the leader has a 95 % interval wholly below 0; whoever is left reads every line. From 12
    settings on that is about a third of the grid's rows (at most 0.36: halves are rounded up); of
    fewer it is more, since two always go on. `seed` is the order of the lines. Source:
    successive halving (Jamieson and Talwalkar, 2016).
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
        done = until
        if lost := fresh.attrs.get("failed", {}):
            failed |= lost
            gone = {(cell.method, cell.setting) for cell in running if runner.key(cell) in lost}
            left = _without(left, gone)
        if done < lines:
            left = {
                method: {setting: part[setting] for setting in survivors(rows, method, part)}
                for method, part in left.items()
            }
    rows.attrs = {"failed": failed} if failed else {}
    return Race(rows, _table(rows, left, lines))


def _on_lines(running: CellsBySetting, lines: tuple[int, ...]) -> list[Cell]:
    """The cells of all settings, on these lines only."""
    found = []
    for settings in running.values():
        for cells in settings.values():
            found += [replace(cell, lines=lines) for cell in cells]
    return found


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


def survivors(rows: pd.DataFrame, method: str, settings: Mapping[Setting, object]) -> list[Setting]:
    """Those of a method's settings that go on."""
    mine = rows[rows["method"] == method]
    ranked = [setting for setting in ranking(mine) if setting in settings]
    best = ranked[: max(2, math.ceil(len(ranked) / KEEP))]
    return [best[0], *(other for other in best[1:] if not _behind(mine, other, best[0]))]


def _behind(rows: pd.DataFrame, setting: Setting, leader: Setting) -> bool:
    """Whether a setting's paired difference from the leader is plainly below 0."""
    sides = []
    for layer, strength in (setting, leader):
        part = rows[(rows["layer"] == layer) & (rows["strength"] == strength)]
        sides += [part["joint"].to_numpy(float), part["sentence"].to_numpy()]
    several = len(set(sides[1])) > 1  # one sentence has no interval
    return several and bool(paired_difference(*sides)[2] < 0)


def _table(
    rows: pd.DataFrame, left: Mapping[str, Mapping[Setting, object]], lines: int
) -> pd.DataFrame:
    table = []
    for (method, layer, strength), part in rows.groupby(["method", *SETTING]):
        joint, low, high = by_sentence(part["joint"].to_numpy(float), part["sentence"].to_numpy())
        table.append(
            {
                "method": method,
                "layer": layer,
                "strength": strength,
                "lines": part["sentence"].nunique(),
                "of": lines,
                "joint": joint,
                "low": low,
                "high": high,
                "kept": (layer, strength) in left.get(str(method), {}),
            }
        )
    return pd.DataFrame(table)
