"""Vectors as arrays: .npz, and .pt of tensors alone, in the layouts of several tools."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.core.exchange.vectors import Vectors


def write_npz(file: Path, vectors: Vectors, modules: str) -> None:
    """`vectors` [layer width], `layers` [layer], and `origin` as JSON."""
    held = io.BytesIO()  # to a path, NumPy adds an ending of its own
    np.savez(
        held,
        vectors=_stacked(vectors).numpy(),
        layers=np.array(vectors.blocks),
        origin=np.array(_origin(vectors)),
    )
    file.write_bytes(held.getvalue())


def read_npz(file: Path) -> Vectors:
    """No array of objects is read, as it would be unpickled."""
    try:
        with np.load(file, allow_pickle=False) as held:
            found = {name: held[name] for name in held.files}
    except Exception as error:  # a damaged archive fails in many ways
        raise SteerlabError(f"it is no .npz of plain arrays ({first_line_of(error)})") from error
    if not {"vectors", "layers"} <= set(found):
        raise SteerlabError(f"it holds {', '.join(found) or 'nothing'}, not vectors and layers")
    return _of_arrays(found["vectors"], found["layers"], str(found.get("origin", "")))


def write_pt(file: Path, vectors: Vectors, modules: str) -> None:
    """The same, as tensors."""
    torch.save(
        {
            "vectors": _stacked(vectors),
            "layers": torch.tensor(vectors.blocks),
            "origin": _origin(vectors),
        },
        file,
    )


def write_steering_vectors(file: Path, vectors: Vectors, modules: str) -> None:
    """The arguments of its `SteeringVector`: SteeringVector(**torch.load(file))."""
    held = {"layer_activations": dict(vectors.by_block), "layer_type": "decoder_block"}
    torch.save(held, file)


def write_lm_eval(file: Path, vectors: Vectors, modules: str) -> None:
    """One entry a block, by its name inside the base model; no bias, which its `add` refuses."""
    held = {}
    for block in vectors.blocks:
        held[modules.format(block=block)] = {
            "steering_vector": vectors.by_block[block],
            "steering_coefficient": 1.0,
            "action": "add",
            "bias": None,
            "head_index": None,
        }
    torch.save(held, file)


def read_pt(file: Path) -> Vectors:
    """Any of the three layouts; of lm-eval's those that add to whole blocks."""
    try:
        # `weights_only` refuses to unpickle anything that could run.
        held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SteerlabError(
            f"it holds something else than tensors, or is damaged ({first_line_of(error)})"
        ) from error
    if not isinstance(held, Mapping):
        raise SteerlabError(f"it holds {type(held).__name__}, not vectors by name")
    if "layer_activations" in held:
        return _of_steering_vector(held["layer_activations"], held.get("layer_type"))
    if {"vectors", "layers"} <= set(held):
        return _of_arrays(held["vectors"], held["layers"], str(held.get("origin", "")))
    return _of_lm_eval(held)


def of_object(value: Any) -> Vectors:
    """A `SteeringVector` of steering-vectors, or a `ControlVector` of repeng."""
    if hasattr(value, "layer_activations"):
        return _of_steering_vector(value.layer_activations, getattr(value, "layer_type", None))
    if hasattr(value, "directions") and hasattr(value, "model_type"):
        found = {int(k): _row(v, f"block {k}") for k, v in value.directions.items()}
        return Vectors(found, {}, str(value.model_type))
    raise SteerlabError(
        f"a {type(value).__name__} is neither a file nor an object of steering-vectors or repeng; "
        "give one of these"
    )


def _of_steering_vector(activations: Any, kind: Any) -> Vectors:
    if kind not in (None, "decoder_block"):
        raise SteerlabError(
            f"its vectors are of {str(kind)[:40]!r}; those of decoder_block are read"
        )
    if not isinstance(activations, Mapping):
        raise SteerlabError("layer_activations holds no vectors by number of a block")
    found = {}
    for block, vector in activations.items():
        if not isinstance(block, int) or block < 0:
            raise SteerlabError(f"{repr(block)[:30]} is no number of a block")
        found[block] = _row(vector, f"block {block}")
    return Vectors(found)


def _of_lm_eval(held: Mapping[Any, Any]) -> Vectors:
    found: dict[int, Tensor] = {}
    for hook, entry in held.items():
        match = re.fullmatch(r"(?:\w+\.)*(?:layers|h|blocks)\.(\d+)", str(hook))
        if match is None or not isinstance(entry, Mapping) or "steering_vector" not in entry:
            raise SteerlabError(f"{str(hook)[:40]!r} is no block with a steering_vector")
        plain = entry.get("action") == "add" and entry.get("head_index") is None
        if not plain or entry.get("bias") is not None:
            raise SteerlabError(f"{hook} does something else than to add a vector to the block")
        scale = entry.get("steering_coefficient", 1.0)
        found[int(match[1])] = float(scale) * _row(entry["steering_vector"], str(hook))
    return Vectors(found)


def _of_arrays(vectors: Any, layers: Any, origin: str) -> Vectors:
    rows, blocks = torch.as_tensor(vectors), torch.as_tensor(layers)
    if rows.ndim != 2 or blocks.ndim != 1 or len(rows) != len(blocks) or blocks.is_floating_point():
        raise SteerlabError(
            f"vectors has shape {tuple(rows.shape)} and layers {tuple(blocks.shape)}; they have to "
            "be [layer width] and whole numbers [layer]"
        )
    numbers = blocks.tolist()
    if len(set(numbers)) != len(numbers) or min(numbers, default=0) < 0:
        raise SteerlabError(f"layers is {numbers}; each block stands once, from 0 up")
    try:
        about = json.loads(origin) if origin else {}
    except ValueError as error:
        raise SteerlabError("origin is no JSON") from error
    about = about if isinstance(about, dict) else {}
    model = about.get("model")
    name = str(model.get("name", "")) if isinstance(model, dict) else ""
    return Vectors(dict(zip(numbers, rows.float(), strict=True)), about, name)


def _row(value: Any, what: str) -> Tensor:
    """A vector in float32; axes of length 1 in front of it do not count."""
    row = torch.as_tensor(value)
    if not row.is_floating_point() or row.numel() != row.shape[-1] or not row.numel():
        raise SteerlabError(f"the vector of {what} has shape {tuple(row.shape)}, not [width]")
    return row.reshape(-1).float()


def _stacked(vectors: Vectors) -> Tensor:
    return torch.stack([vectors.by_block[block] for block in vectors.blocks])


def _origin(vectors: Vectors) -> str:
    return json.dumps(dict(vectors.about))
