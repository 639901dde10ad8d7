"""The operators that take any fit: from a direction and one knob to an edit.

Each has its function (what is added to h), a setting at which it is the identity, where there is
one a random twin, and a record of all this in `RECORDS`.
"""

import math
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.settings import need_finite
from steerlab.core.strength_unit import warn_of_every_layer
from steerlab.edits.drawn import draw_basis, draw_like, draw_unit
from steerlab.edits.edit import Edit, edit_along
from steerlab.edits.part import Tensors
from steerlab.edits.record import Operator
from steerlab.edits.requirements import need_direction
from steerlab.edits.windows import Window

MIDDLE, TOP = 0.35, 0.70  # of the depth, where `detour` removes and where it puts back

# Below, `h` is [row pos width] and a tensor that has no axis of positions gets one by [:, None].


def shift(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """One vector for all positions."""
    return tensors["shift"][:, None]


def random_shift(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """A random vector of `scale` times the length."""
    drawn = draw_like(tensors["shift"], random)
    length = tensors["shift"].norm(dim=-1, keepdim=True)
    return {"shift": scale * drawn * length / drawn.norm(dim=-1, keepdim=True)}


def shift_keeping_norm(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """From h to what the shift makes of it, as long as before."""
    moved = h + tensors["shift"][:, None]
    norm = torch.linalg.vector_norm
    length = norm(h, dim=-1, keepdim=True)
    return moved * (length / norm(moved, dim=-1, keepdim=True).clamp(min=1e-30)) - h


def add(
    direction: Direction,
    *,
    strength: float = 1.0,
    keep_norm: bool = False,
    positions: Window = "all",
) -> Edit:
    """Shift along the direction: h + strength · gap · unit.

    Strength 1 is one natural gap, the distance between the two languages' means at that layer; 0 is
    the identity.

    Args:
        direction: from the source to the target.
        strength: in natural gaps.
        keep_norm: give each position its length back, ‖h‖ (h + s)/‖h + s‖, as FlexAC does (arXiv
            2510.11190): what is left of the shift is a turn towards the direction. A sweep calls it
            `add_keep_norm`.
        positions: which positions are edited (see `sl.edits.window`).
    """
    need_direction(direction)
    step = need_finite("strength", strength) * direction.gap[:, None] * direction.unit
    warn_of_every_layer(direction, "add")
    leads = ((direction.gap != 0) & direction.unit.any(-1)).tolist()
    nowhere = [layer for layer, goes in zip(direction.layers, leads, strict=True) if not goes]
    if strength and nowhere:
        raise SteerlabError(
            f"the direction to {direction.target!r} is zero at layers "
            f"{', '.join(map(str, nowhere))}: adding it would leave the model unsteered; leave "
            "these layers out"
        )
    return edit_along(
        direction,
        shift_keeping_norm if keep_norm else shift,
        {"shift": step},
        operator="add_keep_norm" if keep_norm else "add",
        positions=positions,
        identity=strength == 0,
    )


def remove_inside(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """What lies in the subspace, taken away by a fraction."""
    basis = tensors["basis"]
    return -tensors["fraction"][:, None, None] * inside(h, basis, basis)


def random_subspace(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """A random subspace of the same rank, of which `scale` times the fraction is removed."""
    basis = draw_basis(tensors["basis"], random)
    return {"basis": basis, "fraction": scale * tensors["fraction"]}


def ablate(direction: Direction, *, fraction: float = 1.0, positions: Window = "all") -> Edit:
    """Remove what lies in the target's subspace: h - fraction · Bᵀ B h.

    Fraction 1 removes it, 0 is the identity, a negative one puts more of it in. B has orthonormal
    rows, so that removing twice is removing once.
    """
    size = every_layer(direction, need_finite("fraction", fraction))
    need_basis(direction, "to remove")
    return edit_along(
        direction,
        remove_inside,
        {"basis": direction.basis, "fraction": size},
        operator="ablate",
        positions=positions,
        identity=fraction == 0,
    )


def turn(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """From h to h turned in the plane of two orthonormal axes."""
    first, second = tensors["first"][:, None], tensors["second"][:, None]
    cos, sin = tensors["angle"].cos()[:, None, None], tensors["angle"].sin()[:, None, None]
    a = (h * first).sum(-1, keepdim=True)
    b = (h * second).sum(-1, keepdim=True)
    return (a * cos - b * sin - a) * first + (a * sin + b * cos - b) * second


def random_plane(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """A plane of the same first axis and a random second one, turned by `scale` times the angle."""
    first, second = tensors["first"], draw_like(tensors["second"], random)
    second = second - (second * first).sum(-1, keepdim=True) * first
    unit = second / second.norm(dim=-1, keepdim=True)
    return {"second": unit, "angle": scale * tensors["angle"]}


def rotate(
    direction: Direction,
    *,
    degrees: float | None = None,
    share: float | None = None,
    positions: Window = "all",
) -> Edit:
    """Turn every position's part in the plane of source mean and target by an angle; norms stay.

    The plane is spanned by the source's mean and the direction; the turn goes from the source
    towards the target. `degrees`, or `share` of the angle between the two means; 0 is the identity.
    Source: the offset form of Selective Steering (2026).

    Args:
        direction: from the source to the target.
        degrees: the angle; give it or `share`.
        share: the angle as a share of that between the two means.
        positions: which positions are edited (see `sl.edits.window`).
    """
    if (degrees is None) == (share is None):
        raise SteerlabError(
            "rotate takes either degrees= or share= (of the angle between the two means)"
        )
    need_direction(direction)
    warn_of_every_layer(direction, "rotate")
    first, second = plane_of(direction)
    if share is not None:
        angle = need_finite("share", share) * means_angle(direction)
    else:
        angle = torch.full((len(direction.layers),), math.radians(need_finite("degrees", degrees)))
    tensors = {"first": first, "second": second, "angle": angle}
    return edit_along(
        direction,
        turn,
        tensors,
        operator="rotate",
        positions=positions,
        identity=not angle.any(),
    )


def plane_of(
    direction: Direction, *, along: str = "source"
) -> tuple[Float[Tensor, "layer width"], Float[Tensor, "layer width"]]:
    """Two orthonormal axes of the plane of the source's mean and the direction.

    The first is along the source's mean and the second what of the direction is across it; or, with
    `along="direction"`, the second is the direction and the first what of the mean is across it.
    Raises where the two are parallel. A direction that brings a second axis of its plane along
    (`selective`) has that in the place of the mean.
    """
    need_direction(direction)
    if "plane" in direction.extra:
        return direction.extra["plane"].double(), direction.unit.double()
    start, unit = direction.start.double(), direction.unit.double()
    mean = start / start.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    kept, other = (mean, unit) if along == "source" else (unit, mean)
    rest = other - (other * kept).sum(-1, keepdim=True) * kept
    size = rest.norm(dim=-1, keepdim=True)
    if (size < 1e-6).any() or not start.any(-1).all():
        raise SteerlabError(
            f"the direction to {direction.target!r} is parallel to the source's mean: no plane to "
            "turn in"
        )
    return (kept, rest / size) if along == "source" else (rest / size, kept)


def means_angle(direction: Direction) -> Float[Tensor, " layer"]:
    """The angle between the source's and the target's mean, in radians, in the plane in which
    `rotate` turns."""
    # The gap is not the means' distance where the unit of strength is absolute.
    far = direction.gap if direction.end is None else (direction.end - direction.start).norm(dim=-1)
    end = direction.start + far[:, None] * direction.unit
    cosine = torch.nn.functional.cosine_similarity(direction.start.double(), end.double(), dim=-1)
    return torch.arccos(cosine.clamp(-1, 1)).float()


def set_level(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """What is missing to the level along the unit vector."""
    unit = tensors["unit"][:, None]
    missing = tensors["level"][:, None, None] - (h * unit).sum(-1, keepdim=True)
    return tensors["fraction"][:, None, None] * missing * unit


def random_level(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """The same level along a random direction, of which each position goes `scale` times the
    fraction."""
    return {"unit": draw_unit(tensors["unit"], random), "fraction": scale * tensors["fraction"]}


def affine(
    direction: Direction, *, level: float = 1.0, fraction: float = 1.0, positions: Window = "all"
) -> Edit:
    """Set every position's part along the direction: h + fraction · (l - u·h) u, l = u·((1 - level)
    μ_s + level μ_t).

    Level 0 puts each position where the source's mean is, 1 where the target's is: unlike `add`,
    whatever was there before. `fraction=0` is the identity. Source: affine concept editing, ACE
    (arXiv 2411.09003), with u along the difference of means; here of any estimator, with the levels
    of the means on it.

    Args:
        direction: from the source to the target.
        level: where to, 0 being the source's mean and 1 the target's.
        fraction: how much of the way there each position goes.
        positions: which positions are edited (see `sl.edits.window`).
    """
    need_direction(direction)
    warn_of_every_layer(direction, "affine")
    unit, levels = levels_of(direction, need_finite("level", level))
    size = every_layer(direction, need_finite("fraction", fraction))
    tensors = {"unit": unit, "level": levels, "fraction": size}
    return edit_along(
        direction,
        set_level,
        tensors,
        operator="affine",
        positions=positions,
        identity=fraction == 0,
    )


def levels_of(
    direction: Direction, level: float
) -> tuple[Float[Tensor, "layer width"], Float[Tensor, " layer"]]:
    """The direction's unit vectors, and the part along each at a level: 0 is the source's mean, 1
    the target's. Raises where a vector is zero."""
    need_direction(direction)
    unit = direction.unit
    if not unit.any(-1).all():
        raise SteerlabError(
            f"the direction to {direction.target!r} is zero: there is nothing to set along it"
        )
    end = (
        direction.start + direction.gap[:, None] * unit if direction.end is None else direction.end
    )
    return unit, (unit * ((1 - level) * direction.start + level * end)).sum(-1)


def lengthen_inside(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """A step along what lies in the subspace."""
    part = inside(h, tensors["basis"], tensors["basis"])
    size = torch.linalg.vector_norm(part, dim=-1, keepdim=True)
    return tensors["step"][:, None, None] * part / size.clamp(min=1e-30)


def random_push(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """A step of `scale` times the length in a random subspace of the same rank."""
    return {"basis": draw_basis(tensors["basis"], random), "step": scale * tensors["step"]}


def push(direction: Direction, *, strength: float = 1.0, positions: Window = "all") -> Edit:
    """Lengthen what lies in the target's subspace: h + strength · gap · BᵀBh / ‖BᵀBh‖.

    Every position moves equally far, towards where it leans already; 0 is the identity. Source:
    CLaS-Bench's PCA, with `pca(of="cloud")` and an absolute step; here in natural gaps. A position
    with nothing in the subspace stays.
    """
    need_direction(direction)
    warn_of_every_layer(direction, "push")
    size = need_finite("strength", strength) * direction.gap
    need_basis(direction, "to push along")
    if strength and not direction.gap.all():
        raise SteerlabError(
            f"the means of {direction.target!r} and of its source are one: there is no gap to "
            "push by"
        )
    return edit_along(
        direction,
        lengthen_inside,
        {"basis": direction.basis, "step": size},
        operator="push",
        positions=positions,
        identity=strength == 0,
    )


def detour(
    direction: Direction,
    *,
    remove: float = 0.3,
    restore: float = 0.1,
    depth: int | None = None,
    positions: Window = "all",
) -> Edit:
    """Remove the subspace in the middle layers and put some back at the top, so that the answer
    keeps its language.

    `ablate` by `remove` from 35 % to 70 % of the depth, and by -`restore` above: of the direction's
    layers, `depth` being the number of blocks (by default up to the last of these layers). 0 and 0
    are the identity. Source: Language-Reasoning Disentanglement (arXiv 2505.15257), with
    `disentangle`; its ranges for 28 layers are 10-19 and 20-27, the shares are read off them.

    Args:
        direction: of the language that is removed and put back.
        remove: how much of the subspace is taken away in the middle layers.
        restore: how much is put back above.
        depth: how many blocks the model has; by default up to the last of the direction's layers.
        positions: which positions are edited (see `sl.edits.window`).
    """
    blocks = max(direction.layers) + 1 if depth is None else depth
    first, last = round(MIDDLE * blocks), round(TOP * blocks)
    middle = tuple(layer for layer in direction.layers if first <= layer < last)
    top = tuple(layer for layer in direction.layers if layer >= last)
    for name, layers in (("middle", middle), ("top", top)):
        if not layers:
            given = ", ".join(map(str, direction.layers))
            raise SteerlabError(
                f"none of the layers {given} is in the {name} of {blocks}; fit more layers, or "
                "name depth="
            )
    away = ablate(
        direction.at(*middle), fraction=need_finite("remove", remove), positions=positions
    )
    back = -need_finite("restore", restore)
    return away | ablate(direction.at(*top), fraction=back, positions=positions)


def inside(h: Tensor, read: Tensor, write: Tensor) -> Tensor:
    """What rows of `read` [row rank width] find in h, put back along rows of `write`."""
    read_out = einsum(h, read, "row pos width, row rank width -> row pos rank")
    return einsum(read_out, write, "row pos rank, row rank width -> row pos width")


def every_layer(direction: Direction, value: float) -> Float[Tensor, " layer"]:
    """The same number at each of a direction's layers."""
    need_direction(direction)
    return torch.full((len(direction.layers),), value)


def need_basis(direction: Direction, purpose: str) -> None:
    """Raise where a direction has no subspace."""
    if not direction.basis.flatten(1).any(1).all():
        raise SteerlabError(
            f"there is no subspace of {direction.target!r} {purpose}; pairs give none to their own "
            "source: use diffmean"
        )


RECORDS = {
    "add": Operator(
        make=add,
        change=shift,
        knob="strength",
        unit="natural gaps",
        grid=(0.5, 1.0, 1.5, 2.0),
        identity={"strength": 0.0},
        twin=random_shift,
        cites=("rimsky2024steering", "gurgurov2026clas"),
    ),
    "rotate": Operator(
        make=rotate,
        change=turn,
        knob="share",
        unit="angles between the two means",
        grid=(0.25, 0.5, 1.0, 1.5),
        identity={"share": 0.0},
        twin=random_plane,
        cites=("dang2026selective",),
    ),
    "ablate": Operator(
        make=ablate,
        change=remove_inside,
        knob="fraction",
        unit="fraction of the subspace that is removed",
        grid=(0.5, 1.0),
        identity={"fraction": 0.0},
        twin=random_subspace,
        removes=True,
        cites=("arditi2024refusal",),
    ),
    "affine": Operator(
        make=affine,
        change=set_level,
        knob="level",
        unit="natural gaps from the source's mean",
        grid=(0.5, 1.0, 1.5, 2.0),
        identity={"fraction": 0.0},
        twin=random_level,
        cites=("marshall2024refusal",),
    ),
    "push": Operator(
        make=push,
        change=lengthen_inside,
        knob="strength",
        unit="natural gaps",
        grid=(0.5, 1.0, 1.5, 2.0),
        identity={"strength": 0.0},
        twin=random_push,
        cites=("gurgurov2026clas",),
    ),
    "detour": Operator(
        make=detour,
        change=remove_inside,
        knob="remove",
        unit="fraction of the subspace that is removed in the middle",
        grid=(0.1, 0.2, 0.3, 0.4),
        identity={"remove": 0.0, "restore": 0.0},
        twin=random_subspace,
        removes=True,
        whole=True,
        cites=("zhao2025less",),
    ),
}
