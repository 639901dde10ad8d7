"""Which experts of a mixture stand for a task or a language, and what such a choice has to beat."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.fingerprints import weights_of
from steerlab.core.firing import Firing
from steerlab.core.routing import Routing
from steerlab.estimate.units.controls import control
from steerlab.estimate.units.selection import Selection, need_share, selected


def experts(
    task: Routing,
    reference: Routing | None = None,
    *,
    source: str = "en",
    threshold: float = 0.3,
) -> Selection:
    """The experts that are met more often in a task, or in a language, than in a reference.

    Formula: an expert is chosen where its activation frequency (the share of tokens that meet it)
    in the task, less that in the reference, is above the threshold, which is its score too. Source:
    Bandarkar et al. (arXiv 2510.04694), whose thresholds are .25 to .5 by model and task, and whose
    reference is general English text.

    Raises `SteerlabError` where the two are of different models, layers or numbers of experts.

    Args:
        task: the routing of the task's texts, of whatever languages or labels.
        reference: the routing of texts of no task; by default the task's own of `source`, of which
            nothing is then chosen.
        source: the language of the reference.
        threshold: τ, a difference of frequencies from 0 to 1.
    """
    need_share("the threshold", threshold)
    against = task if reference is None else reference
    _need_same_model(task.firing, against.firing)
    if source not in against.langs:
        raise SteerlabError(
            f"the reference has no {source!r}; it is of {' '.join(against.langs)}: name one of "
            "these as source"
        )
    for each in (task, against):
        each.firing.need_texts()
    score = task.rate - against.rate[against.langs.index(source)]
    settings = {"threshold": threshold, "source": source, "own reference": reference is None}
    return selected("experts", task.firing, score > threshold, score.float(), settings)


def multilingual(selection: Selection, *, least: int | None = None) -> Selection:
    """A control: in each language's place the experts that were chosen for `least` languages or
    more, by default for more than half. They serve many languages and none in particular. Source:
    Bandarkar et al. (arXiv 2510.04694), where these do harm."""
    count = len(selection.langs)
    least = count // 2 + 1 if least is None else least
    if not 2 <= least <= count:
        raise SteerlabError(
            f"least is {least}, and the selection is of {count} languages; give 2 to {count}"
        )
    shared: Bool[Tensor, "layer unit"] = selection.chosen.sum(0) >= least
    if not shared.any():
        raise SteerlabError(
            f"no expert was chosen for {least} languages or more; lower least, or the threshold"
        )
    chosen = shared.expand_as(selection.chosen).clone()
    score = selection.score.mean(0, keepdim=True).expand_as(selection.score).clone()
    return control(selection, "multilingual", chosen, score, {"least": least})


def other_layers(selection: Selection, *layers: int) -> Selection:
    """A control of `selection.at(*layers)`: for each language as many experts at all other layers,
    those with the highest scores there. Source: Bandarkar et al. (arXiv 2510.04694), where layers
    outside of the middle do harm.

    Args:
        selection: of all layers, as `experts` gives it.
        layers: those that are not the control's.
    """
    own = selection.at(*layers)
    others = tuple(layer for layer in selection.layers if layer not in layers)
    if not others:
        raise SteerlabError(
            f"all {len(layers)} layers of the selection are named, so that there are no others; "
            "name some of them"
        )
    moved = selection.at(*others)
    chosen = torch.zeros_like(moved.chosen)
    for number, count in enumerate(own.chosen.flatten(1).sum(1).tolist()):
        best = moved.score[number].flatten().argsort(descending=True, stable=True)[: int(count)]
        chosen[number].view(-1)[best] = True
    return control(moved, "other layers", chosen, moved.score, {"instead of": list(own.layers)})


def _need_same_model(task: Firing, reference: Firing) -> None:
    for name, mine, theirs in (
        ("layers", task.layers, reference.layers),
        ("experts", task.units, reference.units),
        ("model", _weights(task.provenance), _weights(reference.provenance)),
    ):
        if mine != theirs:
            raise SteerlabError(
                f"the task was read with {name} {mine} and the reference with {theirs}; collect "
                "the routing of both alike"
            )


def _weights(provenance: Mapping[str, object]) -> str:
    model = provenance.get("model")
    return weights_of(str(model.get("fingerprint") or "")) if isinstance(model, Mapping) else ""
