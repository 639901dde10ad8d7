"""The page's tables beyond scores: tests of every comparison, methods along the dose, a choice
for each language."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from steerlab.figures.style import CONTROLS, readable
from steerlab.studies.main.page.values import cell, named, number, probability, protagonist, triple

_SAID = {"at the smallest dose": "≤ {dose} <small>its smallest</small>", "interpolated": "{dose}"}
_NOT_REACHED = "not reached <small>at most {highest}</small>"


def tests(summary: Mapping[str, Any]) -> str:
    """Every method less every control and less the main method, with adjusted p, and the power
    note under it."""
    if "tests" not in summary:
        return ""
    told = summary["tests"]
    if not told:
        return (
            "<p class='note'>A single test sentence allows no paired test: read more (--limit).</p>"
        )
    pairs = told["pairs"]
    found = list(dict.fromkeys(other for item in pairs.values() for other in item))
    others = [name for name in CONTROLS if name in found] + [
        name for name in found if name not in CONTROLS
    ]
    lines = [
        [readable(name), *(_test(item.get(other), told["alpha"]) for other in others)]
        for name, item in pairs.items()
    ]
    heads = [
        "Method",
        *(
            f"less {escape(readable(other).lower() if other in CONTROLS else readable(other))}"
            for other in others
        ),
    ]
    note = (
        f"Differences of {escape(str(told['score']))}, below each its p; bold where p is below "
        f"{told['alpha']:g}."
    )
    return f"<h3>Paired tests</h3>{_table(heads, lines)}<p class='note'>{note} {power(summary)}</p>"


def power(summary: Mapping[str, Any]) -> str:
    """What was tested, how it was corrected, and the differences that so many sentences can see."""
    told = summary["tests"]
    n, m, alpha = told["sentences"], told["comparisons"], told["alpha"]
    items = [item for row in told["pairs"].values() for item in row.values()]
    said = [
        f"p is that of a paired permutation test, two-sided: the signs of the {n} sentences' "
        "differences are flipped, "
        "so that the outputs of a sentence stay together. It is adjusted by Holm's method over the "
        "family: "
        f"{escape(str(told['family']))}, {m} comparisons."
    ]
    if told["least"] * m > alpha:
        said.append(
            f"<strong>Nothing here can pass {alpha:g}</strong>: the least p of {n} sentences is "
            f"{number(told['least'])}, {number(min(1.0, told['least'] * m))} after correction; "
            "read more sentences."
        )
    seen, widened = (_span([item[key] for item in items]) for key in ("detects", "detects_holm"))
    if seen:
        said.append(
            f"With {100 * told['power']:.0f}&nbsp;% power one test by itself sees a difference of "
            f"{seen}, by comparison"
            + (
                f"; where Holm's correction is strictest, {widened}."
                if widened
                else "; after Holm's correction none."
            )
        )
    worth = told.get("together") or {}
    if triple(worth.get("effective")):
        name = protagonist(summary)
        said.append(
            f"The {worth['outputs']:.0f} outputs of {escape(readable(name or 'a method'))} are "
            "worth "
            f"{worth['effective']:.0f} independent ones (intraclass correlation "
            f"{worth['intraclass']:.2f} within a "
            "sentence)."
        )
    return " ".join(said)


def doses(summary: Mapping[str, Any]) -> str:
    """The least dose that makes the model speak the language, `joint` at one dose and its area
    over a common range."""
    told = summary.get("doses")
    if not told:
        return ""
    shared, dose = told["range"], told["dose"]
    lines = []
    for name, item in told["curves"].items():
        read = f"{item['doses'][0]:.2f} to {item['doses'][-1]:.2f}"
        lines.append(
            [readable(name), f"<td>{item['layer']}</td>", f"<td>{read}</td>", _least(item["least"])]
        )
        lines[-1] += [cell(item["at"]), cell(item["area"])]
    heads = ["Method", "Layer", "Doses read", f"Least dose for LFS {told['level']:g}"]
    heads += [
        "Joint at that dose" if dose is None else f"Joint at dose {dose:.2f}",
        "Area under joint",
    ]
    note = (
        f"The area is the mean of joint over the doses that all methods have, {shared[0]:.2f} to "
        f"{shared[1]:.2f}."
        if shared
        else "These doses have no range in common, so that methods cannot be compared at one dose: "
        "read more strengths."
    )
    return (
        f"<h3>Along the dose</h3>{_table(heads, lines)}<p class='note'>On dev lines, each method "
        "at its chosen layer; "
        f"between its strengths straight lines. {note} Brackets: 95&nbsp;% intervals by resampling "
        "sentences.</p>"
    )


def by_language(summary: Mapping[str, Any]) -> str:
    """What choosing a layer and strength for each language would gain, and which it would take;
    folded."""
    told = summary.get("by_language")
    if not told:
        return ""
    gains, picks = [], []
    isos = list(dict.fromkeys(iso for item in told["methods"].values() for iso in item["choices"]))
    for name, item in told["methods"].items():
        gains.append(
            [readable(name), cell(item["per method"]), cell(item["per method and language"])]
        )
        gains[-1].append(_test(item["test"], told["alpha"]))
        picks.append([readable(name), *(_pick(item["choices"].get(iso)) for iso in isos)])
    return (
        "<details><summary>A choice for each method and language</summary>"
        + _table(
            [
                "Joint on dev",
                "Choice for each method",
                "For each method and language",
                "Difference",
            ],
            gains,
        )
        + "<p class='note'>Chosen on one half of the dev lines and scored on the other, both ways; "
        "the tables above "
        "take one choice for each method. p: paired test, adjusted by Holm's method over "
        f"{told['comparisons']} "
        f"comparisons. Below: layer and strength that each language takes on all dev lines.</p>"
        + _table(["Method", *(named(iso) for iso in isos)], picks)
        + "</details>"
    )


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Heads and cells are HTML, the first cell of a line is text."""
    head = "".join(f"<th scope='col'>{label}</th>" for label in heads)
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>{''.join(cells)}</tr>" for name, *cells in lines
    )
    return (
        "<div class='scroll' "
        f"tabindex='0'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _test(item: Mapping[str, Any] | None, alpha: float) -> str:
    if not item:
        return "<td></td>"
    sure = " best" if item["p_holm"] < alpha else ""
    value = f"{item['difference']:+.2f}".replace("-", "−")
    return (
        f"<td class='number{sure}'>{value}<small>p&nbsp;{probability(item['p_holm'])}</small></td>"
    )


def _least(item: Mapping[str, Any]) -> str:
    dose = "" if item["dose"] is None else f"{item['dose']:.2f}"
    said = _SAID.get(item["said"], _NOT_REACHED).format(dose=dose, highest=f"{item['highest']:.2f}")
    return f"<td class='number'>{said}</td>"


def _pick(setting: Sequence[float] | None) -> str:
    return (
        "<td>–</td>"
        if setting is None
        else f"<td class='number'>{setting[0]:g}<small>× {setting[1]:g}</small></td>"
    )


def _span(values: Sequence[float | None]) -> str:
    """The least and the greatest of the values that there are."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    ends = list(dict.fromkeys(f"{value:.3f}" for value in (min(known), max(known))))
    return " to ".join(ends)
