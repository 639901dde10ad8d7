"""Monolinguality: features whose mean value on one language stands out from that on the others."""

from collections.abc import Mapping

import torch

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.estimate.units.as_directions import decoded, gated
from steerlab.estimate.units.record import Method
from steerlab.estimate.units.selection import Selection, need_languages, selected
from steerlab.sae import SAE


def monolinguality(firing: Firing, *, top: int = 2) -> Selection:
    """The features of each language whose mean value stands out most, at each layer.

    Formula: ν = μ - γ, μ the mean value over the language's tokens, γ the mean over the other
    languages of theirs; the `top` highest at each layer, where ν > 0. The score is ν. Source: Deng
    et al. 2025 (arXiv 2505.05111), whose k is 2.
    """
    need_languages(firing, "monolinguality")
    if not 0 < top <= firing.units:
        raise SteerlabError(
            f"the {top} highest of {firing.units} features were asked for; give from 1 to all"
        )
    level = firing.level
    others = (level.sum(0) - level) / (len(level) - 1)
    score = level - others
    best = torch.zeros_like(score, dtype=torch.bool)
    best.scatter_(-1, score.topk(top, dim=-1).indices, value=True)
    # A feature that is as much on in the others says nothing of the language.
    chosen = best & (score > 0)
    return selected("monolinguality", firing, chosen, score, {"top": top})


def _monolinguality(latents: Firing, saes: Mapping[int, SAE], *, source: str) -> Directions:
    return decoded(monolinguality(latents), latents, saes, source=source)


def _gated(latents: Firing, saes: Mapping[int, SAE], *, source: str) -> Directions:
    return gated(monolinguality(latents), latents, saes)


RECORDS = {
    "monolinguality": Method(
        _monolinguality,
        ("latents", "saes"),
        cites=("deng2025unveiling",),
    ),
    "monolinguality gated": Method(
        _gated,
        ("latents", "saes"),
        ("gate", "add"),
        cites=("deng2025unveiling",),
    ),
}
