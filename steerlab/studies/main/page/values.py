"""Which methods and controls a run has, which one the page is about, and how a setting is
written."""

from collections.abc import Mapping
from typing import Any

from steerlab.figures.style import CONTROLS
from steerlab.studies.html.formats import interval
from steerlab.sweeps.grid import ALL


def setting(result: Mapping[str, Any]) -> str:
    """Operator, layer and strength of a result, those that apply."""
    operator, strength = result.get("operator"), result.get("strength")
    if not operator or operator == "none":
        return ""
    layer = result.get("layer")
    parts = [str(operator), "all layers" if layer == ALL else f"layer {layer}"]
    if isinstance(strength, int | float):
        gaps = f" natural gap{'' if strength == 1 else 's'}"
        unit = {"rotate": " × the angle", "add": gaps}.get(str(operator), "")
        parts.append(f"{strength:g}{unit}")
    return ", ".join(parts)


def methods(summary: Mapping[str, Any]) -> list[str]:
    """The methods of a run, in the order of the summary."""
    return [name for name in summary.get("results") or {} if name not in CONTROLS]


def controls(summary: Mapping[str, Any]) -> list[str]:
    """The controls of a run, in their own order."""
    return [name for name in CONTROLS if name in (summary.get("results") or {})]


def joint(summary: Mapping[str, Any], name: str) -> float:
    """The joint score of a method or control; below zero where it was not run."""
    read = interval(summary["results"].get(name, {}).get("joint"))
    return read.value if read else -1.0


def protagonist(summary: Mapping[str, Any]) -> str | None:
    """The method that the answer is about: DiffMean, or the best by joint where DiffMean was not
    run."""
    run = [name for name in methods(summary) if joint(summary, name) >= 0]
    if "diffmean" in run:
        return "diffmean"
    return max(run, key=lambda name: joint(summary, name), default=None)
