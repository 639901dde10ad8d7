"""LAPE: units that few languages turn on, by the entropy of their firing rates over languages.

The name stands for language activation probability entropy.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.estimate.units.as_directions import decoded, masked
from steerlab.estimate.units.record import NEURONS, Method
from steerlab.estimate.units.selection import (
    Selection,
    how_many,
    lowest,
    need_languages,
    need_share,
    selected,
)
from steerlab.sae import SAE


def entropy(rate: Float[Tensor, "lang ..."]) -> Float[Tensor, "..."]:
    """The entropy of firing rates over K languages, in nats: 0 where a unit fires in one language
    only, log K where it fires in all alike.

    Formula: -Σ p log p, p = rate / Σ rate. A dead unit, which has no p, counts as uniform: log K.
    """
    total = rate.sum(0)
    # `where` computes both sides: the clamp keeps 0 / 0 out of the one that is not taken.
    nonzero = total.clamp(min=torch.finfo(rate.dtype).tiny)
    p = torch.where(total > 0, rate / nonzero, 1 / len(rate))
    # Rounding may lead above the largest possible entropy.
    return torch.special.entr(p).sum(0).clamp(max=math.log(len(rate)))


def bar_of(rate: Float[Tensor, "lang layer unit"], percentile: float) -> float:
    """The firing rate above which a unit serves a language: a percentile of all rates, of every
    language, layer and unit."""
    if not 0 <= percentile < 100:
        raise SteerlabError(f"the percentile is {percentile}; give 0 or more and less than 100")
    flat = rate.flatten()
    # `torch.quantile` refuses tensors of more than 16 million numbers.
    return float(flat.kthvalue(max(1, round(len(flat) * percentile / 100))).values)


def lape(firing: Firing, *, share: float = 0.01, percentile: float = 95) -> Selection:
    """The units whose firing rates have the lowest entropy over languages.

    Formula: `entropy` of the share of tokens at which a unit is on. Of the units that exceed the
    bar in some language, the lowest `share` of ALL units is chosen, over all layers; each goes to
    every language whose rate exceeds the bar. Of equal entropies those with the higher largest rate
    come first. The score is -entropy. Source: Tang et al. 2024 (arXiv 2402.16438); both percentiles
    of its code are `percentile`.

    Args:
        firing: how often the units are on in the texts.
        share: the share of all units that is chosen.
        percentile: of all rates, dead units' too; the bar.
    """
    every = torch.ones_like(firing.on, dtype=torch.bool)
    return _lape("lape", firing, share, percentile, every, {})


def sae_lape(
    firing: Firing, *, active: float = 0.98, share: float = 0.01, percentile: float = 95
) -> Selection:
    """LAPE on an SAE's features, of which a language's must also be on in nearly all of its texts.

    Formula: as `lape`, where a feature serves a language only if it is on in at least `active` of
    its texts too. Source: Andrylie et al. 2025 (arXiv 2507.11230), who set .98.

    Args:
        firing: how often the features are on in the texts.
        active: the least share of a language's texts in which its features are on.
        share: the share of all features that is chosen.
        percentile: of all rates, dead features' too; the bar.
    """
    need_share("the share of texts", active)
    return _lape("sae lape", firing, share, percentile, firing.share >= active, {"active": active})


def _lape(
    method: str,
    firing: Firing,
    share: float,
    percentile: float,
    eligible: Bool[Tensor, "lang layer unit"],
    settings: dict[str, float],
) -> Selection:
    """LAPE among the units that are eligible for a language; `settings` are what made them so."""
    need_languages(firing, method)
    rate = firing.rate
    number = how_many(share, rate[0].numel())
    bar = bar_of(rate, percentile)
    serves = (rate > bar) & eligible
    if not serves.any():
        message = f"no unit fires above {bar:.3g}, the {percentile:g}th percentile of all rates"
        if "active" in settings:
            message += f", in {settings['active']:g} of a language's texts"
        raise SteerlabError(
            f"{message}; the highest rate is {float(rate.max()):.3g}, the highest share of texts "
            f"{float(firing.share.max()):.3g}: give less"
        )
    score = entropy(rate)
    # What serves no language is never chosen.
    candidates = torch.where(serves.any(0), score, torch.inf)
    chosen = serves & _lowest(candidates, rate.amax(0), number)
    all_settings = {
        "share": share,
        "percentile": percentile,
        "bar": bar,
        "units": int(chosen.any(0).sum()),
        **settings,
    }
    return selected(method, firing, chosen, -score.expand(rate.shape), all_settings)


def _lowest(
    score: Float[Tensor, "layer unit"], rate: Float[Tensor, "layer unit"], number: int
) -> Bool[Tensor, "layer unit"]:
    """The units with the lowest scores, of equal ones the most active.

    Equal scores are common: all units that fire in one language only have entropy 0.
    """
    # `lowest` takes the first of equal scores, so that the most active are put first.
    by_rate = rate.flatten().argsort(descending=True, stable=True)
    marked = torch.zeros_like(score, dtype=torch.bool).flatten()
    marked[by_rate] = lowest(score.flatten()[by_rate][None], number)[0]
    return marked.view(score.shape)


def _sae_lape(latents: Firing, saes: Mapping[int, SAE], *, source: str) -> Directions:
    return decoded(sae_lape(latents), latents, saes, source=source)


def _neurons(neurons: Firing, *, source: str) -> Directions:
    return masked(lape(neurons), neurons, source=source)


RECORDS = {
    "sae lape": Method(
        _sae_lape,
        ("latents", "saes"),
        cites=("andrylie2025sparse",),
    ),
    "lape": Method(
        _neurons,
        ("neurons",),
        NEURONS,
        cites=("tang2024language",),
    ),
}
