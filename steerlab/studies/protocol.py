"""Choose on dev, report on test, beside controls that have the same chance.

A study compares methods. Each is tried at several settings, a layer and a strength, on the dev
split; the best of them stands for it and is run on the test split, whose sentences had no part in
the choice. Choosing on the sentences that one reports would make a method look better the more
settings it has.

A method has to beat controls. A steered control, such as random directions, could be weak at the
method's own setting by bad luck, and at a choice of its own it could miss the dose that the method
has: it is run at both, and the stronger of the two is shown beside the methods, both in a table of
their own. The other controls have no edit: the model as it is, and prompts that ask for the
language.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from steerlab.analysis.choices import Setting, choose
from steerlab.core.errors import SteerlabError
from steerlab.studies.design import Design
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.runner import Runner
from steerlab.sweeps.twins import equalised

Log = Callable[[str], object]  # takes a line that says what is going on


@dataclass(frozen=True)
class Report:
    """What `choose_and_report` found.

    Args:
        dev: the rows that choices were made from; empty where choices were given.
        choices: the layer and strength of each method, and of each control that chose.
        test: all rows that were run to report on.
        tables: of these, the rows that stand for each method and control.
        shown: which of its chances each steered control is shown at.
        variants: the rows of each steered control at each of its chances.
    """

    dev: pd.DataFrame
    choices: dict[str, Setting]
    test: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    shown: dict[str, str]
    variants: dict[str, dict[str, pd.DataFrame]]


def choose_and_report(
    runner: Runner,
    design: Design,
    *,
    choices: Mapping[str, Setting] | None = None,
    split: str = "test",
    fluency: bool = False,
    run_dev: Callable[[Runner, list[Cell]], pd.DataFrame] | None = None,
    progress: bool = False,
    log: Log | None = None,
) -> Report:
    """Run a design: try every setting on dev, choose, and run what was chosen on `split`.

    Raises if a cell fails, since a table of the rest would mislead; what is finished is in the
    runner's folder.

    Args:
        runner: runs the cells of both splits.
        design: what is compared.
        choices: settings that are given, for a design that leaves nothing to choose: dev is not
            run then.
        split: the split to report on.
        fluency: score fluency on `split`; it costs a pass of its own, and no choice reads it.
        run_dev: runs the dev cells in another way, such as a race, and gives their rows.
        progress: show how far each run is.
        log: takes a line before each run.
    """
    dev = pd.DataFrame()
    if choices is None:
        cells = design.dev_cells()
        # What can steer nothing has no cells and is left out; but the main method has to be there.
        expected = {cell.method for cell in cells if cell.steered}
        if design.main not in expected:
            raise SteerlabError(
                f"the main method {design.main} can steer no pair of languages at any setting; "
                "put another one first"
            )
        if run_dev is None:
            dev = run_cells(runner, cells, title="choosing on dev", progress=progress, log=log)
        else:
            dev = run_dev(runner, equalised(runner, cells))
        choices = choose(design.completed(dev))
    else:
        expected = set(design.chosen)
    lost = sorted(expected - choices.keys())
    if lost:
        raise SteerlabError(
            f"there is no setting to report {', '.join(lost)} at: none was given, or every one "
            "failed on dev; give one, or mend what failed and run again"
        )
    if fluency:
        runner = runner.with_fluency()
    cells = design.test_cells(choices, split)
    title = f"reporting on {split}"
    test = run_cells(runner, cells, title=title, progress=progress, log=log)
    tables, shown = design.tables(test, choices)
    return Report(dev, dict(choices), test, tables, shown, design.variants(test, choices))


def run_cells(
    runner: Runner,
    cells: list[Cell],
    *,
    title: str,
    progress: bool = False,
    log: Log | None = None,
) -> pd.DataFrame:
    """The rows of all the cells; raises if one failed, since a table of the rest would mislead.

    Random twins are scaled to the dose of what they are twins of before they run.

    Args:
        runner: what runs them.
        cells: the settings.
        title: what the display of progress says.
        progress: show how far it is.
        log: is told what begins.
    """
    if log is not None:
        log(f"{title}: {len(cells)} cells")
    rows = runner.run(equalised(runner, cells), title=title, progress=progress)
    if log is not None and (shared := rows.attrs.get("shared")):
        log(f"{shared} of them are the same edits as others, whose rows stand for both")
    failed = rows.attrs.get("failed")
    if failed:
        raise SteerlabError(
            f"{len(failed)} of {len(cells)} cells failed, the first with: "
            f"{next(iter(failed.values()))}; what was finished is kept: mend it and run again"
        )
    return rows
