"""How a value, a share, a name and a setting are written on the page, always escaped."""

from collections.abc import Mapping
from html import escape
from typing import Any

from steerlab.core.languages import LANGUAGES
from steerlab.figures.style import CONTROLS

Triple = tuple[float, float, float]


def triple(value: Any) -> Triple | None:
    """A value with its interval; a bare number is its own interval, anything else is nothing."""
    if isinstance(value, int | float) and value == value:
        return float(value), float(value), float(value)
    if isinstance(value, list | tuple) and len(value) == 3 and all(triple(part) for part in value):
        return float(value[0]), float(value[1]), float(value[2])
    return None


def number(value: Any) -> str:
    """Three digits, or a dash for what is no number."""
    return f"{value:.3g}" if isinstance(value, int | float) and value == value else "–"


def probability(p: float) -> str:
    """A p-value with its sign, no finer than is worth saying."""
    return "&lt;&nbsp;0.001" if p < 0.001 else f"=&nbsp;{p:.3f}" if p < 0.1 else f"=&nbsp;{p:.2f}"


def cell(value: Any, *, best: bool = False, mark: str = "") -> str:
    """A table cell: two decimals and a mark (HTML), the interval below."""
    known = triple(value)
    if known is None:
        return '<td class="number">–</td>'
    mean, low, high = known
    said, interval = f"{mean:.2f}", f"<small>[{low:.2f}, {high:.2f}]</small>" if low != high else ""
    return (
        f'<td class="number{" best" if best else ""}">{_minus(said)}{mark}{_minus(interval)}</td>'
    )


def _minus(text: str) -> str:
    return text.replace("-", "−")


def share(value: Any) -> str:
    """A share in running text: percent, the interval in brackets."""
    known = triple(value)
    if known is None:
        return "an unknown share"
    mean, low, high = (100 * part for part in known)
    return f"{mean:.0f}&nbsp;%" + (f" [{low:.0f},&nbsp;{high:.0f}]" if low != high else "")


def setting(result: Mapping[str, Any]) -> str:
    """Operator, layer and strength of a result, those that apply."""
    operator, strength = result.get("operator"), result.get("strength")
    if not operator or operator == "none":
        return ""
    said = [str(operator), f"layer {result.get('layer')}"]
    if isinstance(strength, int | float):
        unit = {"rotate": " × the angle", "add": f" natural gap{'' if strength == 1 else 's'}"}.get(
            str(operator), ""
        )
        said.append(f"{strength:g}{unit}")
    return escape(", ".join(said))


def named(iso: str) -> str:
    """The English name of a language code, escaped."""
    return escape(LANGUAGES[iso].name if iso in LANGUAGES else iso)


def methods(summary: Mapping[str, Any]) -> list[str]:
    """The methods of a run, in the order of the summary."""
    return [name for name in summary["results"] if name not in CONTROLS]


def controls(summary: Mapping[str, Any]) -> list[str]:
    """The controls of a run, in their own order."""
    return [name for name in CONTROLS if name in summary["results"]]


def joint(summary: Mapping[str, Any], name: str) -> float:
    """The joint score of a method or control; below zero where it was not run."""
    known = triple(summary["results"].get(name, {}).get("joint"))
    return known[0] if known else -1.0


def protagonist(summary: Mapping[str, Any]) -> str | None:
    """The method that the answer is about: DiffMean, or the best by joint where DiffMean was not
    run."""
    run = [name for name in methods(summary) if joint(summary, name) >= 0]
    return (
        "diffmean"
        if "diffmean" in run
        else max(run, key=lambda name: joint(summary, name), default=None)
    )
