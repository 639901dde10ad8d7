"""The best layer and strength by racing, against a loop over the whole grid; and whether the choice
is as good.

The race is the package's: it draws no line twice, judges every output, and stops settings that fall
behind. The loop is contender (a) of the sweep on the same cells with natural ends; its judging is
left out of its time. For the choice, each seed takes 8 of the dev lines; the setting that the whole
grid chooses on them and the setting that the race chooses are both run on 40 test lines.
"""

import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measures import ratio, seconds, spread
from shared import NEW_TOKENS, PROMPTS, STRENGTHS, TARGETS, material
from workers import Worker

import steerlab as sl
import steerlab.sweeps.runner
from steerlab.analysis.choices import choose
from steerlab.scores.langid import identifier
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.fits import fit
from steerlab.sweeps.race import race
from steerlab.sweeps.runner import Runner

REGRET = 0.03  # of test joint, which the issue of racing allows
Setting = tuple[int, float]


class Recorded(Runner):
    """A runner whose rows are known already: a race on it costs nothing."""

    rows: pd.DataFrame
    few: list[int]  # the sentences that count as its lines

    def lines(self, cell: Cell) -> Any:
        return self.few

    def run(
        self, cells: Iterable[Cell], *, title: str = "", progress: bool = False
    ) -> pd.DataFrame:
        found = []
        for cell in cells:
            asked = [self.few[place] for place in cell.lines or range(len(self.few))]
            rows: Any = self.rows.loc[(cell.layer, cell.strength, cell.target), :]
            found.append(rows[rows["sentence"].isin(asked)])
        return pd.concat(found)


def measure(*, quick: bool) -> dict[str, Any]:
    steerlab.sweeps.runner.NEW_TOKENS = NEW_TOKENS  # this process is the section's own
    model, corpus = sl.load(), sl.corpus().select(["en", *TARGETS])
    fits = fit(model, corpus, ["diffmean"], layers=range(model.n_layers), source="en")
    grid = [
        Cell(
            method="diffmean",
            operator="add",
            layer=layer,
            strength=strength,
            source="en",
            target=target,
            split="dev",
            fits=("diffmean",),
        )
        for layer in range(model.n_layers)
        for strength in STRENGTHS
        for target in TARGETS
    ]

    def bench(lines: int | None) -> Runner:
        return Runner(model, corpus, fits, identifier(), {"dev": lines, "test": lines})

    speed = _speed(grid, bench, rounds=1 if quick else 2, cells=8 if quick else 32)
    choice = _choice(
        grid, bench, seeds=3 if quick else 10, dev=16 if quick else 24, test=8 if quick else 40
    )
    tables = [
        {
            "title": f"polyglot: the best of {len(grid) // len(TARGETS)} layers and strengths",
            "rows": speed,
        },
        {"title": "What is lost by racing", "rows": choice},
    ]
    return {"tables": tables, "notes": [" ".join((__doc__ or "").split())]}


def _speed(grid: list[Cell], bench: Any, *, rounds: int, cells: int) -> list[dict[str, Any]]:
    loop: list[float] = []
    whole, raced = [], []
    draw, rows = np.random.default_rng(0), 0
    with Worker("hooks", Path(sys.executable), material("polyglot").file) as worker:
        worker.run([0], natural=True)
        bench(2).run(grid[:8])
        for _ in range(rounds):
            chosen = draw.choice(len(grid), cells, replace=False).tolist()
            loop.append(float(worker.run(chosen, natural=True)["seconds"]) / cells * len(grid))
            whole.append(seconds(lambda: bench(PROMPTS).run(grid)))
            start = time.perf_counter()
            rows = len(race(bench(PROMPTS), grid).rows)
            raced.append(time.perf_counter() - start)
    label = "times the race's"
    return [
        {
            "way": "(a) loop over all cells, not judged",
            "s": spread(loop),
            label: ratio(loop, raced),
            "aim": "15",
        },
        {"way": "steerlab, all cells, judged", "s": spread(whole), label: ratio(whole, raced)},
        {
            "way": f"steerlab, raced: {rows} of {len(grid) * PROMPTS} outputs, judged",
            "s": spread(raced),
        },
    ]


def _choice(
    grid: list[Cell], bench: Any, *, seeds: int, dev: int, test: int
) -> list[dict[str, Any]]:
    table = bench(dev).run(grid)
    lines = sorted(table["sentence"].unique())
    picked: list[tuple[Setting, Setting, int]] = []
    for seed in range(seeds):
        few = sorted(np.random.default_rng(seed).choice(lines, PROMPTS, replace=False).tolist())
        recorded = Recorded(**{k: v for k, v in vars(bench(dev)).items() if not k.startswith("_")})
        recorded.rows, recorded.few = (
            table.set_index(["layer", "strength", "target"], drop=False),
            few,
        )
        raced = race(recorded, grid, seed=seed)
        full = choose(table[table["sentence"].isin(few)])["diffmean"]
        picked.append((full, choose(raced.rows)["diffmean"], len(raced.rows)))
    settings = {setting for pair in picked for setting in pair[:2]}
    cells = [
        replace(cell, split="test") for cell in grid if (cell.layer, cell.strength) in settings
    ]
    joint = bench(test).run(cells).groupby(["layer", "strength"])["joint"].mean()
    lost = [float(joint[full] - joint[raced]) for full, raced, _ in picked]
    rows = [
        {
            "seed": seed,
            "whole grid: layer, strength": f"{full[0]}, {full[1]:g}",
            "its test joint": float(joint[full]),
            "race: layer, strength": f"{raced[0]}, {raced[1]:g}",
            "test joint of the race's": float(joint[raced]),
            "lost": lost[seed],
            "share of the grid run": count / (len(grid) * PROMPTS),
        }
        for seed, (full, raced, count) in enumerate(picked)
    ]
    within = sum(loss <= REGRET for loss in lost)
    return [
        *rows,
        {
            "seed": f"**within {REGRET:g}: {within} of {seeds}** (aim: 9 of 10)",
            "lost": spread(lost),
        },
    ]
