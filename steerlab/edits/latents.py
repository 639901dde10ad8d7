"""Edits of an SAE's latents that leave the rest of h as it is: what the SAE does not explain is
never lost.

A latent is read as relu(pre) · [pre > threshold], pre = encoder · h + bias, and written along its
decoder row.
"""

import torch
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.edits.edit import Edit, finite, made
from steerlab.edits.requirements import extra_of, need_units, source_extra_of

READ = ("encoder", "bias", "threshold")
TINY = 1e-12  # of a squared norm


def clamp(
    direction: Direction, *, level: float = 1.0, fraction: float = 1.0, positions: str = "all"
) -> Edit:
    """Set the target's latents z to `level` times their mean z̄ on its text: h + fraction · (level
    · z̄ - z) W_dec.

    Level 0 switches them off; `fraction=0` is the identity. The error of the reconstruction stays,
    since h is never replaced by it. Needs what `decoded` or `gated` makes of a selection of
    latents.
    """
    found = extra_of(direction, "clamp", "decoded", *READ, "decoder", "level")
    need_units(direction, "clamp", found["decoder"])
    size = torch.full((len(direction.layers),), finite("fraction", fraction))
    goal = finite("level", level) * found["level"][..., None]
    tensors = _reading(found) | {"decoder": found["decoder"], "goal": goal, "fraction": size}
    return made("clamp", direction, positions, tensors, identity=fraction == 0)


def gate(direction: Direction, *, strength: float = 1.0, positions: str = "all") -> Edit:
    """Shift along the direction only where a latent of the source is on: h + [any z > 0] · strength
    · gap · unit.

    Strength 1 is one natural gap, 0 the identity. Needs what `gated` makes of a selection of
    latents, the source's among them. Source: Deng et al. (arXiv 2505.05111), whose own code for it
    is not released.
    """
    found = source_extra_of(direction, "gate", "gated", *READ)
    need_units(direction, "gate", found["encoder"], lang=direction.source)
    shift = finite("strength", strength) * direction.gap[:, None] * direction.unit
    if strength and not shift.any(-1).all():
        raise SteerlabError(
            f"the direction to {direction.target!r} is zero at some layer; leave that layer out"
        )
    return made(
        "gate", direction, positions, _reading(found) | {"shift": shift}, identity=strength == 0
    )


def signed_shift(
    direction: Direction, *, push: float = 1.0, pull: float = 0.0, positions: str = "all"
) -> Edit:
    """Push the target's latents along their subspace and pull the source's prototype out, over the
    window's layers.

    h + (z' - z) W_dec, z' = z + push · p - pull · <z, m>/(‖m‖² + ε) · m, with p the target's mean
    difference projected on its subspace and m the source's mean, on the target's latents. Push
    alone is a constant shift, push · p W_dec; 0 and 0 are the identity. The layers of the direction
    outside the target's window are left alone. Needs what `signed` makes of pairs. Source: Neural
    FOXP2 stage III (arXiv 2602.00945; λ and β there), with the error of the reconstruction kept:
    one released code replaces h by the reconstruction, which alone damages the stream.
    """
    inside = extra_of(direction, "signed_shift", "signed", "window")["window"].bool().tolist()
    layers = [layer for layer, is_in in zip(direction.layers, inside, strict=True) if is_in]
    if not layers:
        told = ", ".join(map(str, direction.layers))
        raise SteerlabError(
            f"none of the layers {told} is in the window of {direction.target!r}; take all layers"
        )
    direction = direction.at(*layers)
    found = extra_of(direction, "signed_shift", "signed", *READ, "decoder", "push", "pull")
    need_units(direction, "signed_shift", found["decoder"])
    written = lambda z: torch.einsum("lr,lrw->lw", z, found["decoder"])  # noqa: E731
    away = (
        finite("pull", pull)
        / (found["pull"].square().sum(-1, keepdim=True) + TINY)
        * written(found["pull"])
    )
    tensors = {"shift": finite("push", push) * written(found["push"]), "away": away}
    tensors |= _reading(found) | {"prototype": found["pull"][..., None]}
    return made("signed_shift", direction, positions, tensors, identity=push == 0 and pull == 0)


def _reading(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """What reads the latents. One number for each unit is a row of width 1: rows of zeros then
    fill up any rank."""
    return {
        "encoder": found["encoder"],
        "bias": found["bias"][..., None],
        "threshold": found["threshold"][..., None],
    }
