"""Operators that turn activations by angles and keep their length, and one that caps them.

Below, `h` is [row pos width]; `a` and `b` are its parts along two orthonormal axes.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.settings import need_finite
from steerlab.edits.drawn import draw_unit
from steerlab.edits.edit import Edit, edit_along
from steerlab.edits.operators import (
    add,
    every_layer,
    levels_of,
    plane_of,
    random_shift,
    shift_keeping_norm,
)
from steerlab.edits.part import Tensors
from steerlab.edits.record import Operator
from steerlab.edits.requirements import need_direction
from steerlab.edits.same_anywhere import angle_of
from steerlab.edits.windows import Window

_NEAR = 1e-6  # of a vector's length: what lies across a direction is then rounding

# ------------------------------------------------------------------------------------- to an angle


def turn_to_angle(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """From h to h whose part in the plane lies at the angle, as long as before."""
    first, second = tensors["first"][:, None], tensors["second"][:, None]
    a = (h * first).sum(-1, keepdim=True)
    b = (h * second).sum(-1, keepdim=True)
    phase = angle_of(b, a)
    missing = tensors["angle"][:, None, None] - phase
    shortest = angle_of(missing.sin(), missing.cos())  # the way round that is no longer than π
    new = phase + tensors["fraction"][:, None, None] * shortest
    size = torch.hypot(a, b)
    turned = (size * new.cos() - a) * first + (size * new.sin() - b) * second
    everywhere = tensors["adaptive"][:, None, None] == 0
    return turned * (everywhere | (a > 0))


def random_plane_to(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """A plane of the same second axis and a random first one; positions go `scale` times the
    fraction of the way."""
    second = tensors["second"]
    drawn = draw_unit(tensors["first"], random)
    across = drawn - (drawn * second).sum(-1, keepdim=True) * second
    first = torch.nn.functional.normalize(across, dim=-1)
    return {"first": first, "fraction": scale * tensors["fraction"]}


def turn_to(
    direction: Direction,
    *,
    degrees: float = 60.0,
    adaptive: bool = False,
    fraction: float = 1.0,
    positions: Window = "all",
) -> Edit:
    """Turn every position's part in a plane to one angle from the direction; norms stay.

    h - Ph + ‖Ph‖ (cos θ b₁ + sin θ b₂), with b₁ the direction, b₂ what of the source's mean is
    across it, and P the projection on both: 0 degrees is along the direction, 90 where the source's
    mean lies across it, 180 against the direction. All positions end at one angle, whatever theirs
    was, so that doing it twice is doing it once; `rotate` keeps their angles apart. Source: Angular
    Steering (arXiv 2510.26243), equations 2 and 3, whose b₂ is the first principal component of
    the candidates of all layers, and whose plane is the same at each layer.

    Args:
        direction: from the source to the target.
        degrees: the angle θ.
        adaptive: turn only positions with h·b₁ > 0. The origin is that of the activations, so that
            which positions these are depends on what all texts share.
        fraction: how much of the way to the angle each position goes, the shorter way round; 0 is
            the identity, 1 the published form.
        positions: which positions are edited (see `sl.edits.window`).
    """
    turn = torch.deg2rad(torch.tensor(need_finite("degrees", degrees)))
    across, first = plane_of(direction, along="direction")
    tensors = {
        "first": first,
        "second": across,
        "angle": every_layer(direction, float(turn)),
        "fraction": every_layer(direction, need_finite("fraction", fraction)),
        "adaptive": every_layer(direction, float(adaptive)),
    }
    return edit_along(
        direction,
        turn_to_angle,
        tensors,
        operator="turn_to",
        positions=positions,
        identity=fraction == 0,
    )


# ------------------------------------------------------------------------------------ along an arc


def _along_arc(h: Tensor, unit: Tensor, across: Tensor, share: Tensor) -> Tensor:
    """From h to h turned by a share of its angle to a unit vector, in the plane of the two; where
    there is no plane, as they are opposite, through `across`."""
    norm = partial(torch.linalg.vector_norm, dim=-1, keepdim=True)
    length, a = norm(h), (h * unit).sum(-1, keepdim=True)
    rest = h - a * unit
    size = norm(rest)
    side = torch.where(size <= _NEAR * length, across, rest / size.clamp(min=1e-30))
    # The arc's tangent: exact at small angles, where the cosine is not.
    angle = (1 - share) * angle_of(size, a)
    return (length * angle.cos() - a) * unit + (length * angle.sin() * side - rest)


def turn_by_share(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """From h to h turned by a share of its angle to the direction."""
    share = tensors["share"][:, None, None]
    return _along_arc(h, tensors["unit"][:, None], tensors["across"][:, None], share)


def random_goal(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """Towards a random direction, by `scale` times the share or strength."""
    unit = draw_unit(tensors["unit"], random)
    knob = "share" if "share" in tensors else "strength"
    return {"unit": unit, "across": _across(unit), knob: scale * tensors[knob]}


def slerp(direction: Direction, *, share: float = 0.2, positions: Window = "all") -> Edit:
    """Turn each position by a share of its own angle to the direction; norms stay.

    ‖h‖ (sin((1-t) ω) ĥ + sin(t ω) û) / sin ω, ω the angle between h and the direction û, t the
    share: 0 is the identity, 1 puts each position along the direction. A share of s and then of t
    is one of 1 - (1-s)(1-t). Spherical linear interpolation (Shoemake 1985), computed without the
    division: the angle is read off both parts, and a position opposite to û turns through one fixed
    vector across it.

    Args:
        direction: to the target.
        share: of the angle, t.
        positions: which positions are edited (see `sl.edits.window`).
    """
    unit = _unit_of(direction)
    size = every_layer(direction, need_finite("share", share))
    return edit_along(
        direction,
        turn_by_share,
        {"unit": unit, "across": _across(unit), "share": size},
        operator="slerp",
        positions=positions,
        identity=share == 0,
    )


def turn_by_doubt(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """From h to h turned by a share that grows with how far it lies from the direction."""
    unit = tensors["unit"][:, None]
    length = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
    cosine = (h * unit).sum(-1, keepdim=True) / length.clamp(min=1e-30)
    kappa, threshold = tensors["kappa"][:, None, None], tensors["threshold"][:, None, None]
    # The difference of a softmax over (kappa cos, -kappa cos).
    doubt = -torch.tanh(kappa * cosine)
    share = ((doubt - threshold) / (1 - threshold)).clamp(min=0)
    arc = tensors["strength"][:, None, None] * share
    moved = _along_arc(h, unit, tensors["across"][:, None], arc)
    return torch.where(share > 0, moved, torch.zeros_like(moved))


def spherical(
    direction: Direction,
    *,
    strength: float = 0.7,
    threshold: float = -0.15,
    kappa: float = 20.0,
    positions: Window = "all",
) -> Edit:
    """Turn each position towards the direction, the further the less it lies there already; norms
    stay.

    As `slerp` by t = strength · (δ - β)/(1 - β) where δ > β, and not at all elsewhere, with
    δ = p(-û) - p(û) of a softmax over κ times the cosines of h with û and -û, which is
    -tanh(κ cos(h, û)). As δ ≤ 1, no position goes further than `strength`; 0 is the identity.
    Source: Spherical Steering (arXiv 2602.08169); the defaults are its values for Llama-3.1-8B at
    layer 14, and û is the direction of any estimator.

    Args:
        direction: to the target.
        strength: α, the largest share of its angle to the direction that a position turns by.
        threshold: β, of -1 to 1: below 0 positions turn that lean towards the direction a little.
        kappa: κ, how sharply a cosine decides.
        positions: which positions are edited (see `sl.edits.window`).
    """
    if not -1 <= need_finite("threshold", threshold) < 1:
        raise SteerlabError(f"threshold is {threshold}; give a number from -1 to below 1")
    if need_finite("kappa", kappa) <= 0:
        raise SteerlabError(f"kappa is {kappa}; give a number above 0")
    unit = _unit_of(direction)
    tensors = {
        "unit": unit,
        "across": _across(unit),
        "strength": every_layer(direction, need_finite("strength", strength)),
        "threshold": every_layer(direction, threshold),
        "kappa": every_layer(direction, kappa),
    }
    return edit_along(
        direction,
        turn_by_doubt,
        tensors,
        operator="spherical",
        positions=positions,
        identity=strength == 0,
    )


def _unit_of(direction: Direction) -> Float[Tensor, "layer width"]:
    """The direction's unit vectors; raises where one is zero."""
    need_direction(direction)
    if not direction.unit.any(-1).all():
        raise SteerlabError(
            f"the direction to {direction.target!r} is zero: there is nothing to turn towards"
        )
    return direction.unit


