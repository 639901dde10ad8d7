"""Cells that are the same work under different names, which are run once.

Two estimators may find the same vector to the last bit (`pca` and an eigengap of rank 1). Their
cells then have the same edits on the same prompts, and greedy decoding says the same: the rows of
one stand for both.
"""

from collections.abc import Hashable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from steerlab.core.directions import Directions
from steerlab.edits import Edit, Operator
from steerlab.edits.digest import tensor_digest
from steerlab.engine.weights.weight_edit import WeightEdit
from steerlab.sweeps.cell import Cell

_BEGINNING = 256  # values of a tensor


def representatives(
    cells: Mapping[str, Cell],
    directions: Mapping[str, Directions],
    operators: Mapping[str, Operator],
) -> dict[str, str]:
    """For each cell's key that of the first cell which is the same work: equal in all but the names
    of its method and directions, with the same edit for every sentence.

    Args:
        cells: the cells by their keys.
        directions: by the names that cells call them.
        operators: a user's own, by the names that cells call them.
    """
    alike: dict[Hashable, list[str]] = {}
    for key, cell in cells.items():
        alike.setdefault(replace(cell, method="", fits=()), []).append(key)
    # Whole tensors are read only where their beginnings are alike: a tensor may be large.
    for some in (_BEGINNING, None):
        groups, alike = list(alike.values()), {}
        for keys in groups:
            for key in keys:
                work: Hashable = key  # nothing that it could be equal to
                if len(keys) > 1:
                    work = _edits(cells[key], directions, operators, some)
                alike.setdefault((keys[0], work), []).append(key)
    return {key: keys[0] for keys in alike.values() for key in keys}


def _edits(
    cell: Cell,
    directions: Mapping[str, Directions],
    operators: Mapping[str, Operator],
    some: int | None,
) -> Hashable:
    """What a cell does to each of its sentences; its own names where an edit cannot be made, since
    that is an error of this cell alone."""
    try:
        edits = [cell.change(directions, index, operators) for index in range(cell.different)]
    except Exception:  # a user's own operator may raise anything; the run says so of this cell
        return cell.method, cell.fits
    return tuple(_content(edit, some) for edit in edits)


def _content(edit: Edit | WeightEdit, some: int | None) -> Hashable:
    """What an edit does; of its tensors the first values, or with None all."""
    if isinstance(edit, WeightEdit):
        return edit.digest
    return edit.logits, tuple(
        (
            part.change,
            part.site,
            part.layer,
            part.positions,
            part.identity,
            None if part.gate is None else part.gate.digest,
            tuple(
                (name, tensor.shape, tensor_digest(tensor.flatten()[:some]))
                for name, tensor in sorted(part.tensors.items())
            ),
        )
        for part in edit.parts
    )


def spread(
    rows: pd.DataFrame, cells: Mapping[str, Cell], standing: Mapping[str, str]
) -> pd.DataFrame:
    """The rows of all cells, in their order, from those of the cells that stand for them.

    A copy has the names of its own cell. In `attrs`, "failed" gets the cells whose representative
    failed, and "shared" is how many cells have rows of another one.

    Args:
        rows: of the cells that were run; the rows of a cell are in the order of its sentences.
        cells: all cells by their keys.
        standing: for each key that of the cell whose rows stand for it.
    """
    copies = [key for key in cells if standing[key] != key]
    if not copies:
        return rows
    # Where a run's rows of a cell are, and of which they are with the copies.
    places = {str(key): index for key, index in rows.groupby("cell", sort=False).indices.items()}
    present = [key for key in cells if standing[key] in places]
    taken = [places[standing[key]] for key in present]
    made = rows.iloc[np.concatenate(taken)].reset_index(drop=True)
    made["cell"] = np.repeat(np.array(present, dtype=object), [len(each) for each in taken])
    of_copy = made["cell"].isin(copies).to_numpy()
    for name, values in _names(made[of_copy], cells).items():
        made.loc[of_copy, name] = values
    failed = rows.attrs.get("failed", {})
    made.attrs = dict(rows.attrs) | {"shared": len(copies)}
    if failed:
        made.attrs["failed"] = {
            key: failed[standing[key]] for key in cells if standing[key] in failed
        }
    return made


def _names(rows: pd.DataFrame, cells: Mapping[str, Cell]) -> dict[str, list[str]]:
    """The columns of copied rows that are of their own cell."""
    columns: dict[str, list[str]] = {"method": [], "estimator": []}
    counts: dict[str, int] = {}
    for key in rows["cell"]:
        cell = cells[key]
        number = counts.get(key, 0)
        counts[key] = number + 1
        index = number if cell.lines is None else cell.lines[number]
        columns["method"].append(cell.method)
        columns["estimator"].append(cell.fits[index % len(cell.fits)] if cell.fits else "")
    return columns
