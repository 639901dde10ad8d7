"""The summary of the main run: every number that the report page shows."""

import resource
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd

from steerlab.analysis.comparisons import against, by_language, together
from steerlab.analysis.dose import along_held_out
from steerlab.analysis.results import difference, result
from steerlab.studies.equal_cost import AtCost
from steerlab.studies.main.plan import MAIN, Plan
from steerlab.studies.protocol import Report


def results_of(report: Report, plan: Plan, *, seed: int, raced: bool) -> dict[str, Any]:
    """Scores, differences and tests of what was reported on test, and what dev says of doses and
    choices."""
    tables = ordered(report.tables, plan)
    results = {name: result(table, seed=seed) for name, table in tables.items()}
    for name, chance in report.shown.items():
        results[name]["variant"] = chance
    main = tables[MAIN]
    methods = [name for name in plan.names if name in tables]
    controls = [name for name in tables if name not in methods]
    return {
        "n_sentences": int(main["sentence"].nunique()),
        "n_outputs": len(main),
        "results": results,
        "controls": controls_summary(report, seed=seed),
        "differences": {name: difference(main, tables[name], seed=seed) for name in controls},
        "choice": "on dev, one layer and strength for each method",
        "choices": {
            name: {"layer": layer, "strength": strength}
            for name, (layer, strength) in report.choices.items()
        },
        **_tested(tables, controls, methods, seed=seed),
        **_on_dev(report.dev, methods, seed=seed, raced=raced),
    }


def ordered(tables: dict[str, pd.DataFrame], plan: Plan) -> dict[str, pd.DataFrame]:
    """The tables as they are shown: methods, the model as it is, controls, what asks for the
    language."""
    names = (*plan.names, "unsteered", *plan.controls, *plan.prompts)
    return {name: tables[name] for name in names if name in tables}


def _tested(
    tables: dict[str, pd.DataFrame], controls: list[str], methods: list[str], *, seed: int
) -> dict[str, Any]:
    """Tests of every comparison of the table, in one family."""
    main = tables[MAIN]
    if main["sentence"].nunique() < 2:  # nothing to flip
        return {"tests": {}}
    tests = against(tables, methods, controls, main=MAIN, seed=seed)
    tests["together"] = together(main)
    return {"tests": tests}


def _on_dev(dev: pd.DataFrame, methods: list[str], *, seed: int, raced: bool) -> dict[str, Any]:
    """Scores along the dose, and what a choice for each language would gain."""
    gains: dict[str, Any] = {}
    # A race dropped settings that some languages would take.
    if dev["sentence"].nunique() > 3 and not raced:
        gains = by_language(dev, methods, seed=seed)
    doses = along_held_out(dev, methods, main=MAIN, seed=seed)
    return {"by_language": gains, "doses": doses}


def controls_summary(report: Report, *, seed: int) -> dict[str, dict[str, Any]]:
    """Every steered control at each of its chances, the weaker ones too."""
    return {
        name: {chance: result(rows, seed=seed) for chance, rows in variants.items()}
        for name, variants in report.variants.items()
    }


def equal_summary(costs: Sequence[AtCost], *, seed: int) -> dict[str, Any]:
    """The methods at one cost, by the column of the cost: {"level", "methods"}.

    A method has its result, and in "difference" its joint less the main method's, [value, low,
    high]; it is None where its largest strength costs less than the level.
    """
    summary = {}
    for each in costs:
        main = each.tables[MAIN]
        methods: dict[str, Any] = dict.fromkeys(each.settings)
        for name, rows in each.tables.items():
            methods[name] = result(rows, seed=seed)
            if name != MAIN:
                methods[name]["difference"] = difference(rows, main, seed=seed)["joint"]
        summary[each.cost] = {"level": each.level, "methods": methods}
    return summary


def more_rows(report: Report, costs: Sequence[AtCost]) -> list[pd.DataFrame]:
    """The rows of settings of equal cost that no other part of a report has, each once."""
    seen = set(report.test["cell"])
    more = []
    for each in costs:
        for rows in each.tables.values():
            new = rows[~rows["cell"].isin(seen)]
            seen |= set(new["cell"])
            if len(new):
                more.append(new)
    return more


def race_summary(settings: pd.DataFrame) -> dict[str, Any]:
    """How many settings a race had, and which of them it did not read whole."""
    behind = settings[~settings["kept"]].drop(columns="kept").astype(object)
    return {
        "settings": len(settings),
        "read whole": int(settings["kept"].sum()),
        "not read whole": behind.where(behind.notna(), None).to_dict("records"),
    }


def peak_bytes() -> int:
    """The most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024  # of what the system counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
