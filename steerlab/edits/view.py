"""What an edit says of itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from steerlab.core.display import View, bars, counted, layers
from steerlab.edits.part import Part
from steerlab.edits.windows import shortened


def view_of(parts: Sequence[Part], rows: int | None, model: Mapping[str, Any]) -> View:
    """The view of an edit.

    Args:
        parts: of the edit.
        rows: how many edits a stack has, None if it is no stack.
        model: what the edit was made with.
    """
    groups: dict[tuple[str, str, str], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.operator, part.site, part.positions), []).append(part)
    table = [
        (
            operator,
            site,
            layers([part.layer for part in here]),
            shortened(positions),
            _rows_of(here, rows),
        )
        for (operator, site, positions), here in groups.items()
    ]
    words = [f"{operator} at {where} of {site}" for operator, site, where, *_ in table]
    what = ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
    if parts and all(part.identity for part in parts):
        what += " (set to change nothing)"
    if rows is not None:
        what = f"a stack of {counted(rows, 'row')}: {what}"
    counts: dict[str, float] = {}
    for layer in sorted({part.layer for part in parts}):
        of_layer = [part for part in parts if part.layer == layer]
        counts[str(layer)] = sum(1 if part.rows is None else len(part.rows) for part in of_layer)
    return View(
        "Edit",
        what if parts else "none: the model as it is",
        {"made with": model["name"]} if model.get("name") else {},
        ("operator", "site", "layers", "positions", "rows"),
        table,
        (lambda: bars(counts)) if len(counts) > 1 else None,
        "changes of rows, by layer",
    )


def _rows_of(parts: Sequence[Part], rows: int | None) -> str:
    """The rows of a batch that parts change, in words."""
    if rows is None or any(part.rows is None for part in parts):
        return "all"
    changed = {row for part in parts if part.rows is not None for row in part.rows.tolist()}
    return f"{len(changed):,} of {rows:,}"
