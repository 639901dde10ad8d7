"""One streaming pass of a corpus that says which experts of a mixture its tokens meet."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from steerlab.core.corpus import Corpus, as_corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.progress import bar
from steerlab.core.routing import Routing, in_top
from steerlab.core.sites import ROUTER
from steerlab.engine.batching import InOrder
from steerlab.engine.forward import read
from steerlab.engine.inputs import (
    chosen_layers,
    corpus_metadata,
    need_count,
    need_room,
    tokens_of,
)
from steerlab.models.loading import load
from steerlab.models.positions import HookFn, Positions

# Of a batch, by layer: what the firing adds up, and the mean weights of its texts.
Seen = dict[int, tuple[list[Tensor], Tensor]]


def collect_routing(
    model: Any,
    corpus: Corpus | str | os.PathLike[str] | None,
    *,
    layers: Iterable[int] | None = None,
    form: str | None = None,
    batch: int = 64,
    progress: bool | None = None,
) -> Routing:
    """Read every line of a corpus and keep where its tokens go: BOS and padding do not count.

    Of each text the mean over its tokens of the router's weights, the softmax of the logits over
    *all* experts; of each language how often an expert is among the top k of a token. Source:
    Bandarkar et al. (arXiv 2510.04694).

    Raises `SteerlabError` for a model without experts, for a layer without a router, and for a
    router that does not take the top k of its logits.

    Args:
        model: what `load` takes: a mixture of experts.
        corpus: the lines to read, in each language; or the folder of them.
        layers: which layers to read; by default all that have a router.
        form: how a line becomes a prompt, such as line or chat; None reads it as it is.
        batch: how many texts are read together.
        progress: whether to show a bar on stderr; by default in a terminal and in a notebook.
    """
    model, corpus = load(model), as_corpus(corpus)
    need_count("batch", batch)
    width, routed = model.width_of(ROUTER), model.routed
    chosen = chosen_layers(model, routed if layers is None else layers)
    if without := [layer for layer in chosen if layer not in routed]:
        raise SteerlabError(
            f"the block of layer {without[0]} has no experts; the layers "
            f"{', '.join(map(str, routed))} have"
        )
    per_token = model.experts_per_token()
    provenance = {
        "model": model.metadata,
        "corpus": corpus_metadata(corpus),
        "form": form,
        "excluded": model.excluded,
        "experts per token": per_token,
    }
    firing = Firing(corpus.langs, chosen, width, width, site=ROUTER, provenance=provenance)
    weights: dict[str, Tensor] = {}
    with bar(progress=progress) as display:
        task = display.add_task("reading", total=sum(map(len, corpus.lines.values())))
        inputs = InOrder(model)
        for lang in corpus.langs:
            ids = tokens_of(model, lang, corpus[lang], form)
            need_room(model, ids)
            of_texts = []
            for start in range(0, len(ids), batch):
                part = ids[start : start + batch]
                of_texts += _read(inputs, firing, lang, part, per_token)
                display.advance(task, len(part))
            weights[lang] = torch.cat(of_texts)
    firing.provenance["tokens"] = int(firing.tokens.sum())
    return Routing(firing, weights, per_token)


@torch.inference_mode()
def _read(
    inputs: InOrder, firing: Firing, lang: str, ids: Sequence[Sequence[int]], per_token: int
) -> list[Tensor]:
    """Read texts of one language, add them to the firing, and give their mean weights,
    [text layer expert] a batch."""

    def work(rows: Sequence[int]) -> tuple[Seen, Tensor]:
        seen: Seen = {}
        looks = [
            (ROUTER, layer, _look(firing, lang, layer, per_token, seen)) for layer in firing.layers
        ]
        text = read(inputs.model, [ids[row] for row in rows], looks)
        return seen, text

    of_texts = []
    for seen, text in inputs.run(ids, work):
        for layer, (sums, _) in seen.items():
            firing.add(lang, layer, sums)
        firing.count(lang, text)
        of_texts.append(torch.stack([seen[layer][1] for layer in firing.layers], 1).clone())
    return of_texts


def _look(firing: Firing, lang: str, layer: int, per_token: int, seen: Seen) -> HookFn:
    def see(logits: Tensor, positions: Positions) -> None:
        text = positions.text
        empty = ~text.any(1)
        if empty.any():
            raise SteerlabError(
                f"a text of {lang!r} has no token that counts, so no mean; leave it out"
            )
        weights = logits.float().softmax(-1)
        on = in_top(logits, per_token)
        sums = firing.summed(lang, layer, on=on, value=weights, states=logits, mask=text)
        # Chosen before it is multiplied: padding may hold NaN.
        counted = weights.masked_fill(~text[..., None], 0).sum(1) / text.sum(1)[:, None]
        seen[layer] = sums, counted.cpu()

    return see
