"""The tables of scores: every method and control with its intervals, and the paired differences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlab.core.columns import Score, score_records, summary_key
from steerlab.figures.style import CONTROLS, readable
from steerlab.studies.html.formats import Interval, interval
from steerlab.studies.main.page.sentences import JOINT_FLOOR, LFS_FLOOR, holds
from steerlab.studies.main.page.values import controls, joint, methods, protagonist, setting

# The drawing of an interval: 150 wide, with room for half a dot at either end.
_LEFT, _LENGTH = 4, 142


@dataclass(frozen=True)
class Forest:
    """Where a drawing of an interval has its dot, the ends of its line, and the line of chance."""

    value: float
    low: float
    high: float
    chance: float | None


@dataclass(frozen=True)
class Row:
    """A method or control in the main table; `run` is false where it has no result."""

    name: str
    variant: str
    run: bool
    joint: Interval | None
    best: bool
    forest: Forest | None
    scores: list[Interval | None]
    setting: str


@dataclass(frozen=True)
class Headline:
    """The main table: its columns and the decimals of the scores, the methods, then the
    controls."""

    columns: list[str]
    digits: list[int]
    methods: list[Row]
    controls: list[Row]
    sentences: str
    outputs: str
    choice: str
    chance: float | None


@dataclass(frozen=True)
class Difference:
    """A paired difference from a control, and whether each score passes its bound (None where the
    bound lies inside the interval)."""

    control: str
    joint: Interval | None
    joint_holds: bool | None
    lfs: Interval | None
    lfs_holds: bool | None


@dataclass(frozen=True)
class Differences:
    """The main method less each control."""

    method: str
    rows: list[Difference]
    joint_floor: float = JOINT_FLOOR
    lfs_floor: float = LFS_FLOOR


def headline(summary: Mapping[str, Any]) -> Headline:
    """All scores: methods first, then controls; a result that is empty was not run."""
    intervals = [interval(result.get("joint")) for result in summary["results"].values()]
    # All drawings share one scale, a little longer than what is drawn on it.
    top = 1.05 * max([0.1, *(read.high for read in intervals if read)])
    best = max((joint(summary, name) for name in methods(summary)), default=-1.0)
    chance = interval(summary.get("chance"))
    shown = _shown(summary)

    def row(name: str) -> Row:
        result = summary["results"][name]
        read = interval(result.get("joint"))
        return Row(
            name=readable(name),
            variant=str(result.get("variant") or ""),
            run=bool(result),
            joint=read,
            best=joint(summary, name) == best,
            forest=_forest(read, top, chance.value if chance else None),
            scores=[interval(result.get(key)) for key in (*shown, "dose", "displacement")],
            setting=setting(result),
        )

    return Headline(
        columns=[*(score.heading for score in shown.values()), "Dose", "Displacement", "Setting"],
        digits=[*(score.digits for score in shown.values()), 2, 2],
        methods=[row(name) for name in methods(summary)],
        controls=[row(name) for name in controls(summary)],
        sentences=str(summary.get("n_sentences", "?")),
        outputs=str(summary.get("n_outputs", "?")),
        choice=str(summary.get("choice", "")),
        chance=chance.value if chance else None,
    )


def _shown(summary: Mapping[str, Any]) -> dict[str, Score]:
    """The scores of the table by their keys in the summary; one that no result has is left out,
    such as a score that is newer than the run."""
    keys = {summary_key(name): score for name, score in score_records().items() if score.on_page}
    results = summary["results"].values()
    return {key: score for key, score in keys.items() if any(key in result for result in results)}


def differences(summary: Mapping[str, Any]) -> Differences | None:
    """The paired difference of the main method from each control, against the criterion."""
    given, name = summary.get("differences"), protagonist(summary)
    if not given or name is None:
        return None
    # The controls in their own order, then what another version called a control.
    order = [control for control in CONTROLS if control in given]
    order += [control for control in given if control not in CONTROLS]
    rows = [
        Difference(
            control=readable(control),
            joint=interval(given[control].get("joint")),
            joint_holds=holds([given[control].get("joint")], JOINT_FLOOR),
            lfs=interval(given[control].get("lfs")),
            lfs_holds=holds([given[control].get("lfs")], LFS_FLOOR),
        )
        for control in order
    ]
    return Differences(readable(name), rows)


def _forest(read: Interval | None, top: float, chance: float | None) -> Forest | None:
    """Places on the scale from 0 to `top`; what lies outside stands at its end."""
    if read is None:
        return None
    value, low, high = (_LEFT + _LENGTH * min(max(part, 0.0), top) / top for part in read)
    return Forest(value, low, high, None if chance is None else _LEFT + _LENGTH * chance / top)
