"""Removing a direction from all that a model writes, which weights can do as well."""

import torch

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.settings import need_finite
from steerlab.edits.edit import Edit
from steerlab.edits.operators import need_basis, remove_inside
from steerlab.edits.part import Part
from steerlab.edits.requirements import need_direction
from steerlab.edits.windows import Window, window


def ablate_stream(
    direction: Direction,
    blocks: int,
    *,
    fraction: float = 1.0,
    positions: Window = "everywhere",
) -> Edit:
    """Remove one subspace from the embedding and from what each attention and each MLP writes:
    y - fraction · Bᵀ B y at `resid_pre` of layer 0, and at `attn_out` and `mlp_out` of every layer.

    The stream is the sum of these, so that it is removed from the stream everywhere. This is
    directional ablation (arXiv 2406.11717); `sl.bake` makes the same of it in the weights.

    Args:
        direction: of one layer of the residual stream.
        blocks: how many the model has (`model.n_layers`).
        fraction: how much is removed; 0 is the identity.
        positions: which positions are edited (see `sl.edits.window`).
    """
    need_direction(direction)
    if len(direction.layers) != 1 or not direction.site.startswith("resid_"):
        raise SteerlabError(
            f"ablate_stream removes one direction of the residual stream everywhere, and this one "
            f"is of {direction.site} at the layers {' '.join(map(str, direction.layers))}; choose "
            "one, as direction.at(5)"
        )
    need_basis(direction, "to remove")
    share = torch.full((1,), need_finite("fraction", fraction))
    tensors = {"basis": direction.basis.float(), "fraction": share}
    places = [("resid_pre", 0)]
    places += [(site, layer) for layer in range(blocks) for site in ("attn_out", "mlp_out")]
    where = window(positions)
    parts = [
        Part(remove_inside, "ablate", site, layer, where, tensors, fraction == 0)
        for site, layer in places
    ]
    return Edit(tuple(parts), direction.model)
