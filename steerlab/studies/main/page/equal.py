"""Tables of methods at one cost, and of each control at both of its chances."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlab.core.columns import score_records
from steerlab.figures.style import readable
from steerlab.studies.html.formats import Interval, interval
from steerlab.studies.main.page.values import controls, protagonist, setting


@dataclass(frozen=True)
class CostRow:
    """A method at the cost; without a setting where its largest strength costs less."""

    method: str
    setting: str
    dose: Interval | None
    displacement: Interval | None
    joint: Interval | None
    difference: Interval | None


@dataclass(frozen=True)
class Cost:
    """The methods at one cost, which the main method has at its own choice."""

    label: str
    level: float
    main: str
    rows: list[CostRow]


@dataclass(frozen=True)
class Chance:
    """A control at one of its chances."""

    control: str
    chance: str
    setting: str
    dose: Interval | None
    displacement: Interval | None
    joint: Interval | None
    shown: bool


def equal_costs(summary: Mapping[str, Any]) -> list[Cost]:
    """The methods at the main one's dose and at its fluency; nothing in older runs and in races."""
    name = protagonist(summary)
    if name is None:
        return []
    return [
        Cost(
            label=_label(cost),
            level=given["level"],
            main=readable(name),
            rows=[_row(method, result) for method, result in given["methods"].items()],
        )
        for cost, given in summary.get("equal", {}).items()
        if len(given["methods"]) > 1
    ]


def chances(summary: Mapping[str, Any]) -> list[Chance]:
    """Each steered control at the method's own setting and at its own choice, the weaker too."""
    given = summary.get("controls", {})
    return [
        Chance(
            control=readable(name),
            chance=chance.replace("cell", "setting"),
            setting=setting(result),
            dose=interval(result.get("dose")),
            displacement=interval(result.get("displacement")),
            joint=interval(result.get("joint")),
            shown=summary["results"][name].get("variant") == chance,
        )
        for name in controls(summary)
        for chance, result in given.get(name, {}).items()
    ]


def _row(method: str, result: Mapping[str, Any] | None) -> CostRow:
    result = result or {}
    return CostRow(
        method=readable(method),
        setting=setting(result),
        dose=interval(result.get("dose")),
        displacement=interval(result.get("displacement")),
        joint=interval(result.get("joint")),
        difference=interval(result.get("difference")),
    )


def _label(cost: str) -> str:
    return score_records()[cost].label if cost in score_records() else cost
