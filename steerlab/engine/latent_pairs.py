"""Differences of chosen latents between sentences and their translations, which FOXP2's stage II
decomposes."""

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
    """Each language's own latents in every sentence of it, less those in the sentence's translation
    in the source.

    A sentence's latents are means over all its tokens but BOS and padding; FOXP2 reads the last
    token of a prompt (arXiv 2602.00945). Layers at which a language has no latents are left out.
    Raises `SteerlabError` for a corpus that is not aligned, a selection without any latent, and
    autoencoders that do not fit the selection or the model.

    Args:
        model: what `load` takes.
        corpus: sentences with their translations.
        saes: autoencoders by layer, those that the latents were chosen with.
        selection: the latents of each language.
        source: the language whose sentences are subtracted.
        form: how a sentence becomes a prompt, such as line or chat.
        batch: how many sentences are read together.
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
    layers = sorted({layer for _, layer in chosen})
    needed = {layer: need_sae(saes, layer, selection).to(model.device) for layer in layers}
    for sae in needed.values():
        sae.need(model)
    # The source is read once for all languages, at the latents of any of them.
    union = {layer: _union(chosen, layer) for layer in layers}
    inputs = InOrder(model)

    def means(lang: str, units: Mapping[int, list[int]]) -> dict[int, Float[Tensor, "text unit"]]:
        ids = tokens_of(model, lang, corpus[lang], form)
        return _means(inputs, ids, needed, units, batch)

    of_source = means(source, union)
    differences, source_mean = {}, {}
    for lang in targets:
        own_layers = [layer for layer in layers if (lang, layer) in chosen]
        of_lang = means(lang, {layer: list(chosen[lang, layer]) for layer in own_layers})
        for layer in own_layers:
            columns = [union[layer].index(unit) for unit in chosen[lang, layer]]
            before = of_source[layer][:, columns]
            differences[lang, layer] = of_lang[layer] - before
            source_mean[lang, layer] = before.mean(0)
    provenance = {
        "model": model.metadata,
        "corpus": corpus_metadata(corpus),
        "form": form,
        "selection": selection.method,
        "saes": [sae.digest for sae in needed.values()],
        "excluded": model.excluded,
    }
    return LatentPairs(
        source, selection.langs, selection.layers, chosen, differences, source_mean, provenance
    )


def _union(chosen: Mapping[tuple[str, int], Sequence[int]], layer: int) -> list[int]:
    """The latents of any language at a layer, in order."""
    units: set[int] = set()
    for (_, at), own in chosen.items():
        if at == layer:
            units.update(own)
    return sorted(units)


def _means(
    inputs: InOrder,
    ids: list[list[int]],
    saes: Mapping[int, SAE],
    units: Mapping[int, list[int]],
    batch: int,
) -> dict[int, Float[Tensor, "text unit"]]:
    """The mean of some latents over each text's tokens, by layer, `[text unit]`."""
    model = inputs.model
    need_room(model, ids)

    def look(layer: int, means: dict[int, Tensor]) -> HookFn:
        def see(h: Tensor, positions: Positions) -> None:
            text = positions.text
            # Only tokens that count are encoded, so that each must be led back to its row.
            z = saes[layer].encode(h[text])[:, units[layer]]
            row_of_token = text.nonzero()[:, 0]
            sums = z.new_zeros(len(h), z.shape[1]).index_add_(0, row_of_token, z)
            tokens = text.sum(1, keepdim=True).clamp(min=1)
            means[layer] = (sums / tokens).cpu()

        return see

    def work(start: int, rows: Sequence[int]) -> dict[int, Tensor]:
        means: dict[int, Tensor] = {}
        hooks = [(saes[layer].site, layer, look(layer, means)) for layer in units]
        read(model, [ids[start + row] for row in rows], hooks)
        return means

    parts: list[dict[int, Tensor]] = []
    for start in range(0, len(ids), batch):
        parts += inputs.run(ids[start : start + batch], partial(work, start))
    return {layer: torch.cat([part[layer] for part in parts]) for layer in units}
