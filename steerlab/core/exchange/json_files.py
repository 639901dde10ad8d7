"""Vectors as JSON: activation-steering's .svec, and Neuronpedia's."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.exchange.vectors import Vectors
from steerlab.core.files import read_bytes
from steerlab.core.sites import hook_name, site_of
from steerlab.core.tensors import number_in, object_in, word_in

_LARGEST = 2_000_000_000  # bytes


def write_svec(file: Path, vectors: Vectors, modules: str) -> None:
    """The explained variances stay empty: a difference of means has none."""
    held = {
        "model_type": vectors.model or "unknown",
        "directions": {str(block): vectors.by_block[block].tolist() for block in vectors.blocks},
        "explained_variances": {},
    }
    file.write_text(json.dumps(held), "utf-8")


def read_svec(file: Path) -> Vectors:
    """A layer may also hold one vector in a list, as AISteer360 has it."""
    held = _object(file)
    found = {}
    for key, value in object_in(held.get("directions"), "directions").items():
        if not str(key).isdigit():
            raise SteerlabError(f"directions has {str(key)[:30]!r}, which is no number of a block")
        found[int(key)] = _vector(value, f"directions of block {key}")
    return Vectors(found, {}, str(held.get("model_type", "")))


def write_neuronpedia(file: Path, vectors: Vectors, modules: str) -> None:
    """Its hook is the input of the next block, which is the same place."""
    [block] = vectors.blocks
    held = {
        "label": f"{vectors.about.get('source') or 'others'} to {vectors.about.get('target')}",
        "modelId": vectors.model or "unknown",
        "hookName": hook_name("resid_pre", block + 1),
        "vector": vectors.by_block[block].tolist(),
        "defaultSteerStrength": 1.0,
    }
    file.write_text(json.dumps(held), "utf-8")


def read_neuronpedia(file: Path) -> Vectors:
    """With the strength that it is steered with by default multiplied in."""
    held = _object(file)
    hook = word_in(held.get("hookName"), "hookName")
    place = site_of(hook)
    if place is None or place[0] not in ("resid_pre", "resid_post"):
        raise SteerlabError(f"its hook {hook!r} is not one of the residual stream")
    site, layer = place
    block = layer - (site == "resid_pre")
    if block < 0:
        raise SteerlabError("its hook is the input of block 0, which is the output of no block")
    strength = number_in(held.get("defaultSteerStrength", 1.0), "defaultSteerStrength")
    vector = strength * _vector(held.get("vector"), "vector")
    return Vectors({block: vector}, {}, str(held.get("modelId", "")))


def _object(file: Path) -> dict[str, Any]:
    try:
        return object_in(json.loads(read_bytes(file, limit=_LARGEST)), "the file")
    except (ValueError, RecursionError) as error:
        raise SteerlabError("it is no JSON") from error


def _vector(value: Any, what: str) -> Tensor:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        [value] = value
    plain = isinstance(value, list) and all(type(each) in (int, float) for each in value)
    if not plain or not value:
        raise SteerlabError(f"{what} is {repr(value)[:40]}; it has to be a list of numbers")
    return torch.tensor(value, dtype=torch.float32)
