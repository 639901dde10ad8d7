"""One vector for each text of a small corpus."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.forward as forward
from steerlab.core.corpus import Corpus, as_corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.text_vectors import TextVectors
from steerlab.engine.batching import InOrder
from steerlab.engine.collect import text_means
from steerlab.engine.inputs import chosen_layers, corpus_metadata, need_room, tokens_of
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import HookFn, Positions


def collect_texts(
    model: Any,
    corpus: Corpus | str | os.PathLike[str] | None,
    *,
    layers: Iterable[int] | None = None,
    site: str = "resid_post",
    form: str = "line",
    read: str = "mean",
) -> TextVectors:
    """Read every line of a corpus and keep its mean activations, or those of its last token; BOS
    and padding do not count.

    `collect` keeps sums alone; this is for what chooses among texts, as `diffmean(select=...)` and
    `clustered` do. It takes texts x layers x width numbers of memory.

    Args:
        model: what `load` takes.
        corpus: the lines to read, in each language; or the folder of them.
        layers: which layers to read; by default all.
        site: where in a layer.
        form: the prompt form that lines are put in.
        read: "mean" of each text's tokens, or the "last" one.
    """
    if read not in ("mean", "last"):
        raise SteerlabError(f"read is {read!r}; of each text there are its 'mean' and its 'last'")
    model, corpus = load(model), as_corpus(corpus)
    chosen = chosen_layers(model, layers)
    provenance = {
        "model": model.metadata,
        "corpus": corpus_metadata(corpus),
        "form": form,
        "excluded": model.excluded,
        "read": read,
    }
    vectors_of = text_means if read == "mean" else last_tokens
    vectors = vectors_of(model, corpus, layers=chosen, site=site, form=form)
    return TextVectors(vectors, chosen, site, provenance)


@torch.inference_mode()
def last_tokens(
    model: Model, corpus: Corpus, *, layers: Sequence[int], site: str, form: str
) -> dict[str, Float[Tensor, "text layer width"]]:
    """The vector of the last token of every text, by language.

    Args:
        model: what reads them.
        corpus: the lines to read.
        layers: which layers.
        site: where in a layer.
        form: how a line becomes a prompt.
    """
    reader = InOrder(model)
    found: dict[str, Tensor] = {}
    for lang in corpus.langs:
        ids = tokens_of(model, lang, corpus[lang], form)
        need_room(model, ids)

        def work(rows: Sequence[int], ids: list[list[int]] = ids) -> Tensor:
            kept: dict[int, Tensor] = {}

            def keep(layer: int) -> HookFn:
                # Padding lies on the left, so that the last position of a row is its last token.
                def look(h: Tensor, _: Positions) -> None:
                    kept[layer] = h[:, -1].float().cpu()

                return look

            hooks = [(site, layer, keep(layer)) for layer in layers]
            forward.read(model, [ids[row] for row in rows], hooks)
            return torch.stack([kept[layer] for layer in layers], 1)

        found[lang] = torch.cat(reader.run(ids, work))
    return found
