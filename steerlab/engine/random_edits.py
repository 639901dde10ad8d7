"""Edits in random directions that are as strong as a given one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.errors import SteerlabError
from steerlab.core.random import generator
from steerlab.edits import Edit, Part, stack
from steerlab.engine.forward import rows_on
from steerlab.engine.prompts import encode
from steerlab.models.loading import load

Tensors = Mapping[str, Tensor]

# a scale fits at once where the dose is in proportion to it, as that of `add` and of one layer's
# `ablate`
_TRIES = 8
_CLOSE = 0.02  # of the dose that a control shall have


@torch.inference_mode()
def doses(
    model: Any, texts: Sequence[str], edits: Sequence[Edit], *, batch: int | None = None
) -> Float[Tensor, " edit"]:
    """The mean dose ‖Δh‖ / ‖h‖ of each edit over all the positions of the texts that it touches;
    0 for no edit."""
    model = load(model)
    ids = encode(model.tokenizer, texts)
    edit = stack(edits)
    if not edit.parts:
        return torch.zeros(len(edits))
    tokens = [row for row in ids for _ in edits]
    carries = list(range(len(edits))) * len(ids)
    with rows_on(model, tokens, edit, carries=carries) as rows:

        def work(chosen: Sequence[int]) -> None:
            rows.forward(chosen)  # for what is touched on the way

        rows.run(work, batches.plan(model, tokens, rows.depth, batch=batch))
    return rows.touched.doses(len(edits))


def random_like(
    model: Any, texts: Sequence[str], edit: Edit, *, seed: int = 0, batch: int | None = None
) -> Edit:
    """An edit like this one in random directions, of the same dose over these texts: what any push
    of its size does.

    Same operators, layers and ranks. `add` takes a random vector of the same length, and so does
    `gate`, behind the same gate; `ablate` a random subspace; `rotate` a random second axis;
    `neuron_add`, `neuron_set` and `neuron_zero` as many random neurons, which get what the edit's
    get. Length, fraction or angle is then scaled until the dose agrees within 2 %, since a random
    direction holds less of the activations than a language's. What cannot reach the dose raises,
    and so does an operator that knows no random likeness: `clamp` and `signed_shift` have their
    control in other features (`selection.matched`).
    """
    model = load(model)
    if not edit.parts:
        raise SteerlabError(
            "there is no random control of an edit that does nothing; give one with parts"
        )
    scale = 1.0
    for _ in range(_TRIES):
        made = _randomised(edit, seed, scale)
        wanted, reached = doses(model, texts, [edit, made], batch=batch).tolist()
        if abs(reached - wanted) <= _CLOSE * wanted:
            return made
        scale *= wanted / reached if reached else math.inf
        if not math.isfinite(scale):
            break
    raise SteerlabError(
        f"no random edit reached the dose {wanted:.3g} (the last had {reached:.3g}); take a weaker "
        "edit or fewer layers, "
        "or compare with controls.random"
    )


def _randomised(edit: Edit, seed: int, scale: float) -> Edit:
    random = generator("random edit", seed)
    return replace(edit, parts=tuple(_random_part(part, random, scale) for part in edit.parts))


def _random_part(part: Part, random: torch.Generator, scale: float) -> Part:
    if part.operator not in _RANDOM:
        other = (
            "clamp or shift other features, of selection.matched"
            if part.operator in _FEATURES
            else "controls.random"
        )
        raise SteerlabError(
            f"there is no random control of the operator {part.operator!r}; use {other}: only "
            f"{', '.join(_RANDOM)} have one"
        )
    old = {name: tensor.cpu() for name, tensor in part.tensors.items()}
    return replace(part, tensors={**old, **_RANDOM[part.operator](old, random, scale)})


def _draw(like: Tensor, random: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=random)


def _shift(old: Tensors, random: torch.Generator, scale: float) -> Tensors:
    shift = _draw(old["shift"], random)
    return {
        "shift": scale
        * shift
        * old["shift"].norm(dim=-1, keepdim=True)
        / shift.norm(dim=-1, keepdim=True)
    }


def _subspace(old: Tensors, random: torch.Generator, scale: float) -> Tensors:
    filled = old["basis"].any(-1, keepdim=True)  # a stack fills smaller subspaces up with zeros
    basis = torch.linalg.qr(_draw(old["basis"], random).mT)[0].mT * filled
    return {"basis": basis, "fraction": scale * old["fraction"]}


def _plane(old: Tensors, random: torch.Generator, scale: float) -> Tensors:
    first, second = old["first"], _draw(old["second"], random)
    second = second - (second * first).sum(-1, keepdim=True) * first
    return {"second": second / second.norm(dim=-1, keepdim=True), "angle": scale * old["angle"]}


def _neurons(old: Tensors, random: torch.Generator, scale: float) -> Tensors:
    order = torch.randperm(old["weight"].shape[-1], generator=random)
    return {name: scale * old[name][..., order] for name in ("shift", "weight")}


_RANDOM: dict[str, Callable[[Tensors, torch.Generator, float], Tensors]] = {
    "add": _shift,
    "gate": _shift,
    "ablate": _subspace,
    "rotate": _plane,
    **dict.fromkeys(("neuron_add", "neuron_set", "neuron_zero"), _neurons),
}
_FEATURES = ("clamp", "signed_shift")
