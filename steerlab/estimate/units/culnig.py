"""CULNIG: neurons whose gradients serve a labelled answer in one language more than in the
others."""

import torch

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, Gradients
from steerlab.estimate.units.as_directions import masked
from steerlab.estimate.units.record import NEURONS, Method
from steerlab.estimate.units.selection import (
    Selection,
    how_many,
    need_languages,
    need_share,
    selected,
)

# By how many standard deviations over languages a unit has to serve one more than the mean of all.
LEAST = 0.5


def culnig(gradients: Gradients, *, share: float = 0.01, least: float = LEAST) -> Selection:
    """The neurons that serve a language's labelled answers most, and more than those of other
    languages.

    Formula: s = score - control. Of each language the top `share` of all units by s is taken, over
    all layers, where s > 0; of these the units are kept with (s - mean over languages) / standard
    deviation over languages of at least `least`. The score is s. Source: CULNIG (arXiv 2510.08284),
    whose countries are languages here. It takes the top .3 % of a country's MLP and attention units
    together and removes the top 1 % on a further control that has only country names; here are only
    units of one site, and one control.

    Args:
        gradients: how each unit's gradient serves the answers, and those of the control.
        share: the share of all units that is looked at for each language.
        least: in standard deviations over languages, as above.
    """
    need_languages(gradients, "culnig")
    need_share("the share of units", share)
    score = (gradients.score - gradients.control).double()
    if not torch.isfinite(score).all():
        raise SteerlabError(
            "the gradients hold NaN or infinity; collect them again in a wider format"
        )
    number = how_many(share, score[0].numel())
    # Sorted, where `topk` leaves open which of equal scores it takes.
    order = score.flatten(1).argsort(descending=True, stable=True)
    best = torch.zeros(len(score), score[0].numel(), dtype=torch.bool)
    best.scatter_(1, order[:, :number], value=True)
    top = best.view(score.shape) & (score > 0)
    spread = score.std(0, correction=0)
    # A unit that serves all languages alike stands out in none.
    deviations = torch.where(spread > 0, (score - score.mean(0)) / spread, 0.0)
    chosen = top & (deviations >= least)
    if not chosen.any():
        most = float(deviations[top].max()) if top.any() else 0.0
        raise SteerlabError(
            f"none of the {int(top.sum())} units at the top serves a language {least:g} standard "
            f"deviations more than the mean of all; the most is {most:.3g}: take a larger share, "
            "or a lower least"
        )
    settings = {"share": share, "least": least, "top": int(top.sum())}
    return selected("culnig", gradients, chosen, score, settings)


def _culnig(gradients: Gradients, neurons: Firing, *, source: str) -> Directions:
    return masked(culnig(gradients), neurons, source=source)


RECORDS = {
    "culnig": Method(
        _culnig,
        ("gradients", "neurons"),
        NEURONS,
        cites=("yamamoto2025neuron",),
    )
}
