"""Plain hooks of an edit for TransformerLens, which see no tokens."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.tokens import has_bos
from steerlab.edits.gates import gate_tensors, own_tensors
from steerlab.edits.part import Part


def plain_hook(part: Part, edits: int | None, *, bos: bool) -> Callable[..., Tensor | None]:
    """A hook for TransformerLens, which sees no tokens: with `bos` it spares the first position of
    each pass of two or more."""

    spares = bos and part.positions != "everywhere"

    def hook(h: Tensor, hook: Any = None) -> Tensor | None:
        if part.identity:
            return None
        tensors = {name: tensor.to(h.device) for name, tensor in part.tensors.items()}
        rows: Tensor | slice = slice(None)
        if part.rows is not None:
            rows = part.rows.to(h.device)
            if edits != len(h):
                raise SteerlabError(
                    f"the batch has {len(h)} rows and the stack {edits} edits; give each row one"
                )
        new, first = h.clone(), 1 if spares and h.shape[1] > 1 else 0
        x = h[rows, first:].float()
        added = part.change(x, own_tensors(tensors), None)
        if part.gate is not None:
            nothing = torch.full((len(x),), torch.nan, device=x.device)
            factors, _ = part.gate.factors(x, gate_tensors(tensors), None, nothing)
            added = factors[..., None] * added
        new[rows, first:] = (x + added).to(h.dtype)
        return new

    return hook


def spares_first(model: Any) -> bool:
    """Whether the first position of a model's texts is left alone: it is, as BOS or, where texts
    begin without, as the token that attention goes to instead. Raises for a model of which that
    cannot be told."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise SteerlabError(
            "a plain hook does not see the tokens, and what begins a text is not known without a "
            "model that has a tokenizer; give the model, as in edit.hooks(model), or bos=True or "
            "bos=False"
        )
    if hasattr(model, "cfg") and not model.cfg.default_prepend_bos and has_bos(tokenizer):
        raise SteerlabError(
            "TransformerLens puts no BOS before this model's texts (cfg.default_prepend_bos is "
            f"False), but its tokenizer has one, {tokenizer.bos_token!r}; give bos=True if your "
            "texts begin with it, or bos=False"
        )
    return True
