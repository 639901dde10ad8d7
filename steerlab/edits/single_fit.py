"""The operators that take what one estimator alone fits: `erase` of `leace`, `conceptor` of
`ellipsoid`, `overwrite` of `sparse`."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.settings import need_finite
from steerlab.edits.drawn import draw_basis
from steerlab.edits.edit import Edit, edit_along
from steerlab.edits.operators import every_layer, inside
from steerlab.edits.part import Tensors
from steerlab.edits.record import Operator
from steerlab.edits.requirements import extra_of
from steerlab.edits.windows import Window


def remove_readable(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """What a linear probe reads, taken away by a fraction."""
    centred = h - tensors["centre"][:, None]
    return -tensors["fraction"][:, None, None] * inside(centred, tensors["read"], tensors["write"])


def random_projection(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """What random axes of the same rank read and write, of which `scale` times the fraction is
    removed."""
    axes = draw_basis(tensors["read"], random)
    return {"read": axes, "write": axes, "fraction": scale * tensors["fraction"]}


def erase(direction: Direction, *, fraction: float = 1.0, positions: Window = "all") -> Edit:
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
    size = every_layer(direction, need_finite("fraction", fraction))
    return edit_along(
        direction,
        remove_readable,
        {**extra, "fraction": size},
        operator="erase",
        positions=positions,
        identity=fraction == 0,
    )


def keep_softly(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """From h to h projected softly."""
    # The conceptor is symmetric: C = Hᵀ H, with H the half that reads and writes.
    kept = inside(h, tensors["half"], tensors["half"])
    return tensors["fraction"][:, None, None] * (kept - h)


def random_ellipsoid(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """An ellipsoid as long along random axes, of which each position goes `scale` times the
    fraction."""
    half = tensors["half"]
    axes = half.norm(dim=-1, keepdim=True) * draw_basis(half, random)
    return {"half": axes, "fraction": scale * tensors["fraction"]}


def conceptor(
    direction: Direction,
    *,
    aperture: float | None = None,
    quota: float | None = None,
    beta: float | None = None,
    fraction: float = 1.0,
    positions: Window = "all",
) -> Edit:
    """Project softly onto the target's ellipsoid: h + fraction · (β C h - h), C = R (R + aperture⁻²
    I)⁻¹.

    C keeps an axis of length² s by s / (s + aperture⁻²). Either `aperture`, which depends on the
    scale of the activations (0.1 in the source), or `quota`, the mean of these shares over all axes
    (Jaeger 2014), which does not. C shortens h; `beta` is by default such that the target's own
    tokens keep their mean square. `fraction=0` is the identity. Needs what `ellipsoid` fits.
    Source: steering with conceptors (arXiv 2410.16314).

    Args:
        direction: to the target, of `ellipsoid`.
        aperture: how softly axes are kept; give it or `quota`.
        quota: the mean share that is kept of an axis.
        beta: what the result is multiplied by; by default what keeps the target's own length.
        fraction: how much of the way there each position goes.
        positions: which positions are edited (see `sl.edits.window`).
    """
    extra = extra_of(direction, "conceptor", "ellipsoid", "axes", "spectrum")
    if (aperture is None) == (quota is None):
        raise SteerlabError(
            "conceptor takes either aperture= or quota= (the mean share that is kept of an axis)"
        )
    spectrum, width = extra["spectrum"].double(), direction.unit.shape[-1]
    if aperture is not None and not need_finite("aperture", aperture) > 0:
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
    elif need_finite("beta", beta) > 0:
        scale = torch.full_like(kept[:, :1], beta)
    else:
        raise SteerlabError(f"beta is {beta}; give a number above 0")
    half = (scale * kept).sqrt()[..., None] * extra["axes"].double()
    size = every_layer(direction, need_finite("fraction", fraction))
    return edit_along(
        direction,
        keep_softly,
        {"half": half, "fraction": size},
        operator="conceptor",
        positions=positions,
        identity=fraction == 0,
    )


def overwrite_dimensions(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """From h to h with some dimensions set, as long as before."""
    new = h + tensors["weight"][:, None] * (tensors["values"][:, None] - h)
    old_length = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
    new_length = torch.linalg.vector_norm(new, dim=-1, keepdim=True)
    return new * (old_length / new_length.clamp(min=1e-30)) - h


def random_dimensions(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """As many random dimensions with the same values, of which each goes `scale` times the
    fraction."""
    order = torch.randperm(tensors["weight"].shape[-1], generator=random)
    return {
        "weight": scale * tensors["weight"][..., order],
        "values": tensors["values"][..., order],
    }


def overwrite(
    direction: Direction, *, scale: float = 1.0, fraction: float = 1.0, positions: Window = "all"
) -> Edit:
    """Set the target's own dimensions to `scale` times its values there, and bring h back to its
    length.

    h + fraction · mask ∘ (scale · values - h), then as long as h was. `fraction=0` is the identity.
    Needs what `sparse` fits; the values are of the last layer, where activations are longest, so
    that scales below 1 suit lower layers (0.4 at layer 18 of Llama-2-7B in the source). Source:
    Zhong et al. 2026 (arXiv 2510.07213).

    Args:
        direction: to the target, of `sparse`.
        scale: how many times their own values the dimensions are set to.
        fraction: how much of the way there they go.
        positions: which positions are edited (see `sl.edits.window`).
    """
    extra = extra_of(direction, "overwrite", "sparse", "mask", "values")
    if not extra["mask"].any(-1).all():
        raise SteerlabError(
            f"there are no dimensions of {direction.target!r} to overwrite; its fit is from that "
            "language: take another"
        )
    tensors = {
        "weight": need_finite("fraction", fraction) * extra["mask"],
        "values": need_finite("scale", scale) * extra["values"],
    }
    return edit_along(
        direction,
        overwrite_dimensions,
        tensors,
        operator="overwrite",
        positions=positions,
        identity=fraction == 0,
    )


def _softness(
    spectrum: Float[Tensor, "layer rank"], quota: float | None, width: int
) -> Float[Tensor, "layer 1"]:
    """The aperture⁻² at which the shares s / (s + aperture⁻²) add up to quota · width, by
    bisection."""
    share = need_finite("quota", quota)
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


RECORDS = {
    "conceptor": Operator(
        make=conceptor,
        change=keep_softly,
        knob="quota",
        unit="mean share that is kept of an axis",
        grid=(0.05, 0.1, 0.2, 0.4),
        identity={"fraction": 0.0},
        twin=random_ellipsoid,
        estimator="ellipsoid",
        cites=("postmus2024conceptors", "jaeger2014conceptors"),
    ),
    "overwrite": Operator(
        make=overwrite,
        change=overwrite_dimensions,
        knob="scale",
        unit="the target's mean values",
        grid=(0.3, 0.5, 0.7, 1.0),
        identity={"fraction": 0.0},
        twin=random_dimensions,
        estimator="sparse",
        cites=("zhong2026language",),
    ),
    "erase": Operator(
        make=erase,
        change=remove_readable,
        knob="fraction",
        unit="fraction of what a linear probe reads",
        grid=(0.5, 1.0),
        identity={"fraction": 0.0},
        twin=random_projection,
        estimator="leace",
        removes=True,
        cites=("belrose2023leace",),
    ),
}
