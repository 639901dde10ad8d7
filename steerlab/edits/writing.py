"""Heads and neurons that write along the step to a language, each by as much as it already does."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.settings import need_finite
from steerlab.edits.drawn import draw_unit
from steerlab.edits.edit import Edit, edit_along
from steerlab.edits.part import Tensors
from steerlab.edits.record import Operator
from steerlab.edits.requirements import extra_of
from steerlab.edits.windows import Window


def elastic_net(
    agreement: Float[Tensor, "*component"], rho: float, alpha: float
) -> Float[Tensor, "*component"]:
    """λ = sign(g) max(|g| - ρα, 0) / (ρ (1 - α)), the maximum of gᵀλ - ρ (α ‖λ‖₁ + (1 - α)/2 ‖λ‖²).

    Raises `SteerlabError` for a rho that is not above 0, and an alpha that is no share below 1.
    """
    if not rho > 0 or not math.isfinite(rho):
        raise SteerlabError(f"rho is {rho}; give a number above 0, or None for no change")
    if not 0 <= alpha < 1:
        raise SteerlabError(f"alpha is {alpha}; give a share from 0 to below 1")
    above = (agreement.abs() - rho * alpha).clamp(min=0)
    return agreement.sign() * above / (rho * (1 - alpha))


def write(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """What is read along one vector, written along another."""
    return (h * tensors["reads"][:, None]).sum(-1, keepdim=True) * tensors["writes"][:, None]


def random_writing(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """The same reading, written along a random vector `scale` times as long."""
    length = torch.linalg.vector_norm(tensors["writes"], dim=-1, keepdim=True)
    return {"writes": scale * length * draw_unit(tensors["writes"], random)}


def write_along(
    direction: Direction,
    *,
    rho: float = 8.0,
    alpha: float = 0.05,
    strength: float = 1.0,
    positions: Window = "all",
) -> Edit:
    """Steer2Edit as an edit: heads, or neurons, whose mean contribution lies along the step to the
    target write along it, h + strength · (λ ∘ k̂)ᵀh (μ_t - μ_s)/‖W(μ_t - μ_s)‖.

    Behind the output projection W this is v̂ (λ ∘ k̂)ᵀh, which is what `sl.steer2edit` adds to W,
    and `sl.bake` of it (positions="everywhere") are those weights. g, k̂ and λ are said there; ρ is
    in units of 1/√d. Strength 0 is the identity. Needs what `sl.fit("steer2edit")` or
    `sl.fit("steer2edit heads")` reads; layers at which nothing agrees by more than ρα are left
    alone. Source: Steer2Edit (arXiv 2602.09870).

    Args:
        direction: to the target, of one of these fits.
        rho: the penalty ρ: larger, less is written.
        alpha: the share of the penalty that is ℓ₁: larger, fewer heads or neurons write.
        strength: times λ.
        positions: which positions are edited (see `sl.edits.window`).
    """
    found = extra_of(direction, "write_along", "steer2edit", "agreement", "reads", "writes")
    # The agreement is in units of 1/√d too, and λ has no unit.
    weights = elastic_net(found["agreement"], need_finite("rho", rho), need_finite("alpha", alpha))
    busy = weights.any(-1)
    if not busy.any():
        top = float(found["agreement"].abs().max())
        raise SteerlabError(
            f"write_along: nothing of {direction.target!r} agrees by more than rho · alpha, "
            f"{rho * alpha:.3g}/√d: the largest |cos| is {top:.3g}/√d; take a smaller rho or alpha"
        )
    size = need_finite("strength", strength)
    return edit_along(
        direction,
        write,
        {"reads": size * weights * found["reads"], "writes": found["writes"]},
        operator="write_along",
        positions=positions,
        identity=strength == 0,
        busy=busy,
    )


RECORDS = {
    "write_along": Operator(
        make=write_along,
        change=write,
        knob="rho",
        unit="1/√d of penalty",
        grid=(64.0, 32.0, 16.0, 8.0),
        identity={"strength": 0.0},
        twin=random_writing,
        estimator="steer2edit",
        whole=True,
        cites=("sun2026steer2edit",),
    ),
}
