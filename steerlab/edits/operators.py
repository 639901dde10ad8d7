"""The operators: from a direction and one knob to an edit. Each has a setting at which it is the
identity."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.edits.edit import Edit, finite, made
from steerlab.edits.requirements import extra_of

MIDDLE, TOP = 0.35, 0.70  # of the depth, where `detour` removes and where it puts back


def add(direction: Direction, *, strength: float = 1.0, positions: str = "all") -> Edit:
    """Shift along the direction: h + strength · gap · unit.

    Strength 1 is one natural gap, the distance between the two languages' means at that layer; 0 is
    the identity.
    """
    shift = finite("strength", strength) * direction.gap[:, None] * direction.unit
    far = (direction.gap != 0) & direction.unit.any(-1)
    if strength and (
        none := [
            layer for layer, goes in zip(direction.layers, far.tolist(), strict=True) if not goes
        ]
    ):
        raise SteerlabError(
            f"the direction to {direction.target!r} is zero at layers {', '.join(map(str, none))}: "
            "adding it would "
            "leave the model unsteered; leave these layers out"
        )
    return made("add", direction, positions, {"shift": shift}, identity=strength == 0)


def ablate(direction: Direction, *, fraction: float = 1.0, positions: str = "all") -> Edit:
    """Remove what lies in the target's subspace: h - fraction · Bᵀ B h.

    Fraction 1 removes it, 0 is the identity, a negative one puts more of it in. B has orthonormal
    rows, so that removing twice is removing once.
    """
    size = torch.full((len(direction.layers),), finite("fraction", fraction))
    _need_basis(direction, "to remove")
    return made(
        "ablate",
        direction,
        positions,
        {"basis": direction.basis, "fraction": size},
        identity=fraction == 0,
    )


def rotate(
    direction: Direction,
    *,
    degrees: float | None = None,
    share: float | None = None,
    positions: str = "all",
) -> Edit:
    """Turn every position's part in the plane of source mean and target by an angle; norms stay.

    The plane is spanned by the source's mean and the direction; the turn goes from the source
    towards the target. `degrees`, or `share` of the angle between the two means; 0 is the identity.
    Source: the offset form of Selective Steering (2026).
    """
    if (degrees is None) == (share is None):
        raise SteerlabError(
            "rotate takes either degrees= or share= (of the angle between the two means)"
        )
    start, unit = direction.start.double(), direction.unit.double()
    first = start / start.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    second = unit - (unit * first).sum(-1, keepdim=True) * first
    size = second.norm(dim=-1, keepdim=True)
    if (size < 1e-6).any() or not start.any(-1).all():
        raise SteerlabError(
            f"the direction to {direction.target!r} is parallel to the source's mean: no plane to "
            "turn in"
        )
    if share is not None:
        angle = finite("share", share) * means_angle(direction)
    else:
        angle = torch.full((len(direction.layers),), math.radians(finite("degrees", degrees)))
    tensors = {"first": first, "second": second / size, "angle": angle}
    return made("rotate", direction, positions, tensors, identity=not angle.any())


def means_angle(direction: Direction) -> Float[Tensor, " layer"]:
    """The angle between the source's and the target's mean, in radians, in the plane in which
    `rotate` turns."""
    # The gap is not the means' distance where the unit of strength is absolute.
    far = direction.gap if direction.end is None else (direction.end - direction.start).norm(dim=-1)
    end = direction.start + far[:, None] * direction.unit
    cosine = torch.nn.functional.cosine_similarity(direction.start.double(), end.double(), dim=-1)
    return torch.arccos(cosine.clamp(-1, 1)).float()


def affine(
    direction: Direction, *, level: float = 1.0, fraction: float = 1.0, positions: str = "all"
) -> Edit:
    """Set every position's part along the direction: h + fraction · (l - u·h) u, l = u·((1 - level)
    μ_s + level μ_t).

    Level 0 puts each position where the source's mean is, 1 where the target's is: unlike `add`,
    whatever was there before. `fraction=0` is the identity. Source: affine concept editing, ACE
    (arXiv 2411.09003), with u along the difference of means; here of any estimator, with the levels
    of the means on it.
    """
    share, unit = finite("level", level), direction.unit
    end = (
        direction.start + direction.gap[:, None] * unit if direction.end is None else direction.end
    )
    levels = (unit * ((1 - share) * direction.start + share * end)).sum(-1)
    size = torch.full((len(direction.layers),), finite("fraction", fraction))
    if not unit.any(-1).all():
        raise SteerlabError(
            f"the direction to {direction.target!r} is zero: there is nothing to set along it"
        )
    tensors = {"unit": unit, "level": levels, "fraction": size}
    return made("affine", direction, positions, tensors, identity=fraction == 0)


def push(direction: Direction, *, strength: float = 1.0, positions: str = "all") -> Edit:
    """Lengthen what lies in the target's subspace: h + strength · gap · BᵀBh / ‖BᵀBh‖.

    Every position moves equally far, towards where it leans already; 0 is the identity. Source:
    CLaS-Bench's PCA, with `pca(of="cloud")` and an absolute step; here in natural gaps. A position
    with nothing in the subspace stays.
    """
    size = finite("strength", strength) * direction.gap
    _need_basis(direction, "to push along")
    if strength and not direction.gap.all():
        raise SteerlabError(
            f"the means of {direction.target!r} and of its source are one: there is no gap to push "
            "by"
        )
    return made(
        "push",
        direction,
        positions,
        {"basis": direction.basis, "step": size},
        identity=strength == 0,
    )


def erase(direction: Direction, *, fraction: float = 1.0, positions: str = "all") -> Edit:
    """Remove what tells a linear probe the language: h - fraction · Wᵀ R (h - μ), R what is read
    and W what is written.

    At fraction 1 no linear probe of all languages' tokens does better than chance, and no smaller
    change would do; 0 is the identity. Needs what `leace` fits. Source: LEACE (arXiv 2306.03819).
    """
    extra = extra_of(direction, "erase", "leace", "read", "write", "centre")
    if not extra["read"].flatten(1).any(1).all():
        raise SteerlabError(
            "at some layer nothing tells the languages apart: there is nothing to erase; leave it "
            "out"
        )
    size = torch.full((len(direction.layers),), finite("fraction", fraction))
    return made("erase", direction, positions, {**extra, "fraction": size}, identity=fraction == 0)


def conceptor(
    direction: Direction,
    *,
    aperture: float | None = None,
    quota: float | None = None,
    beta: float | None = None,
    fraction: float = 1.0,
    positions: str = "all",
) -> Edit:
    """Project softly onto the target's ellipsoid: h + fraction · (β C h - h), C = R (R + aperture⁻²
    I)⁻¹.

    C keeps an axis of length² s by s / (s + aperture⁻²). Either `aperture`, which depends on the
    scale of the activations (0.1 in the source), or `quota`, the mean of these shares over all axes
    (Jaeger 2014), which does not. C shortens h; `beta` is by default such that the target's own
    tokens keep their mean square. `fraction=0` is the identity. Needs what `ellipsoid` fits.
    Source: steering with conceptors (arXiv 2410.16314).
    """
    extra = extra_of(direction, "conceptor", "ellipsoid", "axes", "spectrum")
    if (aperture is None) == (quota is None):
        raise SteerlabError(
            "conceptor takes either aperture= or quota= (the mean share that is kept of an axis)"
        )
    spectrum, width = extra["spectrum"].double(), direction.unit.shape[-1]
    if aperture is not None and not finite("aperture", aperture) > 0:
        raise SteerlabError(f"aperture is {aperture}; give a number above 0")
    softness = (
        torch.tensor(float(aperture)) ** -2
        if aperture is not None
        else _softness(spectrum, quota, width)
    )
    kept = spectrum / (spectrum + softness)
    if beta is None:
        scale = (
            spectrum.sum(-1, keepdim=True) / (kept.square() * spectrum).sum(-1, keepdim=True)
        ).sqrt()
    elif finite("beta", beta) > 0:
        scale = torch.full_like(kept[:, :1], beta)
    else:
        raise SteerlabError(f"beta is {beta}; give a number above 0")
    half = (scale * kept).sqrt()[..., None] * extra["axes"].double()
    size = torch.full((len(direction.layers),), finite("fraction", fraction))
    return made(
        "conceptor", direction, positions, {"half": half, "fraction": size}, identity=fraction == 0
    )


def overwrite(
    direction: Direction, *, scale: float = 1.0, fraction: float = 1.0, positions: str = "all"
) -> Edit:
    """Set the target's own dimensions to `scale` times its values there, and bring h back to its
    length.

    h + fraction · mask ∘ (scale · values - h), then as long as h was. `fraction=0` is the identity.
    Needs what `sparse` fits; the values are of the last layer, where activations are longest, so
    that scales below 1 suit lower layers (0.4 at layer 18 of Llama-2-7B in the source). Source:
    Zhong et al. 2026 (arXiv 2510.07213).
    """
    extra = extra_of(direction, "overwrite", "sparse", "mask", "values")
    if not extra["mask"].any(-1).all():
        raise SteerlabError(
            f"there are no dimensions of {direction.target!r} to overwrite; its fit is from that "
            "language: take another"
        )
    tensors = {
        "weight": finite("fraction", fraction) * extra["mask"],
        "values": finite("scale", scale) * extra["values"],
    }
    return made("overwrite", direction, positions, tensors, identity=fraction == 0)


def detour(
    direction: Direction,
    *,
    remove: float = 0.3,
    restore: float = 0.1,
    depth: int | None = None,
    positions: str = "all",
) -> Edit:
    """Remove the subspace in the middle layers and put some back at the top, so that the answer
    keeps its language.

    `ablate` by `remove` from 35 % to 70 % of the depth, and by -`restore` above: of the direction's
    layers, `depth` being the number of blocks (by default up to the last of these layers). 0 and 0
    are the identity. Source: Language-Reasoning Disentanglement (arXiv 2505.15257), with
    `disentangle`; its ranges for 28 layers are 10-19 and 20-27, the shares are read off them.
    """
    blocks = max(direction.layers) + 1 if depth is None else depth
    first, last = round(MIDDLE * blocks), round(TOP * blocks)
    middle = tuple(layer for layer in direction.layers if first <= layer < last)
    top = tuple(layer for layer in direction.layers if layer >= last)
    for name, layers in (("middle", middle), ("top", top)):
        if not layers:
            told = ", ".join(map(str, direction.layers))
            raise SteerlabError(
                f"none of the layers {told} is in the {name} of {blocks}; fit more layers, or name "
                "depth="
            )
    away = ablate(direction.at(*middle), fraction=finite("remove", remove), positions=positions)
    return away | ablate(
        direction.at(*top), fraction=-finite("restore", restore), positions=positions
    )


def _need_basis(direction: Direction, purpose: str) -> None:
    if not direction.basis.flatten(1).any(1).all():
        raise SteerlabError(
            f"there is no subspace of {direction.target!r} {purpose}; pairs give none to their own "
            "source: use diffmean"
        )


def _softness(
    spectrum: Float[Tensor, "layer rank"], quota: float | None, width: int
) -> Float[Tensor, "layer 1"]:
    """The aperture⁻² at which the shares s / (s + aperture⁻²) add up to quota · width, by
    bisection."""
    share = finite("quota", quota)
    real = (spectrum > spectrum[:, :1] * 1e-12).sum(-1)
    if not 0 < share < (most := int(real.min()) / width):
        raise SteerlabError(
            f"quota is {quota}; give a share above 0 and below {most:.3g}, the axes that there are"
        )
    low, high = (spectrum[:, :1] * scale for scale in (1e-16, 1e16))
    for _ in range(120):
        middle = (low * high).sqrt()
        over = (spectrum / (spectrum + middle)).sum(-1, keepdim=True) > share * width
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return low
