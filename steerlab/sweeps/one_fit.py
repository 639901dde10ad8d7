"""Directions by a method's name in one call, which reads all that the method needs."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from steerlab.core.corpus import Corpus, as_corpus, codes_in
from steerlab.engine.inputs import chosen_layers
from steerlab.models.loading import load
from steerlab.sae import SAE
from steerlab.sweeps.fits import fitted
from steerlab.sweeps.methods import known
from steerlab.sweeps.settings import Training, need_trained
from steerlab.sweeps.trainings import Trainer


def fit(
    method: str | Sequence[str],
    model: Any = None,
    corpus: Corpus | str | os.PathLike[str] | None = None,
    *,
    saes: Mapping[int, SAE] | str | Path | None = None,
    layers: Iterable[int] | None = None,
    source: str = "en",
    targets: Iterable[str] | str | None = None,
    form: str = "line",
    training: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Any:  # Directions for one name, else a dict of them
    """Directions of a method, by its name: what it needs of the model is read in this call, once
    for several methods.

    That is activations for `diffmean`, `lda` and the like; how often neurons are on for `lape` and
    `masked`; that of an autoencoder's features, on texts and on noise, for `langfir`; gradients for
    `culnig`; pairs of last tokens for `austeer`; what heads or neurons give in the mean for
    `steer2edit`. bipo, lm, yapo and reft_r1 are trained, and the tokens of prompts attributed for
    grains, for each layer and target by itself: choose few. Every line that is given is read: keep
    apart what you test on, as by `corpus.split("estimate")`. What each method took, in seconds and
    tokens, is in `provenance["cost"]`.

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
        targets: the languages that a trained method learns to lead to; by default all others.
        form: how a line becomes a prompt, such as line or chat.
        training: knobs of trained methods, as `learn` has them, `pairs` (sentences at most) and
            `new` (the most tokens of the model's own answers).
        seed: of trainings.
        progress: whether to show a bar on stderr; by default in a terminal and in a notebook.
    """
    names = [method] if isinstance(method, str) else list(method)
    for name in names:
        known(name)  # raises before any work
    need_trained(training, names)
    knobs = dict(training or {})
    Training.of(knobs, "training: ")
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
        trainer=Trainer(None if targets is None else codes_in(targets), form, seed, knobs),
        progress=progress,
    )
    return fits[method] if isinstance(method, str) else fits
