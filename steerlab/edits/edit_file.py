"""Edits on disk: their tensors, and the names of the operators' functions, never code."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import hook_name
from steerlab.core.tensor_file import Content, load_tensors, save_tensors
from steerlab.core.tensors import object_in, truth_in, whole_in, word_in
from steerlab.edits.edit import Edit
from steerlab.edits.gates import Gate, named, restored
from steerlab.edits.part import ChangeFn, Part
from steerlab.edits.windows import kinds_of

FORMAT = "steerlab edit 1"


def functions() -> dict[str, ChangeFn]:
    """The functions of all operators by their names in a file."""
    from steerlab.edits.registry import OPERATORS  # it imports the modules of this folder

    changes = (record.change for record in OPERATORS.values())
    return {_name_of(change): change for change in changes if change is not None}


def save_edit(edit: Edit, file: str | Path, *, force: bool) -> Path:
    """Write it; see `Edit.save`."""
    known = functions()
    tensors: dict[str, Tensor] = {}
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(edit.parts):
        name = _name_of(part.change)
        if known.get(name) is not part.change:
            raise SteerlabError(
                f"the edit has a function of your own, {part.operator}, and a file holds no code; "
                "save its tensors, and make the edit again by sl.edit"
            )
        parts.append(
            {
                "function": name,
                "operator": part.operator,
                "site": part.site,
                "layer": part.layer,
                "positions": part.positions,
                "identity": part.identity,
                "rows": None if part.rows is None else part.rows.tolist(),
                "tensors": list(part.tensors),
            }
        )
        if part.gate is not None:
            parts[-1]["gate"] = [named(part.gate), part.gate.name, part.gate.reads]
        for key, value in part.tensors.items():
            tensors[f"{number}.{key}"] = value
    about = {"parts": parts, "rows": edit.rows, "model": dict(edit.model)}
    return save_tensors(file, FORMAT, tensors, about, force=force)


def load_edit(file: str | Path) -> Edit:
    """Read it; see `Edit.load`."""
    return load_tensors(file, FORMAT, _edit)


def _edit(content: Content) -> Edit:
    rows = None if content.about.get("rows") is None else content.number("rows", least=1)
    listed = content.about.get("parts")
    if not isinstance(listed, list):
        raise SteerlabError(f"parts is {repr(listed)[:60]}, not a list")
    parts = [
        _part(content, number, object_in(each, f"part {number}"), rows)
        for number, each in enumerate(listed)
    ]
    return Edit(tuple(parts), content.object("model"), rows)


def _part(content: Content, number: int, told: dict[str, Any], edits: int | None) -> Part:
    known = functions()
    name = word_in(told.get("function"), "function")
    if name not in known:
        raise SteerlabError(f"there is no operator with the function {name!r} here")
    positions = word_in(told.get("positions"), "positions")
    kinds_of(positions)  # raises for unknown ones
    site, layer = word_in(told.get("site"), "site"), whole_in(told.get("layer"), "layer", least=0)
    hook_name(site, layer)
    rows = None
    if told.get("rows") is not None:
        least = [whole_in(row, "a row", least=0) for row in told["rows"]]
        if edits is None or not least or max(least) >= edits:
            raise SteerlabError(f"part {number} is of rows that the stack has not")
        rows = torch.tensor(least)
    tensors = {}
    for key in told["tensors"]:
        given = content.tensors.get(f"{number}.{key}")
        if given is None:
            raise SteerlabError(f"it has no {number}.{key}")
        if len(given) != (1 if rows is None else len(rows)):
            raise SteerlabError(f"{key} of part {number} has {len(given)} rows")
        tensors[key] = content.take(f"{number}.{key}", *given.shape, dtype=torch.float32)
    gate = told.get("gate")
    if gate is not None:
        gate = _gate(gate)
    return Part(
        known[name],
        word_in(told.get("operator"), "operator"),
        site,
        layer,
        positions,
        tensors,
        truth_in(told.get("identity"), "identity"),
        rows,
        gate,
    )


def _gate(told: Any) -> Gate:
    """The gate of a part."""
    if not isinstance(told, list) or len(told) != 3:
        raise SteerlabError(f"gate is {repr(told)[:60]}, not two names and a place")
    function, name, reads = told
    if reads is not None:
        site, layer = reads
        hook_name(word_in(site, "site"), whole_in(layer, "layer", least=0))
        reads = site, layer
    return restored(word_in(function, "gate"), word_in(name, "gate"), reads)


def _name_of(change: Any) -> str:
    return str(getattr(change, "__name__", type(change).__name__))
