"""From a latent back to the neurons that write it: the direct path from an MLP's output to an
encoder row."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.engine.requirements import need_sae, need_source
from steerlab.estimate.units import Selection
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.sae import SAE

COLUMNS = ["language", "layer", "feature", "mlp_layer", "neuron", "weight", "contribution", "share"]


@torch.no_grad()
def trace(
    model: Any,
    saes: Mapping[int, SAE],
    selection: Selection,
    neurons: Firing,
    *,
    source: str = "en",
    top: int = 10,
) -> pd.DataFrame:
    """The neurons that raise each chosen latent most when the text is the target's and not the
    source's.

    Formula: weight = ⟨what the neuron writes, what the latent reads⟩, a column of W_out and one of
    W_enc, for neuron n of the MLP of a layer m that the residual stream has passed where the latent
    j is read; contribution = weight · (mean value of n on the target's tokens less that on the
    source's), what the neuron alone adds to the difference of the latent's mean input. That is
    exact for the direct path: all neurons' contributions add up to what the MLPs' outputs
    contribute. What a neuron does through later blocks is not in it, and in models that norm an
    MLP's output (Gemma 2 and 3) neither is that norm. `neurons`: `collect_units(model, corpus)`, of
    all these layers.

    One row for each of the `top` largest contributions, positive or negative, of each latent:
    language, layer, feature, mlp_layer, neuron, weight, contribution, share (of all neurons'
    absolute contributions). Neural FOXP2 (arXiv 2602.00945) speaks of tracing features to units;
    neither of its repositories does, so the formula is ours.
    """
    model = load(model)
    _need_neurons(neurons, selection, source)
    if top < 1:
        raise SteerlabError(f"the {top} largest contributions are none; give 1 or more")
    moved = {iso: neurons.level[neurons.langs.index(iso)] for iso in selection.langs}
    rows: list[tuple[Any, ...]] = []
    for layer in selection.layers:
        units = sorted(
            {unit for iso in selection.langs if iso != source for unit in selection.of(iso, layer)}
        )
        if not units:
            continue
        sae = need_sae(saes, layer, selection)
        sae.need(model)
        passed = _passed(sae, neurons)
        # [mlp_layer neuron unit]: how much one of each neuron adds to each latent's input.
        weights = torch.stack(
            [written(model, m).T @ sae.W_enc[:, units].double().cpu() for m in passed]
        )
        places = [neurons.layers.index(m) for m in passed]
        for iso in selection.langs:
            if iso == source:
                continue
            step = moved[iso][places] - moved[source][places]
            for unit in selection.of(iso, layer):
                weight = weights[..., units.index(unit)]
                rows += [
                    (iso, layer, unit, *told)
                    for told in _largest(weight, weight * step, passed, top)
                ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _largest(
    weight: Float[Tensor, "mlp neuron"],
    contribution: Float[Tensor, "mlp neuron"],
    layers: list[int],
    top: int,
) -> list[tuple[int, int, float, float, float]]:
    """(mlp_layer, neuron, weight, contribution, share) of the largest contributions, largest
    first."""
    sizes = contribution.abs().flatten()
    whole, width = float(sizes.sum()), contribution.shape[1]
    found = []
    for place in sizes.topk(min(top, len(sizes))).indices.tolist():
        m, n = divmod(place, width)
        own = float(contribution[m, n])
        found.append((layers[m], n, float(weight[m, n]), own, abs(own) / whole if whole else 0.0))
    return found


def written(model: Model, layer: int) -> Float[Tensor, "width neuron"]:
    """What each neuron of a layer's MLP writes into the residual stream."""
    return model.neuron_outputs(layer).double().cpu()


def _passed(sae: SAE, neurons: Firing) -> list[int]:
    """The layers whose MLPs have written where an autoencoder reads."""
    if not sae.site.startswith("resid_"):
        raise SteerlabError(
            f"tracing follows the residual stream, and this autoencoder reads {sae.hook}"
        )
    passed = list(range(sae.layer + (sae.site == "resid_post")))
    if missing := [m for m in passed if m not in neurons.layers]:
        raise SteerlabError(
            f"the neurons of layers {', '.join(map(str, missing))} write here too; collect them"
        )
    return passed


def _need_neurons(neurons: Firing, selection: Selection, source: str) -> None:
    if neurons.site != "mlp_post":
        raise SteerlabError(
            f"this firing is of units at {neurons.site}; give that of neurons: "
            "collect_units(model, texts)"
        )
    need_source(selection, source)
    if missing := [iso for iso in selection.langs if iso not in neurons.langs]:
        raise SteerlabError(
            f"the neurons were read without {' '.join(missing)}; collect them with the same "
            "languages"
        )
    neurons.need_texts()
