"""The tables beyond scores: tests of every comparison, methods along the dose, a choice for each
language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steerlab.figures.style import CONTROLS, readable
from steerlab.studies.html import environment
from steerlab.studies.html.formats import Interval, decimal, interval, number
from steerlab.studies.main.page.values import protagonist
from steerlab.studies.main.page.verdicts import NEITHER, relation

SEEDED = ("random", "shuffled", "wrong")  # controls of several seeds


@dataclass(frozen=True)
class Compared:
    """A difference with its adjusted p, and whether p is below α."""

    difference: float
    p: float
    passes: bool


@dataclass(frozen=True)
class Worth:
    """How many independent outputs a method's outputs are worth."""

    method: str
    outputs: float
    effective: float
    intraclass: float


@dataclass(frozen=True)
class TwoBest:
    """The two best methods, the difference of the first from the next, and how many sentences would
    tell them apart; None where no number would."""

    best: str
    next: str
    difference: float
    needed: str | None


@dataclass(frozen=True)
class Power:
    """What was tested, how it was corrected, and the differences that so many sentences can see.

    `least` and `least_corrected` are given where no test can pass `alpha`, `seen` and
    `seen_corrected` (ranges over the comparisons) where a difference can be seen at all. `coincide`
    has the methods that gave the same texts, in lists; `seeds` says whether a control has several.
    """

    sentences: str
    comparisons: str
    family: str
    alpha: float
    least: str
    least_corrected: str
    percent: float
    seen: str
    seen_corrected: str
    worth: Worth | None
    two_best: TwoBest | None = None
    seeds: bool = False
    coincide: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class MethodTests:
    """The differences of one method, a cell for each of the others."""

    method: str
    cells: list[Compared | None]


@dataclass(frozen=True)
class PairedTests:
    """Every method less every control and less the main method."""

    columns: list[str]
    rows: list[MethodTests]
    score: str
    power: Power


@dataclass(frozen=True)
class Dose:
    """The least dose at which a method speaks the language, and a remark where it is a bound or
    none."""

    text: str
    remark: str


@dataclass(frozen=True)
class Curve:
    """A method along the dose."""

    method: str
    layer: str
    first: float
    last: float
    least: Dose
    at: Interval | None
    area: Interval | None


@dataclass(frozen=True)
class Doses:
    """Methods along the dose; `dose` and `shared` only where their doses have a range in common.
    `chosen_on` and `read_on` count the sentences that chose the layers and that the curves are of,
    where these are different ones."""

    level: float
    dose: float | None
    shared: tuple[float, float] | None
    curves: list[Curve]
    chosen_on: str = ""
    read_on: str = ""


@dataclass(frozen=True)
class Gain:
    """What a choice for each language gains a method over one choice."""

    method: str
    one: Interval | None
    each: Interval | None
    test: Compared | None


@dataclass(frozen=True)
class Picks:
    """The layer and the strength that each language takes; None where it has none."""

    method: str
    choices: list[tuple[float, float] | None]


@dataclass(frozen=True)
class ByLanguage:
    """A choice for each method and language: its gains, and the choices themselves."""

    comparisons: str
    langs: list[str]
    gains: list[Gain]
    picks: list[Picks]


def untestable(summary: Mapping[str, Any]) -> bool:
    """Whether a run was tested in vain: a single sentence allows no paired test."""
    return "tests" in summary and not summary["tests"]


def tests(summary: Mapping[str, Any]) -> PairedTests | None:
    """Every method less every control and less the main method, with adjusted p."""
    tested = summary.get("tests")
    if not tested:
        return None
    pairs, alpha = tested["pairs"], tested["alpha"]
    compared = list(dict.fromkeys(other for row in pairs.values() for other in row))
    others = [name for name in CONTROLS if name in compared]
    others += [name for name in compared if name not in CONTROLS]
    rows = [
        MethodTests(readable(name), [_compared(row.get(other), alpha) for other in others])
        for name, row in pairs.items()
    ]
    # A control is a common noun, the name of a method is its own.
    names = [readable(name).lower() if name in CONTROLS else readable(name) for name in others]
    columns = ["Method", *(f"minus {name}" for name in names)]
    return PairedTests(columns, rows, str(tested["score"]), power(summary))


