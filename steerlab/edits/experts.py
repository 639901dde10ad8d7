"""Edits of where a mixture of experts sends its tokens: at `router`, on the logits before the
softmax and the top k. Layers at which the target has no expert are left alone."""

from typing import Any

import torch
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.random import generator
from steerlab.core.settings import need_finite
from steerlab.core.sites import ROUTER
from steerlab.edits.edit import Edit, edit_along
from steerlab.edits.part import Tensors
from steerlab.edits.record import Operator
from steerlab.edits.requirements import extra_of
from steerlab.edits.windows import Window

FIT = "masked"
MARGIN = 1e-3  # the standard deviation of what is drawn for a hard choice: variance 1e-6


def reroute(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """What is added to a router's logits: standard deviations of them, or what is missing to the
    largest, or to the smallest, and a margin."""
    soft, on, off = (tensors[name][:, None] for name in ("soft", "on", "off"))
    spread = h.std(-1, correction=0, keepdim=True)
    to_top = h.amax(-1, keepdim=True) + on - h
    to_bottom = h.amin(-1, keepdim=True) - off - h
    # A choice and no product: an expert that is left alone gets a plain 0.
    moved = torch.where(on > 0, to_top, torch.where(off > 0, to_bottom, torch.zeros_like(h)))
    return soft * spread + moved


def route(
    direction: Direction,
    *,
    strength: float = 0.5,
    hard: bool = False,
    positions: Window = "all",
) -> Edit:
    """Send tokens to the target's experts, or away from them with a strength below 0.

    Formula: soft, z_k + strength · std(z) over the experts of the token's logits z, for each of the
    target's experts k; hard, max(z) + ε with a strength above 0 and min(z) - ε with one below,
    whatever its size. ε is drawn once for each expert, the absolute value of a normal number of
    variance 1e-6, so that several chosen experts have an order. Strength 0 is the identity. All
    that a router does afterwards (softmax, top k) it does with these logits. In bfloat16 ε may be
    less than a digit; where more experts are switched on than a token meets, the last fall out.

    Needs what `masked` makes of a selection of experts. Source: Bandarkar et al. (arXiv
    2510.04694), with |strength| ≤ 1 and ε of either sign.

    Args:
        direction: to the target, of experts.
        strength: standard deviations of the logits; of a hard edit, its sign alone.
        hard: whether the experts are switched on or off for certain.
        positions: which positions are edited (see `sl.edits.window`).
    """
    size = need_finite("strength", strength)
    mask = _experts(direction)
    busy = mask.any(-1)
    pairs = zip(direction.layers, busy.tolist(), strict=True)
    layers = [layer for layer, is_busy in pairs if is_busy]
    direction, mask = direction.at(*layers), mask[busy]
    margin = torch.randn(mask.shape, generator=generator("router margin", 0)).abs()
    # Never exactly 0, which would stand for an expert that is left alone.
    margin = mask * (MARGIN * margin).clamp(min=1e-9)
    nothing = torch.zeros_like(mask)
    tensors = {
        "soft": nothing if hard else size * mask,
        "on": margin if hard and size > 0 else nothing,
        "off": margin if hard and size < 0 else nothing,
    }
    return edit_along(
        direction,
        reroute,
        tensors,
        operator="route",
        positions=positions,
        identity=size == 0,
    )


def random_experts(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """As many random experts, of which each is moved by `scale` times as much."""
    order = torch.randperm(tensors["soft"].shape[-1], generator=random)
    made = {name: tensors[name][..., order] for name in ("soft", "on", "off")}
    return {**made, "soft": scale * made["soft"]}


def _experts(direction: Direction) -> Tensor:
    """1 at the target's experts, [layer expert]; a direction of another site, and one without any,
    raise."""
    if direction.site != ROUTER:
        raise SteerlabError(
            f"route edits the logits of routers, at {ROUTER}, and this direction to "
            f"{direction.target!r} is of {direction.site}: choose experts of a Routing, and make "
            "directions of them by masked(selection, routing.firing)"
        )
    mask = extra_of(direction, "route", FIT, "mask")["mask"]
    if not mask.any():
        layers = ", ".join(map(str, direction.layers))
        raise SteerlabError(
            f"route: {direction.target!r} has no expert at layers {layers}, so that nothing would "
            "change; take more layers, or a lower threshold"
        )
    return mask


RECORDS = {
    "route": Operator(
        make=route,
        change=reroute,
        knob="strength",
        unit="standard deviations of the router's logits",
        grid=(0.25, 0.5, 1.0),
        identity={"strength": 0.0},
        twin=random_experts,
        whole=True,
        units="experts",
        cites=("bandarkar2026multilingual",),
    ),
}
