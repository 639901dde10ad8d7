"""Directions by a method's name in one call, which reads all that the method needs."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from steerlab.core.corpus import Corpus, as_corpus
from steerlab.engine.inputs import chosen_layers
from steerlab.models.loading import load
from steerlab.sae import SAE
from steerlab.sweeps.fits import fitted
from steerlab.sweeps.methods import known


def fit(
    method: str | Sequence[str],
    model: Any = None,
    corpus: Corpus | str | os.PathLike[str] | None = None,
    *,
    saes: Mapping[int, SAE] | str | Path | None = None,
    layers: Iterable[int] | None = None,
    source: str = "en",
    form: str = "line",
    progress: bool | None = None,
) -> Any:  # Directions for one name, else a dict of them
    """Directions of a method, by its name: what it needs of the model is read in this call, once
    for several methods.

    That is activations for `diffmean`, `lda` and the like; how often neurons are on for `lape` and
    `masked`; that of an autoencoder's features, on texts and on noise, for `langfir`; gradients for
    `culnig`. Every line that is given is read: keep apart what you test on, as by
    `corpus.split("estimate")`.

    Raises `SteerlabError` for an unknown name, and for what a method lacks, such as autoencoders of
    the model.

    Args:
        method: the name of an estimator, a variant or a method that chooses units; or several,
            which give a dict.
        model: what `load` takes.
        corpus: the lines to read; by default those in the package that serve to estimate.
        saes: autoencoders by layer, or the folder of them; by default polyglot's.
        layers: where directions are wanted; by default all. Methods that compare layers are at all
            of them.
        source: the language that directions lead from, for methods that ask for one.
        form: how a line becomes a prompt, such as line or chat.
        progress: whether to show a bar on stderr; by default in a terminal and in a notebook.
    """
    names = [method] if isinstance(method, str) else list(method)
    for name in names:
        known(name)  # raises before any work
    model = load(model)
    texts = as_corpus(None).split("estimate") if corpus is None else as_corpus(corpus)
    fits = fitted(
        model,
        texts,
        names,
        layers=chosen_layers(model, layers),
        source=source,
        form=form,
        dictionaries=saes,
        progress=progress,
    )
    return fits[method] if isinstance(method, str) else fits
