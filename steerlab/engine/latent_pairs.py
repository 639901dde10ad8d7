"""Chosen latents in sentences and in their translations: what FOXP2's stage II decomposes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import LatentPairs
from steerlab.engine.inputs import about_corpus, need_room, tokens_of
from steerlab.engine.prompts import pad
from steerlab.engine.requirements import need_sae, need_source
from steerlab.estimate.units import Selection
from steerlab.models.huggingface import Model
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
    targets = [iso for iso in selection.langs if iso != source]
    chosen = {
        (iso, layer): tuple(selection.of(iso, layer))
        for iso in targets
        for layer in selection.where(iso)
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
    before = _means(model, source, corpus[source], needed, union, form, batch)
    differences, source_mean = {}, {}
    for iso in targets:
        layers = [layer for layer in needed if (iso, layer) in chosen]
        after = _means(
            model,
            iso,
            corpus[iso],
            needed,
            {layer: list(chosen[iso, layer]) for layer in layers},
            form,
            batch,
        )
        for layer in layers:
            own = before[layer][:, [union[layer].index(unit) for unit in chosen[iso, layer]]]
            differences[iso, layer], source_mean[iso, layer] = after[layer] - own, own.mean(0)
    about = {
        "model": model.about,
        "corpus": about_corpus(corpus),
        "form": form,
        "selection": selection.method,
    }
    about |= {"saes": [sae.digest for sae in needed.values()], "excluded": "BOS and padding"}
    return LatentPairs(
        source, selection.langs, selection.layers, chosen, differences, source_mean, about
    )


def _means(
    model: Model,
    iso: str,
    lines: Sequence[str],
    saes: Mapping[int, SAE],
    units: Mapping[int, list[int]],
    form: str,
    batch: int,
) -> dict[int, Float[Tensor, "text unit"]]:
    """The mean of some latents over each text's tokens, by layer."""
    found: dict[int, list[Tensor]] = {layer: [] for layer in units}

    def look(layer: int) -> HookFn:
        def see(h: Tensor, here: Positions) -> None:
            z = saes[layer].encode(h[here.text])[:, units[layer]]
            rows = here.text.nonzero()[:, 0]
            sums = z.new_zeros(len(h), z.shape[1]).index_add_(0, rows, z)
            found[layer].append((sums / here.text.sum(1, keepdim=True).clamp(min=1)).cpu())

        return see

    ids = tokens_of(model, iso, lines, form)
    need_room(model, ids)
    with model.attached([(saes[layer].site, layer, look(layer)) for layer in units]):
        for start in range(0, len(ids), batch):
            tokens, mask = pad(
                ids[start : start + batch], model.tokenizer.pad_token_id, model.device
            )
            model.body(tokens, mask)
    return {layer: torch.cat(parts) for layer, parts in found.items()}
