"""The page's tables: every method and control with its intervals, and the paired differences."""

from collections.abc import Mapping
from html import escape
from typing import Any

from steerlab.figures.style import CONTROLS, readable
from steerlab.studies.main.page.values import (
    Triple,
    cell,
    controls,
    joint,
    methods,
    number,
    protagonist,
    setting,
    triple,
)
from steerlab.studies.main.page.words import JOINT_FLOOR, LFS_FLOOR, holds

_SCORES = {
    "lfs": "LFS",
    "relevance": "Relevance",
    "score": "S",
    "bits_per_byte_ratio": "Bits/byte ratio",
}
_MARKS = {
    True: ' <span class="yes" title="above the bound">✓</span>',
    False: ' <span class="no" title="below the bound">✗</span>',
    None: ' <span title="the bound lies inside">?</span>',
}


def headline(summary: Mapping[str, Any]) -> str:
    """All scores: methods first, then controls; a result that is empty says that it was not run."""
    results = summary["results"]
    highs = [known[2] for result in results.values() if (known := triple(result.get("joint")))]
    top = 1.05 * max([0.1, *highs])
    best = max((joint(summary, name) for name in methods(summary)), default=-1.0)

    def lines(names: list[str]) -> str:
        return "".join(
            _result(
                name, results[name], top, summary.get("chance"), best=joint(summary, name) == best
            )
            for name in names
        )

    heads = "".join(
        f"<th scope='col'>{label}</th>" for label in [*_SCORES.values(), "Dose", "Setting"]
    )
    return (
        "<p class='caption'>Scores on the test lines, "
        f"n&nbsp;=&nbsp;{escape(str(summary.get('n_sentences', '?')))} "
        f"sentences, {escape(str(summary.get('n_outputs', '?')))} outputs for each method"
        f"{'; chosen ' + escape(str(summary['choice'])) if 'choice' in summary else ''}</p>"
        f"<div class='scroll' tabindex='0'><table class='headline'><thead><tr>"
        f"<th scope='col'>Method</th><th scope='col' colspan='2'>Joint</th>"
        f"{heads}</tr></thead><tbody>{lines(methods(summary))}</tbody><tbody><tr class='group'>"
        f"<th colspan='9' scope='rowgroup'><span>Controls</span></th></tr>"
        f"{lines(controls(summary))}</tbody></table></div>"
        "<p class='note'>Below each value its 95&nbsp;% interval by resampling sentences. Chance "
        "is "
        f"{number(summary.get('chance'))} for relevance, and no more for joint (dotted line). Each "
        "control was run at "
        "the method's own cell and dose and with its own choice on dev: the stronger of the two is "
        "shown.</p>"
    )


def differences(summary: Mapping[str, Any]) -> str:
    """The paired difference of the main method from each control, marked against the criterion."""
    given, name = summary.get("differences"), protagonist(summary)
    if not given or name is None:
        return ""
    lines = []
    for control in sorted(
        given, key=lambda key: CONTROLS.index(key) if key in CONTROLS else len(CONTROLS)
    ):
        cells = [
            cell(given[control].get(key), mark=_MARKS[holds([given[control].get(key)], floor)])
            for key, floor in (("joint", JOINT_FLOOR), ("lfs", LFS_FLOOR))
        ]
        lines.append(f"<tr><th scope='row'>{escape(readable(control))}</th>{''.join(cells)}</tr>")
    return (
        f"<h3>{escape(readable(name))} less each control</h3><div class='scroll narrow' "
        "tabindex='0'><table><thead><tr>"
        "<th scope='col'>Control</th><th scope='col'>Joint<small>bound "
        f"{JOINT_FLOOR:g}</small></th>"
        "<th scope='col'>LFS<small>bound "
        f"{LFS_FLOOR:g}</small></th></tr></thead><tbody>{''.join(lines)}</tbody>"
        "</table></div><p class='note'>Differences on the same sentences and targets. ✓ the whole "
        "interval is above "
        "the bound, ✗ below it, ? the bound lies inside. The prompt is a yardstick: the verdict "
        "leaves it out.</p>"
    )


def _result(name: str, result: Mapping[str, Any], top: float, chance: Any, *, best: bool) -> str:
    variant = f"<small>{escape(str(result['variant']))}</small>" if result.get("variant") else ""
    head = f"<th scope='row'>{escape(readable(name))}{variant}</th>"
    if not result:
        return f"<tr>{head}<td colspan='8' class='how'>not run</td></tr>"
    known = triple(result.get("joint"))
    cells = [cell(result.get("joint"), best=best), f"<td>{_forest(known, top, chance)}</td>"]
    cells += [cell(result.get(key)) for key in (*_SCORES, "dose")]
    return f"<tr>{head}{''.join(cells)}<td class='how'>{setting(result)}</td></tr>"


def _forest(known: Triple | None, top: float, chance: Any) -> str:
    """A dot with its interval on the scale from 0 to `top`, chance as a dotted line; the numbers
    stand beside it."""
    if known is None:
        return ""
    mean, low, high = (4 + 142 * min(max(part, 0.0), top) / top for part in known)
    dotted = 4 + 142 * chance / top if isinstance(chance, int | float) else -9
    return (
        '<svg class="forest" viewBox="0 0 150 22" aria-hidden="true"><path d="M4 21.5H146" '
        'stroke="#d9dfe5"/>'
        f'<path d="M{dotted:.1f} 1V21" stroke="#6b7785" stroke-dasharray="1.5 2.5"/>'
        f'<path d="M{low:.1f} 11H{high:.1f}" stroke="#0b5a8a" stroke-width="2"/>'
        f'<circle cx="{mean:.1f}" cy="11" r="4" fill="#0b5a8a"/></svg>'
    )
