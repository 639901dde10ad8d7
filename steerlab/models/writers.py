"""Which weights of a Hugging Face decoder write what is at a site, and what stands behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.models.anatomy import projections
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.model import Model
from steerlab.models.stream import adds_up, run

OF_ATTENTION = ("attn_z", "attn_out", "resid_mid")
INPUTS = ("attn_z", "mlp_post")  # what a block's linear maps read, side by side


@dataclass(frozen=True)
class Writer:
    """A linear map of a block, by its name in the network.

    Args:
        name: of the module.
        norm: of the norm between the map and the residual stream; None for none.
        fused: how many more outputs it has behind those that are meant.
    """

    name: str
    norm: str | None = None
    fused: int = 0


@dataclass(frozen=True)
class Table:
    """An embedding whose rows, times `scale`, are a term of what the first block reads."""

    name: str
    scale: float


def need_weights(model: Model, what: str) -> HuggingFaceModel:
    """The model, if it has weights that can be changed; raises for a model of TransformerLens and
    for packed weights."""
    if not isinstance(model, HuggingFaceModel):
        raise SteerlabError(
            f"{what} takes a causal model of transformers, and {getattr(model, 'name', model)} is "
            f"a {type(model).__name__}; load the folder or Hub id that it came from"
        )
    for name, weight in model.hf.named_parameters():
        if weight.is_meta or not weight.is_floating_point() or weight.element_size() < 2:
            raise SteerlabError(
                f"{what} takes weights as they were trained, and {name} is packed "
                f"({weight.dtype}) or lies elsewhere; load the model without quantisation, on one "
                "device"
            )
    return model


def writer(model: HuggingFaceModel, layer: int, site: str) -> Writer:
    """The linear map whose output is at `mlp_pre`, whose input is at `attn_z` or `mlp_post`, or
    whose output is at, or is added on the way to, any other site inside a block; raises where there
    is none that can be told."""
    anatomy, block = model.anatomy, model.blocks[layer]
    names = {id(module): name for name, module in model.hf.named_modules()}
    if site == "mlp_pre":
        ends = projections(block)
        return Writer(names[id(ends.first)], fused=ends.width if ends.fused else 0)
    attention = site in OF_ATTENTION
    last = anatomy.module(layer, "attn_z") if attention else projections(block).last
    if site in INPUTS:
        return Writer(names[id(last)])
    written = anatomy.module(layer, "attn_out" if attention else "mlp_out")
    behind = "norm" in type(written).__name__.lower()
    return Writer(names[id(last)], names[id(written)] if behind else None)


def tables(model: HuggingFaceModel) -> list[Table]:
    """The embeddings whose sum is what the first block reads; none where more is done to it."""
    hf, width = model.hf, model.width
    names = [
        name
        for name, module in hf.named_modules()
        if isinstance(module, torch.nn.Embedding) and module.weight.shape[-1] == width
    ]
    first = next(name for name, module in hf.named_modules() if module is model.blocks[0])
    seen = run(hf, [*names, first])
    into = seen[first].input
    ran = [name for name in names if seen[name].output is not None]
    if into is None or not ran:
        return []
    if len(ran) == 1:  # some models scale it outside of the module
        scale = _over(into, hf.get_submodule(ran[0]).weight, seen[ran[0]].input)
        rows = _rows(hf.get_submodule(ran[0]).weight, seen[ran[0]].input)
        close = torch.allclose(into.float().view_as(rows), scale * rows, rtol=1e-2, atol=1e-6)
        return [Table(ran[0], scale)] if close else []
    outputs = {name: seen[name].output for name in ran}
    if not adds_up(into, *(out.expand_as(into) for out in outputs.values() if out is not None)):
        return []
    return [Table(name, 1.0) for name in ran]


def _rows(weight: Tensor, ids: Tensor | None) -> Float[Tensor, "pos width"]:
    if ids is None:
        raise SteerlabError("the embedding read no tokens")
    return weight.detach()[ids.flatten()].float()


def _over(into: Tensor, weight: Tensor, ids: Tensor | None) -> float:
    """The number by which the rows of an embedding are multiplied."""
    rows = _rows(weight, ids).double()
    return float((into.double().view_as(rows) * rows).sum() / rows.square().sum().clamp(min=1e-30))


def oriented(module: Any, weight: Tensor) -> Tensor:
    """A linear map's weight as [out in], or such a matrix as the module keeps it: GPT-2's `Conv1D`
    has it the other way round."""
    return weight if hasattr(module, "in_features") else weight.mT


def gain_of(norm: Any, width: int, device: torch.device) -> Float[Tensor, " width"]:
    """What a norm multiplies a vector of root mean square 1 by, element by element."""
    ones = torch.ones(1, 1, width, device=device, dtype=next(norm.parameters()).dtype)
    gain: Tensor = norm.forward(ones).detach()[0, 0].double().cpu()
    return gain


@torch.inference_mode()
def root_mean_square(model: HuggingFaceModel, ids: Sequence[Sequence[int]], norm: str) -> float:
    """The mean length, over the square root of the width, of what a norm reads in some rows of
    tokens."""
    sizes: list[Tensor] = []

    def look(_: Any, args: tuple) -> None:
        sizes.append(args[0].float().square().mean(-1).sqrt().flatten())

    handle = model.hf.get_submodule(norm).register_forward_pre_hook(look)
    try:
        for row in ids:
            tokens = torch.tensor([list(row)], device=model.device)
            model.body(tokens, torch.ones_like(tokens, dtype=torch.bool))
    finally:
        handle.remove()
    return float(torch.cat(sizes).mean())
