"""Methods at one dose and at one fluency: found on dev, run on test, where a row is not there
already."""

import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steerlab.studies.design import Design, Method
from steerlab.studies.equal_cost import FLUENCY, at_equal_cost
from steerlab.studies.main.page.equal import equal_costs
from steerlab.studies.main.summary import equal_summary, more_rows
from steerlab.studies.protocol import choose_and_report
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.runner import Runner

PAIRS = (("en", "de"), ("en", "es"))
SETTINGS = ((3, 0.5), (3, 1.0), (3, 2.0))
# What a strength of 1 costs each method: its dose, and its bits per byte.
DOSES = {"diffmean": 0.4, "strong": 0.8, "weak": 0.1, "same": 0.404}
BITS = {"diffmean": 1.0, "strong": 1.5, "weak": 1.0, "same": 4.0}
BEST = {"diffmean": 1.0, "strong": 2.0, "weak": 2.0, "same": 0.5}


class Costly(Runner):
    """A runner whose rows are made up: the dose and the bits are in proportion to the strength."""

    def __init__(self, **_: Any) -> None:
        self.ran: list[Cell] = []

    def run(
        self, cells: Iterable[Cell], *, title: str = "", progress: bool = False
    ) -> pd.DataFrame:
        rows = []
        for cell in cells:
            self.ran.append(cell)
            for sentence in range(8):
                joint = sentence < (6 if cell.strength == BEST.get(cell.method) else 3)
                columns = {
                    name: getattr(cell, name)
                    for name in "method operator layer strength source target split".split()
                }
                scores = {"joint": joint, "in_language": joint, "relevant": joint}
                dose = DOSES.get(cell.method, 0.0) * cell.strength
                name = f"{cell.method} {cell.setting} {cell.target} {cell.split}"
                rows.append(
                    columns
                    | scores
                    | {"sentence": sentence, "dose": dose, "displacement": 2 * dose, "cell": name}
                    | {"output": name, FLUENCY: self.bits(cell.method, cell.strength)}
                )
        table = pd.DataFrame(rows)
        if len(table) and (table["split"] == "dev").all():
            table[FLUENCY] = np.nan  # dev is run without fluency
        return table

    def bits(self, method: str, strength: float) -> float:
        return 1 + 0.1 * BITS.get(method, 0.0) * strength

    def with_fluency(self) -> "Costly":
        return self

    def fluency_of(self, table: pd.DataFrame) -> np.ndarray:
        pairs = zip(table["method"], table["strength"], strict=True)
        return np.array([self.bits(*pair) for pair in pairs])


@pytest.fixture
def found() -> tuple[Costly, Any, Any]:
    methods = [Method(name=name, operator="add", fits=(name,), settings=SETTINGS) for name in DOSES]
    design = Design(methods=tuple(methods), dev=PAIRS, test=PAIRS)
    runner = Costly()
    report = choose_and_report(runner, design)
    runner.ran.clear()
    return runner, report, at_equal_cost(runner, design, report)


def test_each_method_is_run_where_it_costs_what_the_main_one_does(
    found: tuple[Costly, Any, Any],
) -> None:
    _, report, (dose, fluency) = found
    assert report.choices == {name: (3, strength) for name, strength in BEST.items()}
    assert (dose.cost, fluency.cost) == ("dose", "bits_per_byte_ratio")
    assert dose.level == pytest.approx(0.4)
    assert fluency.level == pytest.approx(1.1)
    # The strongest strength of `weak` has half of the dose; `same` is so near 1.0 that it is 1.0.
    assert dose.settings == {
        "diffmean": (3, 1.0),
        "strong": (3, 0.5),
        "weak": None,
        "same": (3, 1.0),
    }
    assert fluency.settings == {
        "diffmean": (3, 1.0),
        "strong": (3, 0.6667),
        "weak": (3, 1.0),
        "same": (3, 0.5),  # it costs more at its smallest strength
    }
    for each in (dose, fluency):
        assert each.tables.keys() == {name for name, at in each.settings.items() if at}
        for name, rows in each.tables.items():
            assert set(rows["split"]) == {"test"}
            assert set(zip(rows["layer"], rows["strength"], strict=True)) == {each.settings[name]}
            assert len(rows) == 16
    assert {rows["dose"].iloc[0] for rows in dose.tables.values()} <= {0.4, 0.404}


def test_rows_that_are_there_are_not_run_again(found: tuple[Costly, Any, Any]) -> None:
    runner, report, costs = found
    ran = {(cell.method, cell.strength) for cell in runner.ran}
    assert ran == {("strong", 0.5), ("same", 1.0), ("strong", 0.6667), ("weak", 1.0)}
    assert {cell.split for cell in runner.ran} == {"test"}
    more = pd.concat(more_rows(report, costs))
    assert set(zip(more["method"], more["strength"], strict=True)) == ran
    assert not more.duplicated(["cell", "sentence"]).any()


def test_the_summary_and_the_page_say_what_it_is_against(found: tuple[Costly, Any, Any]) -> None:
    _, report, costs = found
    summary = equal_summary(costs, seed=0)
    dose = summary["dose"]
    assert dose["level"] == pytest.approx(0.4)
    assert dose["methods"]["weak"] is None
    assert "difference" not in dose["methods"]["diffmean"]
    strong = dose["methods"]["strong"]
    assert (strong["strength"], strong["displacement"]) == (0.5, pytest.approx(0.8))
    # Where it pushes as hard as DiffMean it is worse, and at its own choice it is as good.
    assert strong["difference"][0] == pytest.approx(3 / 8 - 6 / 8)
    assert report.tables["strong"]["joint"].mean() == 6 / 8
    page = equal_costs({"results": {"diffmean": {"joint": [0.75, 0.5, 0.9]}}, "equal": summary})
    assert [cost.label for cost in page] == ["dose", "bits-per-byte ratio"]
    weak = next(row for row in page[0].rows if row.method == "weak")
    assert (weak.setting, weak.joint) == ("", None)
    assert equal_costs({"results": {}}) == []


def test_the_readme_has_a_row_for_each_method(found: tuple[Costly, Any, Any]) -> None:
    _, _, costs = found
    readme = runpy.run_path(str(Path(__file__).parents[1] / "experiments" / "headline_costs.py"))
    lines = readme["at_equal_cost"]({"equal": equal_summary(costs, seed=0)}, {}).splitlines()
    assert lines[0].startswith(
        "| method | at dose 0.40: strength | joint | minus DiffMean | at bits"
    )
    assert len({line.count("|") for line in lines[:6]}) == 1, "every row has every column"
    assert lines[4].startswith("| weak | costs less at any |  |  | 1 | 0.38 [")
    assert readme["at_equal_cost"]({}, {}) == ""
