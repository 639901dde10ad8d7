"""Cells of random twins that have exactly the dose of what they are twins of."""

from collections.abc import Sequence
from dataclasses import replace

from steerlab.edits import Edit
from steerlab.engine.random_edits import equal_doses
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.runner import Runner

# At most, of the cell's own prompts: the doses agree over them. Every seed of every twin is decoded
# on them, so that more would cost more than the control itself.
LINES = 4


def equalised(runner: Runner, cells: Sequence[Cell]) -> list[Cell]:
    """The cells, with each random twin scaled until it has its edit's dose over prompts of the
    cell's split: within 2 % on the prompts, and as near as can be with what is generated.

    Cells without twins stay as they are. The seeds of a cell's twins are those that are drawn.
    Where no twin by the same operator reaches the dose, it is a shift: the rows say so.
    """
    done = list(cells)
    # Cells with the same seeds are measured together, each on its own prompts: decoding is cheaper
    # in large batches.
    by_seeds: dict[tuple[int, ...], list[int]] = {}
    for number, cell in enumerate(cells):
        if cell.twins:
            by_seeds.setdefault(tuple(twin.seed for twin in cell.twins), []).append(number)
    for seeds, numbers in by_seeds.items():
        found = equal_doses(
            runner.model,
            [_prompts(runner, cells[number]) for number in numbers],
            [_plain(runner, cells[number]) for number in numbers],
            seeds=seeds,
            new=runner.new_tokens,
            one_line=runner.one_line,
            batch=runner.batch,
        )
        for number, twins in zip(numbers, found, strict=True):
            rounded = tuple(replace(twin, scale=short(twin.scale)) for twin in twins)
            done[number] = replace(cells[number], twins=rounded)
    return done


def _prompts(runner: Runner, cell: Cell) -> list[str]:
    lines = range(min(LINES, len(runner.lines(cell))))
    return [runner.prompt(cell, line) for line in lines]


def short(number: float) -> float:
    """Four digits of a measured number that becomes part of a cell's key: another process may
    measure another last bit."""
    return float(f"{number:.4g}")


def _plain(runner: Runner, cell: Cell) -> Edit:
    """What the cell's twins are twins of."""
    return replace(cell, twins=()).edit(runner.directions, 0, runner.operators)
