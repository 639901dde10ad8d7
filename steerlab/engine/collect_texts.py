"""One vector for each text of a small corpus."""

import os
from collections.abc import Iterable
from typing import Any

from steerlab.core.corpus import Corpus, as_corpus
from steerlab.core.text_vectors import TextVectors
from steerlab.engine.collect import text_means
from steerlab.engine.inputs import chosen_layers, corpus_metadata
from steerlab.models.loading import load


def collect_texts(
    model: Any,
    corpus: Corpus | str | os.PathLike[str] | None,
    *,
    layers: Iterable[int] | None = None,
    site: str = "resid_post",
    form: str = "line",
) -> TextVectors:
    """Read every line of a corpus and keep its mean activations; BOS and padding do not count.

    `collect` keeps sums alone; this is for what chooses among texts, as `diffmean(select=...)` and
    `clustered` do. It takes texts x layers x width numbers of memory.

    Args:
        model: what `load` takes.
        corpus: the lines to read, in each language; or the folder of them.
        layers: which layers to read; by default all.
        site: where in a layer.
        form: the prompt form that lines are put in.
    """
    model, corpus = load(model), as_corpus(corpus)
    chosen = chosen_layers(model, layers)
    provenance = {
        "model": model.metadata,
        "corpus": corpus_metadata(corpus),
        "form": form,
        "excluded": model.excluded,
    }
    vectors = text_means(model, corpus, layers=chosen, site=site, form=form)
    return TextVectors(vectors, chosen, site, provenance)
