"""The part of docs/results.md that compares methods at equal cost."""

from collections.abc import Mapping
from typing import Any

LABELS = {"dose": "dose", "bits_per_byte_ratio": "bits per byte, ratio"}


def at_equal_cost(summary: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Each method at the main one's dose and at its fluency, a row for each; nothing for a run
    without.

    Args:
        summary: of a run of the main job.
        names: what the page calls the methods.
    """
    costs = summary.get("equal", {})
    if not costs:
        return ""
    heads, rules = ["method"], ["---"]
    for cost, given in costs.items():
        heads += [f"at {LABELS[cost]} {given['level']:.2f}: strength", "joint", "minus DiffMean"]
        rules += ["---"] * 3
    methods = list(next(iter(costs.values()))["methods"])
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(rules)}|"]
    for name in methods:
        cells = [names.get(name, name)]
        for given in costs.values():
            cells += _cells(given["methods"][name])
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        "On test lines, each method at the layer of its choice and at the strength at which it\n"
        "costs on dev what DiffMean costs at its own."
    )
    return "\n".join([*lines, "", note])


def _cells(result: Mapping[str, Any] | None) -> list[str]:
    """Strength, joint and the difference; a method whose largest strength costs less has none."""
    if result is None:
        return ["costs less at any", "", ""]
    difference = result.get("difference")
    return [f"{result['strength']:.3g}", _triple(result["joint"]), _triple(difference)]


def _triple(value: list[float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"
