"""One plane for all layers, and the layers whose class means lie on either side of an origin."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.build import need_two


@dataclass(frozen=True)
class Selective:
    """One direction and plane for all layers, and which layers tell the two classes apart.

    Args:
        direction: the same unit vector at every layer, with the plane's second axis in `extra`,
            which `rotate` and `turn_to` then turn in.
        apart: the layers whose class means have opposite signs along it.
        chosen: the layer whose difference of means it is.
        along: how far the source's and the target's mean lie along it, less the origin.
    """

    direction: Direction
    apart: tuple[int, ...]
    chosen: int
    along: Float[Tensor, "layer 2"]

    def at(self, which: str = "apart") -> Direction:
        """The direction at some layers: `apart`, `all`, or `last`, as many of the last as are
        apart."""
        layers = self.direction.layers
        if which == "all":
            return self.direction
        if which not in ("apart", "last"):
            raise SteerlabError(f"there are no layers {which!r}; give 'apart', 'all' or 'last'")
        if not self.apart:
            raise SteerlabError(
                "no layer's means have opposite signs; take origin='both', or other layers"
            )
        return self.direction.at(*(self.apart if which == "apart" else layers[-len(self.apart) :]))


def selective(
    moments: Moments,
    target: str,
    *,
    source: str = "en",
    origin: str = "both",
    chosen: str = "similar",
) -> Selective:
    """The global plane of Angular and Selective Steering, and the layers of the latter.

    d_l = μ_t - μ_s at each layer l; b₁ is the unit d_l with the highest mean cosine to those of the
    other layers, b₂ the first principal component of all unit d_l, less what lies along b₁, with
    the sign of the means on it. A layer is *apart* where (μ_s - o)·b₁ and (μ_t - o)·b₁ have
    opposite signs. Source: Angular Steering (arXiv 2510.26243) and Selective Steering (arXiv
    2601.19375), where o is the activations' own origin; what all texts share then decides the
    signs, and of two languages nearly every layer, or none, may pass. Compare with `at("last")`: in
    most published models the layers that pass are nearly the last ones. `rotate(degrees=θ)` turns
    from b₂ to b₁, the paper's by -θ.

    Args:
        moments: what was read, at two layers or more.
        target: the class that the direction points at.
        source: the class that it leads from.
        origin: `both` the mean of the two means, about which every layer is apart whose difference
            is not across b₁; `all` the mean of all classes; `zero` the published one.
        chosen: `similar` as above, or `longest`, the longest difference.
    """
    need_two(moments)
    moments.need_texts()
    for lang in (source, target):
        if lang not in moments.langs:
            raise SteerlabError(f"these moments have no {lang!r}; there are {moments.langs}")
    if source == target:
        raise SteerlabError(f"source and target are both {source!r}; give two")
    if len(moments.layers) < 2:
        raise SteerlabError("a plane of all layers needs two layers or more; collect them")
    means = moments.mean[[moments.langs.index(source), moments.langs.index(target)]]
    origins = {
        "both": means.mean(0),
        "all": moments.mean.mean(0),
        "zero": torch.zeros_like(means[0]),
    }
    if origin not in origins:
        raise SteerlabError(f"there is no origin {origin!r}; give 'both', 'all' or 'zero'")
    if chosen not in ("similar", "longest"):
        raise SteerlabError(f"there is no choice {chosen!r}; give 'similar' or 'longest'")
    step = means[1] - means[0]
    gap = step.norm(dim=-1)
    if not gap.all():
        raise SteerlabError(f"the means of {source!r} and {target!r} are one at some layer")
    units = step / gap[:, None]
    cosines = units @ units.T
    others = (cosines.sum(1) - 1) / (len(units) - 1)
    best = int((others if chosen == "similar" else gap).argmax())
    first = units[best]
    second = _second(units, first)
    # A component has no sign: a positive angle shall turn what texts share towards b₁.
    second = second if (means.mean(0) @ second).mean() >= 0 else -second
    along = torch.stack([((mean - origins[origin]) * first).sum(-1) for mean in means], 1)
    apart = (along[:, 0] * along[:, 1] < 0).tolist()
    every = len(moments.layers)
    unit = first.expand(every, -1).float()
    direction = Direction(
        target,
        source,
        moments.layers,
        moments.site,
        unit,
        gap.float(),
        means[0].float(),
        unit[:, None],
        moments.provenance.get("model", {}),
        means[1].float(),
        {"plane": second.expand(every, -1).float()},
    )
    kept = [layer for layer, is_apart in zip(moments.layers, apart, strict=True) if is_apart]
    return Selective(direction, tuple(kept), moments.layers[best], along.float())


def _second(units: Float[Tensor, "layer width"], first: Tensor) -> Float[Tensor, " width"]:
    """The first principal component of unit vectors, made orthogonal to one of them."""
    centred = units - units.mean(0)
    _, sizes, rows = torch.linalg.svd(centred, full_matrices=False)
    rest = rows[0] - (rows[0] @ first) * first
    if sizes[0] < 1e-4 or rest.norm() < 1e-4:  # rounding
        raise SteerlabError(
            "the differences of all layers are parallel: they span no plane; rotate a direction of "
            "one layer, whose plane has the source's mean"
        )
    return rest / rest.norm()