def _across(unit: Tensor) -> Float[Tensor, "row width"]:
    """One vector of length 1 across each unit vector: the axis that it has least of, made
    orthogonal to it."""
    axis = torch.nn.functional.one_hot(unit.abs().argmin(-1), unit.shape[-1]).to(unit.dtype)
    rest = axis - (axis * unit).sum(-1, keepdim=True) * unit
    return torch.nn.functional.normalize(rest, dim=-1)


# ----------------------------------------------------------------------------------------- a floor


def lift_to_level(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """What is missing to the level along the unit vector, where something is."""
    unit = tensors["unit"][:, None]
    missing = tensors["level"][:, None, None] - (h * unit).sum(-1, keepdim=True)
    return tensors["fraction"][:, None, None] * missing.clamp(min=0) * unit


def random_floor(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """The same level along a random direction, to which each position goes `scale` times the
    fraction of the way."""
    return {"unit": draw_unit(tensors["unit"], random), "fraction": scale * tensors["fraction"]}


def cap(
    direction: Direction, *, level: float = 1.0, fraction: float = 1.0, positions: Window = "all"
) -> Edit:
    """Keep every position's part along the direction from falling below a level: h + fraction ·
    max(l - u·h, 0) u.

    The level is as `affine` has it: 0 is where the source's mean lies along the direction, 1 where
    the target's does. What lies at the level or beyond is left alone, so that doing it twice is
    doing it once; `fraction=0` is the identity. To keep a language from coming in, cap the
    direction the other way, `between(target, source)`. Source: the activation capping of The
    Assistant Axis (arXiv 2601.10387), whose level is a quantile of the projections.

    Args:
        direction: from the source to the target.
        level: the least part along the direction, 0 being the source's mean and 1 the target's.
        fraction: how much of what is missing each position gets.
        positions: which positions are edited (see `sl.edits.window`).
    """
    unit, levels = levels_of(direction, need_finite("level", level))
    size = every_layer(direction, need_finite("fraction", fraction))
    return edit_along(
        direction,
        lift_to_level,
        {"unit": unit, "level": levels, "fraction": size},
        operator="cap",
        positions=positions,
        identity=fraction == 0,
    )


RECORDS = {
    "add_keep_norm": Operator(
        make=partial(add, keep_norm=True),
        change=shift_keeping_norm,
        knob="strength",
        unit="natural gaps, before the length is restored",
        grid=(0.5, 1.0, 1.5, 2.0),
        identity={"strength": 0.0},
        twin=random_shift,
        cites=("yuan2025flexac",),
    ),
    "turn_to": Operator(
        make=turn_to,
        change=turn_to_angle,
        knob="degrees",
        unit="degrees from the direction",
        grid=(75.0, 60.0, 45.0, 30.0),
        identity={"fraction": 0.0},
        twin=random_plane_to,
        cites=("vu2025angular",),
    ),
    "slerp": Operator(
        make=slerp,
        change=turn_by_share,
        knob="share",
        unit="angles to the direction",
        grid=(0.1, 0.2, 0.3, 0.4),
        identity={"share": 0.0},
        twin=random_goal,
        cites=("shoemake1985animating",),
    ),
    "spherical": Operator(
        make=spherical,
        change=turn_by_doubt,
        knob="strength",
        unit="angles to the direction, at most",
        grid=(0.1, 0.2, 0.3, 0.4),
        identity={"strength": 0.0},
        twin=random_goal,
        cites=("you2026spherical",),
    ),
    "cap": Operator(
        make=cap,
        change=lift_to_level,
        knob="level",
        unit="natural gaps from the source's mean",
        grid=(0.5, 1.0, 1.5, 2.0),
        identity={"fraction": 0.0},
        twin=random_floor,
        cites=("lu2026assistant",),
    ),
}
