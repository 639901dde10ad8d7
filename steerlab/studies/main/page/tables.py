"""The tables of scores: every method and control with its intervals, and the paired differences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlab.core.columns import Score, score_records, summary_key
from steerlab.figures.style import CONTROLS, readable
from steerlab.studies.html.formats import DASH, Interval, interval
from steerlab.studies.main.page.sentences import JOINT_FLOOR, LFS_FLOOR, holds
from steerlab.studies.main.page.values import controls, joint, methods, protagonist, setting

# The drawing of an interval: 150 wide, with room for half a dot at either end.
_LEFT, _LENGTH = 4, 142
FIT = (("Fit, s", "with all that it read"), ("Fit, tokens", "read, in training too"))


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
    fit: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A column of scores, and what it says where its name does not."""

    heading: str
    meaning: str = ""


@dataclass(frozen=True)
class Outcomes:
    """What became of the outputs: a row of shares for each method and control."""

    columns: list[str]
    rows: list[tuple[str, list[Interval | None]]]


@dataclass(frozen=True)
class Headline:
    """The main table: its columns and the decimals of the scores, the methods, then the
    controls; `ceiling` is the references' own share in the language."""

    columns: list[Column]
    digits: list[int]
    methods: list[Row]
    controls: list[Row]
    ceiling: Interval | None
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
    """The main method compared with each control."""

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
    shown = _shown(summary, "scores")
    prompted = joint(summary, "prompt")
    relative = {"joint_of_ceiling": Column("Of the ceiling", "joint over the references' own")}
    relative = {
        key: column
        for key, column in relative.items()
        if any(key in result for result in summary["results"].values())
    }

    fits = FIT if summary.get("fit") else ()

    def row(name: str) -> Row:
        result = summary["results"][name]
        read = interval(result.get("joint"))
        return Row(
            name=readable(name),
            variant=str(result.get("variant") or "").replace("cell", "setting"),
            run=bool(result),
            joint=read,
            best=joint(summary, name) == best,
            forest=_forest(read, top, chance.value if chance else None),
            scores=[
                *(interval(result.get(key)) for key in relative),
                interval(joint(summary, name) / prompted if prompted > 0 and result else None),
                *(interval(result.get(key)) for key in (*shown, "dose", "displacement")),
            ],
            setting=setting(result),
            fit=_fit(summary, name),
        )

    return Headline(
        columns=[
            *relative.values(),
            Column("Of the prompt's", "joint over the prompt's"),
            *(Column(score.heading, score.meaning) for score in shown.values()),
            Column("Dose"),
            Column("Displacement"),
            Column("Setting"),
            *(Column(heading, meaning) for heading, meaning in fits),
        ],
        digits=[2 for _ in relative] + [2, *(score.digits for score in shown.values()), 2, 2],
        methods=[row(name) for name in methods(summary)],
        controls=[row(name) for name in controls(summary)],
        sentences=str(summary.get("n_sentences", "?")),
        outputs=str(summary.get("n_outputs", "?")),
        choice=str(summary.get("choice", "")),
        chance=chance.value if chance else None,
        ceiling=_ceiling(summary),
    )


def _fit(summary: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Seconds and tokens that a method's fit took; a dash for what is not fitted, and nothing of a
    run that is older than these."""
    if not summary.get("fit"):
        return ()
    cost = summary["fit"].get(name)
    return (DASH, DASH) if cost is None else (f"{cost['seconds']:.3g}", f"{cost['tokens']:,}")


def _ceiling(summary: Mapping[str, Any]) -> Interval | None:
    """The share of references that the identifier finds in their language; the same for all."""
    results = summary["results"].values()
    return next((read for result in results if (read := interval(result.get("ceiling")))), None)


def outcomes(summary: Mapping[str, Any]) -> Outcomes | None:
    """The shares of outputs that are empty, copies, loops or cut off; nothing for a run that is
    older than these."""
    shown = _shown(summary, "outputs")
    rows = [
        (readable(name), [interval(summary["results"][name].get(key)) for key in shown])
        for name in (*methods(summary), *controls(summary))
        if summary["results"][name]
    ]
    columns = [f"{score.label[0].upper()}{score.label[1:]}" for score in shown.values()]
    return Outcomes(columns, rows) if shown else None


def _shown(summary: Mapping[str, Any], table: str) -> dict[str, Score]:
    """The scores of a table by their keys in the summary; one that no result has is left out,
    such as a score that is newer than the run."""
    keys = {
        summary_key(name): score
        for name, score in score_records().items()
        if score.on_page and score.table == table
    }
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
