"""Controls of a selection: other units, as many, that were chosen for no language.

What such units do as well as the chosen ones is no effect of the language: `matched` ones are like
the chosen ones in how often they fire and how much they write, `random_units` are any that fire.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.random import generator
from steerlab.estimate.units.selection import Selection

# Norms are compared by their logarithms: the smallest that has one.
SMALLEST_NORM = 1e-12


def matched(
    selection: Selection, firing: Firing, norms: Float[Tensor, "layer unit"], *, seed: int = 0
) -> Selection:
    """Replace each chosen unit by another of its layer, chosen for no language, that fires as
    often and writes as much.

    Formula: the assignment of least total squared distance of (log rate, log norm), each divided by
    its standard deviation over the layer's living units. The rate is the share of the language's
    own tokens at which a unit is on, so that its twin acts as often where the edit is to act.
    Without replacement within a language and layer. The twin takes over the score.

    The settings in `provenance` say how well they match: the median of twin's / chosen's rate and
    norm, and the share of twins within a factor 2 of each.

    Args:
        selection: the units that are to be matched.
        firing: what they were chosen from.
        norms: of what each unit writes: an SAE's decoder rows, or the neurons' output weights, at
            the selection's layers.
        seed: decides between equally good twins.
    """
    rate, floor = _rates(selection, firing)
    if norms.shape != rate.shape or not torch.isfinite(norms).all():
        shapes = " and ".join(" x ".join(map(str, each.shape)) for each in (norms, rate))
        raise SteerlabError(
            f"norms and layers x units are {shapes}, or a norm is not finite; give one for each "
            "unit"
        )
    # A unit that never fires in the language has no log rate; half a token stands for it.
    log_rate = firing.rate[:, need_of(selection, firing)].clamp(min=floor).log()
    log_norm = norms.detach().double().clamp(min=SMALLEST_NORM).log()
    rng = generator("matched units", seed)
    chosen = torch.zeros_like(selection.chosen)
    score = torch.zeros_like(selection.score)
    ratios = []
    for i, j in np.ndindex(chosen.shape[0], chosen.shape[1]):
        pool = _pool(selection, rate, i, j, rng)
        points = torch.stack([log_rate[i, j], log_norm[j]], -1)
        own = selection.chosen[i, j].nonzero()[:, 0]
        own, twins = _twins(points, own, pool, rate[j] > 0)
        chosen[i, j, twins] = True
        score[i, j, twins] = selection.score[i, j, own]
        ratios.append((points[twins] - points[own]).exp())
    settings = {"seed": seed, **_match_quality(torch.cat(ratios))}
    return control(selection, "matched", chosen, score, settings)


def random_units(selection: Selection, firing: Firing, *, seed: int = 0) -> Selection:
    """Draw as many units of the same layers as each language has, from the living ones that are
    chosen for no language.

    A unit is alive if it is on at any token of any language. Without replacement within a language
    and layer.

    Args:
        selection: the units that are to be replaced.
        firing: what they were chosen from.
        seed: of the draw.
    """
    rate, _ = _rates(selection, firing)
    rng = generator("random units", seed)
    chosen = torch.zeros_like(selection.chosen)
    for i in range(len(selection.langs)):
        for j in range(len(selection.layers)):
            number = int(selection.chosen[i, j].sum())
            drawn = _pool(selection, rate, i, j, rng)[:number]
            chosen[i, j, drawn] = True
    # What was drawn at random has no score.
    score = torch.zeros_like(selection.score)
    return control(selection, f"random {seed}", chosen, score, {"seed": seed})


def need_of(selection: Selection, firing: Firing) -> list[int]:
    """The indices of the selection's layers in the firing.

    Raises unless the firing is of the same units and languages, and of those layers.
    """
    for name in ("langs", "units", "site"):
        if getattr(selection, name) != getattr(firing, name):
            raise SteerlabError(
                f"the units were chosen with {name} {getattr(selection, name)}, and the firing has "
                f"{getattr(firing, name)}; give the firing that they were chosen from"
            )
    missing = [layer for layer in selection.layers if layer not in firing.layers]
    if missing:
        layers = ", ".join(map(str, firing.layers))
        raise SteerlabError(
            f"units were chosen at layer {missing[0]}, and the firing has layers {layers}; collect "
            "it too"
        )
    firing.need_texts()
    return [firing.layers.index(layer) for layer in selection.layers]


def _rates(selection: Selection, firing: Firing) -> tuple[Float[Tensor, "layer unit"], float]:
    """(each unit's firing rate at the selection's layers, the mean over languages; the rate of
    half a token)."""
    indices = need_of(selection, firing)
    half_a_token = 0.5 / float(firing.tokens.sum())
    return firing.rate.mean(0)[indices], half_a_token


def _pool(
    selection: Selection,
    rate: Float[Tensor, "layer unit"],
    i: int,
    j: int,
    generator: torch.Generator,
) -> Tensor:
    """The living units of layer j that no language has, in random order.

    Raises where there are fewer than language i has.
    """
    alive = rate[j] > 0
    taken = selection.chosen[:, j].any(0)
    pool = (alive & ~taken).nonzero()[:, 0]
    number = int(selection.chosen[i, j].sum())
    if len(pool) < number:
        raise SteerlabError(
            f"{selection.langs[i]!r} has {number} units at layer {selection.layers[j]}, and only "
            f"{len(pool)} living ones are chosen for no language; choose fewer"
        )
    return pool[torch.randperm(len(pool), generator=generator)]


def _twins(
    points: Float[Tensor, "unit two"],
    own: Int[Tensor, " chosen"],
    pool: Int[Tensor, " free"],
    alive: Bool[Tensor, " unit"],
) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " chosen"]]:
    """(the chosen units in some order, the twin of each): the least total distance.

    `points` are each unit's log rate and log norm.
    """
    # Where all units are alike in one of the two it decides nothing, and is not divided by 0.
    scale = points[alive].std(0, correction=0).clamp(min=1e-6)
    apart = rearrange(points[own], "own two -> own 1 two") - points[pool]
    distance = (apart / scale).square().sum(-1)
    rows, columns = linear_sum_assignment(distance.numpy())
    return own[torch.from_numpy(rows)], pool[torch.from_numpy(columns)]


def _match_quality(ratios: Float[Tensor, "unit two"]) -> dict[str, float]:
    """How well twins match, from the ratios of their rates and norms to the chosen units'."""
    if not len(ratios):
        raise SteerlabError(
            "nothing is chosen, so nothing can be matched; choose with weaker thresholds"
        )
    within_2 = np.mean((ratios.log().abs() <= np.log(2)).numpy(), 0)
    rate, norm = ratios.median(0).values.tolist()
    return {
        "rate ratio": rate,
        "norm ratio": norm,
        "rates within 2": float(within_2[0]),
        "norms within 2": float(within_2[1]),
    }


def control(
    selection: Selection,
    name: str,
    chosen: Tensor,
    score: Tensor,
    settings: dict[str, Any],
) -> Selection:
    """The selection with other units, which says of what it is the control."""
    method = f"{selection.method} {name}"
    # The settings of "random 3" stand under "random": the seed is one of them.
    kind = name.split()[0]
    all_settings = {**selection.provenance.get("settings", {}), kind: settings}
    return replace(
        selection,
        method=method,
        chosen=chosen,
        score=score,
        provenance={**selection.provenance, "method": method, "settings": all_settings},
    )
