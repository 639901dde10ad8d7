"""Chosen latents in sentences and in their translations: what FOXP2's stage II decomposes."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import LatentPairs
from steerlab.engine.batching import InOrder
from steerlab.engine.forward import read
from steerlab.engine.inputs import corpus_metadata, need_room, tokens_of
from steerlab.engine.requirements import need_sae, need_source
from steerlab.estimate.units import Selection
from steerlab.models.loading import load
from steerlab.models.positions import HookFn, Positions
from steerlab.sae import SAE


@torch.inference_mode()
def latent_pairs(
    model: Any,
    corpus: Corpus,
    saes: Mapping[int, SAE],
    selection: Selection,
    *,
    source: str = "en",
    form: str = "line",
    batch: int = 64,
) -> LatentPairs:
    """Mean latents of every sentence less those of its translation in the source, on each
    language's own latents.

    Means are over all tokens but BOS and padding; FOXP2 reads the last token of a prompt (arXiv
    2602.00945). Needs an aligned corpus. Layers at which a language has no latents are left out.
    """
    model = load(model)
    corpus.need_aligned("latent pairs")
    need_source(selection, source)
    targets = [lang for lang in selection.langs if lang != source]
    chosen = {
        (lang, layer): tuple(selection.of(lang, layer))
        for lang in targets
        for layer in selection.where(lang)
    }
    if not chosen:
        raise SteerlabError("no language has any latent; choose with weaker thresholds")
    needed = {
        layer: need_sae(saes, layer, selection).to(model.device)
        for layer in sorted({at for _, at in chosen})
    }
    for sae in needed.values():
        sae.need(model)
    union: dict[int, list[int]] = {layer: [] for layer in needed}
    for (_, layer), units in chosen.items():
        union[layer] = sorted({*union[layer], *units})
    inputs = InOrder(model)

    def means(lang: str, units: Mapping[int, list[int]]) -> dict[int, Float[Tensor, "text unit"]]:
        ids = tokens_of(model, lang, corpus[lang], form)
        return _means(inputs, ids, needed, units, batch)

    before = means(source, union)
    differences, source_mean = {}, {}
    for lang in targets:
        layers = [layer for layer in needed if (lang, layer) in chosen]
        after = means(lang, {layer: list(chosen[lang, layer]) for layer in layers})
        for layer in layers:
            own = before[layer][:, [union[layer].index(unit) for unit in chosen[lang, layer]]]
            differences[lang, layer] = after[layer] - own
            source_mean[lang, layer] = own.mean(0)
    provenance = {
        "model": model.metadata,
        "corpus": corpus_metadata(corpus),
        "form": form,
        "selection": selection.method,
        "saes": [sae.digest for sae in needed.values()],
        "excluded": "BOS and padding",
    }
    return LatentPairs(
        source, selection.langs, selection.layers, chosen, differences, source_mean, provenance
    )


def _means(
    inputs: InOrder,
    ids: list[list[int]],
    saes: Mapping[int, SAE],
    units: Mapping[int, list[int]],
    batch: int,
) -> dict[int, Float[Tensor, "text unit"]]:
    """The mean of some latents over each text's tokens, by layer."""
    model = inputs.model
    need_room(model, ids)

    def look(means: dict[int, Tensor], layer: int) -> HookFn:
        def see(h: Tensor, positions: Positions) -> None:
            text = positions.text
            z = saes[layer].encode(h[text])[:, units[layer]]
            rows = text.nonzero()[:, 0]
            sums = z.new_zeros(len(h), z.shape[1]).index_add_(0, rows, z)
            means[layer] = (sums / text.sum(1, keepdim=True).clamp(min=1)).cpu()

        return see

    def work(start: int, rows: Sequence[int]) -> dict[int, Tensor]:
        means: dict[int, Tensor] = {}
        looks = [(saes[layer].site, layer, look(means, layer)) for layer in units]
        read(model, [ids[start + row] for row in rows], looks)
        return means

    parts: list[dict[int, Tensor]] = []
    for start in range(0, len(ids), batch):
        parts += inputs.run(ids[start : start + batch], partial(work, start))
    return {layer: torch.cat([part[layer] for part in parts]) for layer in units}