def power(summary: Mapping[str, Any]) -> Power:
    """What the tests of a run could see; the run must have tests."""
    tested = summary["tests"]
    comparisons, alpha, least = tested["comparisons"], tested["alpha"], tested["least"]
    pairs = [pair for row in tested["pairs"].values() for pair in row.values()]
    corrected = least * comparisons
    hopeless = corrected > alpha
    return Power(
        sentences=str(tested["sentences"]),
        comparisons=str(comparisons),
        family=str(tested["family"]),
        alpha=alpha,
        least=number(least) if hopeless else "",
        least_corrected=number(min(1.0, corrected)) if hopeless else "",
        percent=100 * tested["power"],
        seen=_range([pair["detects"] for pair in pairs]),
        seen_corrected=_range([pair["detects_holm"] for pair in pairs]),
        worth=_worth(summary),
        two_best=_two_best(tested.get("two_best")),
        seeds=any(name in SEEDED for row in tested["pairs"].values() for name in row),
        coincide=[[readable(name) for name in names] for names in tested.get("coincide", [])],
    )


def power_note(summary: Mapping[str, Any]) -> str:
    """The note about power as the page has it, in HTML."""
    template = environment("steerlab.studies.main.page").get_template("power.html.jinja")
    return template.render(power=power(summary))


def doses(summary: Mapping[str, Any]) -> Doses | None:
    """The least dose that makes the model speak the language, `joint` at one dose and its area
    over a common range."""
    read = summary.get("doses")
    if not read:
        return None
    curves = [
        Curve(
            method=readable(name),
            layer=str(curve["layer"]),
            first=curve["doses"][0],
            last=curve["doses"][-1],
            least=_least(curve["least"]),
            at=interval(curve["at"]),
            area=interval(curve["area"]),
        )
        for name, curve in read["curves"].items()
    ]
    shared = tuple(read["range"]) if read["range"] else None
    # A run of an older version read the lines that chose the layer, and has no counts.
    counts = read.get("sentences", {}) if read.get("held out") else {}
    return Doses(
        level=read["level"],
        dose=read["dose"],
        shared=shared,
        curves=curves,
        chosen_on=str(counts.get("chosen on", "")),
        read_on=str(counts.get("read on", "")),
    )


def by_language(summary: Mapping[str, Any]) -> ByLanguage | None:
    """What choosing a layer and strength for each language would gain, and which it would take."""
    read = summary.get("by_language")
    if not read:
        return None
    entries = read["methods"]
    langs = list(dict.fromkeys(lang for item in entries.values() for lang in item["choices"]))
    gains = [
        Gain(
            method=readable(name),
            one=interval(item["per method"]),
            each=interval(item["per method and language"]),
            test=_compared(item["test"], read["alpha"]),
        )
        for name, item in entries.items()
    ]
    picks = [
        Picks(readable(name), [_pick(item["choices"].get(lang)) for lang in langs])
        for name, item in entries.items()
    ]
    return ByLanguage(str(read["comparisons"]), langs, gains, picks)


def _compared(item: Mapping[str, Any] | None, alpha: float) -> Compared | None:
    if not item:
        return None
    words = relation(item["difference"], item["p_holm"], alpha=alpha)
    return Compared(item["difference"], item["p_holm"], words != NEITHER)


def _worth(summary: Mapping[str, Any]) -> Worth | None:
    read = summary["tests"].get("together") or {}
    if interval(read.get("effective")) is None:
        return None
    name = readable(protagonist(summary) or "a method")
    return Worth(name, read["outputs"], read["effective"], read["intraclass"])


def _two_best(read: Mapping[str, Any] | None) -> TwoBest | None:
    if not read:
        return None
    needed = None if read["needed"] is None else f"{read['needed']:,.0f}"
    names = readable(read["best"]), readable(read["next"])
    return TwoBest(*names, float(read["difference"]), needed)


def _least(item: Mapping[str, Any]) -> Dose:
    if item["said"] == "at the smallest dose":
        return Dose(f"≤ {decimal(item['dose'])}", "its smallest")
    if item["said"] == "interpolated":
        return Dose(decimal(item["dose"]), "")
    return Dose("not reached", f"at most {decimal(item['highest'])}")


def _pick(choice: Sequence[float] | None) -> tuple[float, float] | None:
    return None if choice is None else (choice[0], choice[1])


def _range(values: Sequence[float | None]) -> str:
    """The least and the greatest of the values that there are."""
    present = [value for value in values if value is not None]
    if not present:
        return ""
    ends = [f"{min(present):.3f}", f"{max(present):.3f}"]
    return " to ".join(dict.fromkeys(ends))
