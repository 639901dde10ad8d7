"""Directions on disk: one .safetensors file whose header says what made it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.files import explained, need_ending, replacing
from steerlab.core.sites import hook_name
from steerlab.core.strength_unit import need_unit
from steerlab.core.tensor_file import digest_of
from steerlab.core.tensors import object_in, read_safetensors, whole_in, word_in

if TYPE_CHECKING:
    from steerlab.core.directions import Directions

FORMAT = "steerlab directions 1"  # in the header of a file, with the version of its layout


def save_directions(directions: "Directions", file: str | Path, *, force: bool) -> Path:
    """Write them; see `Directions.save`."""
    file = need_ending(file, ".safetensors")
    # Copies, since safetensors refuses tensors that share memory.
    kept = {name: value.detach().cpu() for name, value in directions._tensors().items()}
    tensors = {
        name: value.clone(memory_format=torch.contiguous_format) for name, value in kept.items()
    }
    about = {
        name: getattr(directions, name)
        for name in ("langs", "layers", "site", "source", "strength_unit")
    }
    header = {
        "format": FORMAT,
        "about": json.dumps(about),
        "provenance": json.dumps(dict(directions.provenance)),
    }
    header["sha256"] = digest_of(tensors, header)
    with explained(file), replacing(file, force=force) as (fresh,):
        save_file(tensors, fresh, metadata=header)
    return file


def load_directions(cls: type["Directions"], file: str | Path) -> "Directions":
    """Read them; see `Directions.load`."""
    tensors, header = read_safetensors(file, again="make it again")
    if header.get("format") != FORMAT:
        raise SteerlabError(
            f"{file} was not written by Directions.save (its format is "
            f"{header.get('format')!r}, not {FORMAT!r}); give a file that it wrote"
        )
    # safetensors checks that a file is whole, not that nobody changed a number in it.
    if digest_of(tensors, header) != header.get("sha256"):
        raise SteerlabError(
            f"{file} was altered after it was written: its checksum does not match; make it again"
        )
    try:
        return _from_file(cls, header, tensors)
    except SteerlabError as error:
        raise SteerlabError(f"{file}: {error}; make it again") from error


def _from_file(
    cls: "type[Directions]", header: Mapping[str, str], tensors: dict[str, Tensor]
) -> "Directions":
    """What a file's header and tensors hold; raises for whatever is no part of directions."""
    about = _object(header, "about")
    for name in ("vectors", "basis", "means"):
        if name not in tensors:
            raise SteerlabError(f"it has no {name}")
    extra = {}
    for name in list(tensors):
        if not tensors[name].is_floating_point():
            raise SteerlabError(f"{name} holds {tensors[name].dtype}, not floating point")
        if name.startswith("extra."):
            extra[name.removeprefix("extra.")] = tensors.pop(name)
        elif name not in ("vectors", "basis", "means"):
            raise SteerlabError(f"it holds {name!r}, which directions have not")
    langs, layers, source = about.get("langs"), about.get("layers"), about.get("source")
    if not isinstance(langs, list) or not all(isinstance(lang, str) for lang in langs):
        raise SteerlabError(f"langs is {repr(langs)[:60]}, not a list of codes")
    if not isinstance(layers, list) or not layers:
        raise SteerlabError(f"layers is {repr(layers)[:60]}, not a list of numbers")
    site = word_in(about.get("site"), "site")
    for layer in layers:
        hook_name(site, whole_in(layer, "a layer", least=0))
    if source is not None and source not in langs:
        raise SteerlabError(f"source is {repr(source)[:60]}, which is none of its languages")
    # Files of before this field existed are in gaps.
    strength_unit = need_unit(about.get("strength_unit", "gap"))
    dims = {name: tensors[name].ndim for name in ("vectors", "basis", "means")}
    if dims != {"vectors": 3, "basis": 4, "means": 3}:
        raise SteerlabError(f"its tensors have {dims} axes, not 3, 4 and 3")
    directions = cls(
        **tensors,
        extra=extra,
        langs=tuple(langs),
        layers=tuple(layers),
        site=site,
        source=source,
        strength_unit=strength_unit,
        provenance=_object(header, "provenance"),
    )
    _need_orthonormal(directions.basis)
    return directions


def _object(header: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        return object_in(json.loads(header[key]), key)
    except (KeyError, ValueError, RecursionError) as error:
        raise SteerlabError(f"{key} in its header is no JSON object") from error


def _need_orthonormal(basis: Float[Tensor, "lang layer rank width"]) -> None:
    """Raise unless the rows of each basis are of length 1, or zero, and at right angles."""
    if not torch.isfinite(basis).all():
        raise SteerlabError("basis holds NaN or infinity")
    rows = basis.double()
    products = rows @ rows.mT
    length = products.diagonal(dim1=-2, dim2=-1)
    is_row = (length > 0.5).double()
    if not torch.allclose(products, torch.diag_embed(is_row), atol=2e-2):
        raise SteerlabError("the rows of its basis are not of length 1 and at right angles")
