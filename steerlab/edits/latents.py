"""Edits of an SAE's latents that leave the rest of h as it is: what the SAE does not explain is
never lost.

A latent is read as relu(pre) · [pre > threshold], pre = encoder · h + bias, and written along its
decoder row.
"""

from functools import partial
from typing import Any

import torch
from einops import einsum, rearrange
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.settings import need_finite
from steerlab.edits.drawn import draw_turned
from steerlab.edits.edit import Edit, edit_along
from steerlab.edits.operators import every_layer, random_shift
from steerlab.edits.part import Tensors
from steerlab.edits.record import Operator
from steerlab.edits.requirements import extra_of, need_units, source_extra_of
from steerlab.edits.windows import Window

READ = ("encoder", "bias", "threshold")
TINY = 1e-12  # of a squared norm


def set_latents(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """What is missing to the latents' goal, written along their decoder rows."""
    goal = rearrange(tensors["goal"], "row rank 1 -> row 1 rank")
    missing = goal - _latents(h, tensors)
    written = einsum(missing, tensors["decoder"], "row pos rank, row rank width -> row pos width")
    return tensors["fraction"][:, None, None] * written


def random_decoder(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """The same latents, read where they are and written along random rows of the same lengths and
    angles; they go `scale` times the fraction."""
    return {
        "decoder": draw_turned(tensors["decoder"], random),
        "fraction": scale * tensors["fraction"],
    }


def clamp(
    direction: Direction, *, level: float = 1.0, fraction: float = 1.0, positions: Window = "all"
) -> Edit:
    """Set the target's latents z to `level` times their mean z̄ on its text: h + fraction · (level
    · z̄ - z) W_dec.

    Level 0 switches them off; `fraction=0` is the identity. The error of the reconstruction stays,
    since h is never replaced by it. Needs what `decoded` or `gated` makes of a selection of
    latents.

    Args:
        direction: to the target, of latents.
        level: how many times its own mean value each latent is set to.
        fraction: how much of the way there it goes.
        positions: which positions are edited (see `sl.edits.window`).
    """
    units = extra_of(direction, "clamp", "decoded", *READ, "decoder", "level")
    need_units(direction, "clamp", units["decoder"])
    size = every_layer(direction, need_finite("fraction", fraction))
    goal = need_finite("level", level) * units["level"][..., None]
    tensors = _reading(units) | {"decoder": units["decoder"], "goal": goal, "fraction": size}
    return edit_along(
        direction,
        set_latents,
        tensors,
        operator="clamp",
        positions=positions,
        identity=fraction == 0,
    )


def shift_where_on(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """One vector at the positions where some latent is on, and 0 elsewhere."""
    is_on = (_latents(h, tensors) > 0).any(-1, keepdim=True)
    return is_on * tensors["shift"][:, None]


def gate(direction: Direction, *, strength: float = 1.0, positions: Window = "all") -> Edit:
    """Shift along the direction only where a latent of the source is on: h + [any z > 0] · strength
    · gap · unit.

    Strength 1 is one natural gap, 0 the identity. Needs what `gated` makes of a selection of
    latents, the source's among them. Source: Deng et al. (arXiv 2505.05111), whose own code for it
    is not released.
    """
    units = source_extra_of(direction, "gate", "gated", *READ)
    need_units(direction, "gate", units["encoder"], lang=direction.source)
    shift = need_finite("strength", strength) * direction.gap[:, None] * direction.unit
    if strength and not shift.any(-1).all():
        raise SteerlabError(
            f"the direction to {direction.target!r} is zero at some layer; leave that layer out"
        )
    return edit_along(
        direction,
        shift_where_on,
        _reading(units) | {"shift": shift},
        operator="gate",
        positions=positions,
        identity=strength == 0,
    )


def shift_signed(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """One vector, less what the latents have of the source's prototype."""
    prototype = _latents(h, tensors) @ tensors["prototype"]
    return tensors["shift"][:, None] - prototype * tensors["away"][:, None]


def random_signed(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """What is pushed and what is pulled along two random vectors of `scale` times the lengths, at
    the same angle."""
    both = torch.stack([tensors["shift"], tensors["away"]], 1)
    shift, away = (scale * draw_turned(both, random)).unbind(1)
    return {"shift": shift, "away": away}


def signed_shift(
    direction: Direction, *, push: float = 1.0, pull: float = 0.0, positions: Window = "all"
) -> Edit:
    """Push the target's latents along their subspace and pull the source's prototype out, over the
    window's layers.

    h + (z' - z) W_dec, z' = z + push · p - pull · <z, m>/(‖m‖² + ε) · m, with p the target's mean
    difference projected on its subspace and m the source's mean, on the target's latents. Push
    alone is a constant shift, push · p W_dec; 0 and 0 are the identity. The layers of the direction
    outside the target's window are left alone. Needs what `signed` makes of pairs. Source: Neural
    FOXP2 stage III (arXiv 2602.00945; λ and β there), with the error of the reconstruction kept:
    one released code replaces h by the reconstruction, which alone damages the stream.

    Args:
        direction: from the source to the target, of latents.
        push: λ, how many of the target's mean differences are added.
        pull: β, how much of the source's prototype is taken away.
        positions: which positions are edited (see `sl.edits.window`).
    """
    window = extra_of(direction, "signed_shift", "signed", "window")["window"].bool().tolist()
    layers = [layer for layer, is_in in zip(direction.layers, window, strict=True) if is_in]
    if not layers:
        given = ", ".join(map(str, direction.layers))
        raise SteerlabError(
            f"none of the layers {given} is in the window of {direction.target!r}; take all layers"
        )
    direction = direction.at(*layers)
    units = extra_of(direction, "signed_shift", "signed", *READ, "decoder", "push", "pull")
    need_units(direction, "signed_shift", units["decoder"])
    pushed, pulled = (
        einsum(units[name], units["decoder"], "layer rank, layer rank width -> layer width")
        for name in ("push", "pull")
    )
    squared = units["pull"].square().sum(-1, keepdim=True)
    tensors = _reading(units) | {
        "shift": need_finite("push", push) * pushed,
        "away": need_finite("pull", pull) / (squared + TINY) * pulled,
        "prototype": units["pull"][..., None],
    }
    return edit_along(
        direction,
        shift_signed,
        tensors,
        operator="signed_shift",
        positions=positions,
        identity=push == 0 and pull == 0,
    )


def shift_code(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """What the latents gain by a code, written along their decoder rows."""
    latents = _latents(h, tensors)
    moved = (latents + rearrange(tensors["code"], "row rank 1 -> row 1 rank")).relu()
    return einsum(
        moved - latents, tensors["decoder"], "row pos rank, row rank width -> row pos width"
    )


def random_code(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """`scale` times the code, of the same latents, written along random rows of the same lengths
    and angles."""
    return {
        "decoder": draw_turned(tensors["decoder"], random),
        "code": scale * tensors["code"],
    }


def add_code(direction: Direction, *, strength: float = 1.0, positions: Window = "all") -> Edit:
    """Add a trained code to an SAE's latents z: h + (relu(z + strength · code) - z) W_dec.

    Strength 1 is the code as it was trained, 0 the identity; the error of the reconstruction
    stays. Needs what `learn(how="yapo")` trains. Source: YaPO (arXiv 2601.08441).

    Args:
        direction: to the target, with its code.
        strength: how many times the code is added.
        positions: which positions are edited (see `sl.edits.window`).
    """
    units = extra_of(direction, "add_code", "learn(how='yapo')", *READ, "decoder", "code")
    need_units(direction, "add_code", units["code"])
    code = need_finite("strength", strength) * units["code"][..., None]
    return edit_along(
        direction,
        shift_code,
        _reading(units) | {"decoder": units["decoder"], "code": code},
        operator="add_code",
        positions=positions,
        identity=strength == 0,
    )


def _latents(h: Tensor, tensors: Tensors) -> Tensor:
    """relu(pre) · [pre > threshold] [row pos rank]; a unit of zeros, which fills up a smaller
    rank, is never on."""
    pre = einsum(h, tensors["encoder"], "row pos width, row rank width -> row pos rank")
    pre = pre + rearrange(tensors["bias"], "row rank 1 -> row 1 rank")
    return pre.relu() * (pre > rearrange(tensors["threshold"], "row rank 1 -> row 1 rank"))


def _reading(units: dict[str, Tensor]) -> dict[str, Tensor]:
    """What reads the latents. One number for each unit is a row of width 1: rows of zeros then
    fill up any rank."""
    return {
        "encoder": units["encoder"],
        "bias": units["bias"][..., None],
        "threshold": units["threshold"][..., None],
    }


RECORDS = {
    "clamp": Operator(
        make=clamp,
        change=set_latents,
        knob="level",
        unit="mean values of the latents on the target's text",
        grid=(1.0, 2.0, 4.0, 8.0),
        identity={"fraction": 0.0},
        twin=random_decoder,
        units="latents",
        needs="level",
        cites=("templeton2024scaling",),
    ),
    "gate": Operator(
        make=gate,
        change=shift_where_on,
        knob="strength",
        unit="natural gaps",
        grid=(0.5, 1.0, 1.5, 2.0),
        identity={"strength": 0.0},
        twin=random_shift,  # behind the same gate
        units="latents",
        cites=("deng2025unveiling",),
    ),
    "signed_shift": Operator(
        make=signed_shift,
        change=shift_signed,
        knob="push",
        unit="mean differences of the target's latents",
        grid=(0.5, 1.0, 2.0, 4.0),
        identity={"push": 0.0, "pull": 0.0},
        twin=random_signed,
        whole=True,
        units="latents",
        needs="push",
        cites=("saha2026neural",),
    ),
    "push_pull": Operator(
        make=partial(signed_shift, pull=1.0),
        change=shift_signed,
        knob="push",
        unit="mean differences of the target's latents",
        grid=(0.5, 1.0, 2.0, 4.0),
        identity={"push": 0.0, "pull": 0.0},
        twin=random_signed,
        whole=True,
        units="latents",
        needs="push",
        cites=("saha2026neural",),
    ),
    "add_code": Operator(
        make=add_code,
        change=shift_code,
        knob="strength",
        unit="times the trained code",
        grid=(0.5, 1.0, 1.5, 2.0),
        identity={"strength": 0.0},
        twin=random_code,
        units="latents",
        needs="code",
        cites=("bounhar2026yapo",),
    ),
}
