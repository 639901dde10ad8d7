"""Controls of a selection: as many other units, like the chosen ones in all but the language, or
any that are alive."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.random import generator
from steerlab.estimate.units.selection import Selection


def matched(
    selection: Selection, firing: Firing, norms: Float[Tensor, "layer unit"], *, seed: int = 0
) -> Selection:
    """For each chosen unit another one of its layer, chosen for no language, that fires as often
    and writes as much.

    `norms` [layer unit], by the selection's layers: of an SAE's decoder rows, or of the neurons'
    output weights. Formula: the assignment of least total squared distance of (log rate, log norm),
    each divided by its standard deviation over the layer's living units; the rate is the share of
    the language's own tokens, so that a twin acts as often where the edit is to act. Without
    replacement within a language and layer; `seed` decides between equals. The twin takes over the
    score. The settings tell how well they match: the median of twin's / chosen's rate and norm, and
    the share of twins within a factor 2.
    """
    rate, floor = _rates(selection, firing)
    if norms.shape != rate.shape or not torch.isfinite(norms).all():
        shapes = " and ".join(" x ".join(map(str, of.shape)) for of in (norms, rate))
        raise SteerlabError(
            f"norms and layers x units are {shapes}, or a norm is not finite; give one for each "
            "unit"
        )
    own = firing.rate[:, need_of(selection, firing)].clamp(min=floor).log()
    sizes = norms.detach().double().clamp(min=1e-12).log()
    rng = generator("matched units", seed)
    chosen, score, ratios = (
        torch.zeros_like(selection.chosen),
        torch.zeros_like(selection.score),
        [],
    )
    for i, j in np.ndindex(chosen.shape[0], chosen.shape[1]):
        wanted, pool = selection.chosen[i, j].nonzero()[:, 0], _pool(selection, rate, i, j, rng)
        places = torch.stack([own[i, j], sizes[j]], -1)
        wanted, twins = _twins(places, wanted, pool, rate[j] > 0)
        chosen[i, j, twins], score[i, j, twins] = True, selection.score[i, j, wanted]
        ratios.append((places[twins] - places[wanted]).exp())
    return _control(
        selection, "matched", chosen, score, {"seed": seed, **_match(torch.cat(ratios))}
    )


def random_units(selection: Selection, firing: Firing, *, seed: int = 0) -> Selection:
    """As many units of the same layers as each language has, drawn from all that are alive and
    chosen for no language.

    A unit is alive if it is on at any token of any language. Without replacement within a language
    and layer.
    """
    rate, _ = _rates(selection, firing)
    rng = generator("random units", seed)
    chosen = torch.zeros_like(selection.chosen)
    for i in range(len(selection.langs)):
        for j in range(len(selection.layers)):
            number = int(selection.chosen[i, j].sum())
            chosen[i, j, _pool(selection, rate, i, j, rng)[:number]] = True
    return _control(
        selection, f"random {seed}", chosen, torch.zeros_like(selection.score), {"seed": seed}
    )


def _twins(
    places: Float[Tensor, "unit two"],
    wanted: Int[Tensor, " chosen"],
    pool: Int[Tensor, " free"],
    alive: Bool[Tensor, " unit"],
) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " chosen"]]:
    """The wanted units in some order, and beside each its own of the pool, the distances least
    in all."""
    scale = places[alive].std(0, correction=0).clamp(min=1e-6)
    distance = ((places[wanted][:, None] - places[pool]) / scale).square().sum(-1)
    rows, columns = linear_sum_assignment(distance.numpy())
    return wanted[torch.from_numpy(rows)], pool[torch.from_numpy(columns)]


def _rates(selection: Selection, firing: Firing) -> tuple[Float[Tensor, "layer unit"], float]:
    """Each unit's rate, the mean over languages, at the selection's layers; and half a token's."""
    kept = need_of(selection, firing)
    return firing.rate.mean(0)[kept], 0.5 / float(firing.tokens.sum())


def need_of(selection: Selection, firing: Firing) -> list[int]:
    """The places of the selection's layers in the firing, which must be of the same units and
    languages."""
    for name in ("langs", "units", "site"):
        if getattr(selection, name) != getattr(firing, name):
            raise SteerlabError(
                f"the units were chosen with {name} {getattr(selection, name)}, and the firing has "
                f"{getattr(firing, name)}; give the firing that they were chosen from"
            )
    if missing := [layer for layer in selection.layers if layer not in firing.layers]:
        told = ", ".join(map(str, firing.layers))
        raise SteerlabError(
            f"units were chosen at layer {missing[0]}, and the firing has layers {told}; collect "
            "it too"
        )
    firing.need_texts()
    return [firing.layers.index(layer) for layer in selection.layers]


def _pool(
    selection: Selection,
    rate: Float[Tensor, "layer unit"],
    i: int,
    j: int,
    generator: torch.Generator,
) -> Tensor:
    """The living units of a layer that no language has, in an order drawn anew."""
    pool = ((rate[j] > 0) & ~selection.chosen[:, j].any(0)).nonzero()[:, 0]
    number = int(selection.chosen[i, j].sum())
    if len(pool) < number:
        raise SteerlabError(
            f"{selection.langs[i]!r} has {number} units at layer {selection.layers[j]}, and only "
            f"{len(pool)} living "
            "ones are chosen for no language; choose fewer"
        )
    return pool[torch.randperm(len(pool), generator=generator)]


def _match(ratios: Float[Tensor, "unit two"]) -> dict[str, float]:
    if not len(ratios):
        raise SteerlabError(
            "nothing is chosen, so nothing can be matched; choose with weaker thresholds"
        )
    near = np.mean((ratios.log().abs() <= np.log(2)).numpy(), 0)
    rate, norm = ratios.median(0).values.tolist()
    return {
        "rate ratio": rate,
        "norm ratio": norm,
        "rates within 2": float(near[0]),
        "norms within 2": float(near[1]),
    }


def _control(
    selection: Selection, name: str, chosen: Tensor, score: Tensor, told: dict[str, float]
) -> Selection:
    settings = {**selection.provenance.get("settings", {}), name.split()[0]: told}
    about = {**selection.provenance, "method": f"{selection.method} {name}", "settings": settings}
    return replace(
        selection, method=f"{selection.method} {name}", chosen=chosen, score=score, provenance=about
    )
