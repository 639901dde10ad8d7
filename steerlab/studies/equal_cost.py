"""Methods where they cost the same: at one dose, or at one loss of fluency.

Each method's own choice is the best that it can do at any cost, and the stronger push may win by
being stronger. So each is run once more at the strength at which it costs what the main method
costs at its choice. The strengths are found on dev, between those that were read there, and run on
test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from steerlab.analysis.choices import Setting, at, whole
from steerlab.analysis.dose import equal
from steerlab.studies.design import Design, Method
from steerlab.studies.protocol import Log, Report, run_cells
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.runner import Runner
from steerlab.sweeps.twins import short

FLUENCY = "bits_per_byte_ratio"
COSTS = ("dose", FLUENCY)
# A strength so near to one of the grid is that one: rows that are there already then serve.
NEAR = 0.02


@dataclass(frozen=True)
class AtCost:
    """Methods at one cost.

    Args:
        cost: the column.
        level: what the main method costs on dev at its choice, and all methods shall cost.
        settings: the layer and strength of each method; None where its largest strength costs
            less.
        tables: the test rows of each method that has a setting.
    """

    cost: str
    level: float
    settings: dict[str, Setting | None]
    tables: dict[str, pd.DataFrame]


def at_equal_cost(
    runner: Runner,
    design: Design,
    report: Report,
    *,
    costs: Sequence[str] = COSTS,
    progress: bool = False,
    log: Log | None = None,
) -> list[AtCost]:
    """The methods of a report at the main method's costs, each at the layer of its own choice.

    A method that costs more at its smallest strength is taken there.

    Args:
        runner: runs what is not there yet.
        design: what was compared.
        report: what `choose_and_report` gave, with dev rows.
        costs: columns of the rows: `dose`, `displacement`, or the fluency.
        progress: show how far each run is.
        log: is told what begins.
    """
    dev = whole(_at_chosen_layers(design, report))
    if FLUENCY in costs:
        dev = dev.assign(**{FLUENCY: runner.fluency_of(dev)})
    found = []
    for cost in costs:
        level = float(at(dev, design.main, report.choices[design.main])[cost].mean())
        settings = strengths(dev, design, report, cost=cost, level=level)
        cells = _missing(design, report, settings)
        test = report.test
        if cells:
            more = run_cells(
                runner.with_fluency(),
                cells,
                title=f"at equal {cost.replace('_', ' ')}",
                progress=progress,
                log=log,
            )
            test = pd.concat([test, more], ignore_index=True)
        tables = {
            method.name: design.rows_at(test, method, setting)
            for method in design.methods
            if (setting := settings[method.name]) is not None
        }
        found.append(AtCost(cost, level, settings, tables))
    return found


def strengths(
    dev: pd.DataFrame, design: Design, report: Report, *, cost: str, level: float
) -> dict[str, Setting | None]:
    """The setting of each method at which it costs so much on dev; the main method's is its choice.

    Args:
        dev: rows of the methods at the layers of their choices.
        design: what was compared.
        report: with the choices.
        cost: the column of the cost.
        level: the cost that all shall have.
    """
    layers = {method.name: report.choices[method.name][0] for method in design.methods}
    settings = equal(dev, layers, cost=cost, level=level)
    settings[design.main] = report.choices[design.main]
    return {method.name: _of_the_grid(method, settings[method.name]) for method in design.methods}


def _of_the_grid(method: Method, setting: Setting | None) -> Setting | None:
    """The setting, or one of the method's grid that is nearly the same."""
    if setting is None:
        return None
    layer, strength = setting
    for there, size in method.settings:
        if there == layer and abs(size - strength) <= NEAR * abs(size):
            return there, size
    return layer, short(strength)


def _at_chosen_layers(design: Design, report: Report) -> pd.DataFrame:
    """The dev rows of the methods at the layers of their choices."""
    dev = report.dev
    parts = [
        dev[(dev["method"] == method.name) & (dev["layer"] == report.choices[method.name][0])]
        for method in design.methods
    ]
    return pd.concat(parts, ignore_index=True)


def _missing(design: Design, report: Report, settings: dict[str, Setting | None]) -> list[Cell]:
    """The test cells of settings that no test row has yet."""
    cells: list[Cell] = []
    split = str(report.test["split"].iloc[0])
    for method in design.methods:
        setting = settings[method.name]
        if setting is not None and at(report.test, method.name, setting).empty:
            cells += method.cells([setting], design.test, split=split, form=design.form)
    return [cell for cell in cells if design.able(cell)]
