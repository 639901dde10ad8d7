"""Directions by their names: one pass over texts for what reads activations, and one for what
reads single units."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.engine.causal_lift import causal_lift
from steerlab.engine.collect import collect
from steerlab.engine.collect_gradients import collect_gradients
from steerlab.engine.collect_units import collect_units
from steerlab.engine.language_mass import lexicon
from steerlab.engine.latent_pairs import latent_pairs
from steerlab.engine.prompts import prompt
from steerlab.estimate import variant
from steerlab.estimate.units.foxp2 import candidates, foxp2_features
from steerlab.models.huggingface import Model
from steerlab.sae import SAE, saes
from steerlab.sweeps.methods import METHODS, Readings, known

LIFTED, PROMPTS = (
    12,
    16,
)  # features a layer and language whose causal lift is measured, on so many sentences


def fit(
    model: Model,
    texts: Corpus,
    estimators: Sequence[str],
    *,
    layers: Sequence[int],
    source: str,
    form: str = "line",
    dictionaries: str | None = None,
    folder: Path | None = None,
) -> dict[str, Directions]:
    """Directions by estimator name, from the `estimate` split; in a folder they are kept, and found
    again.

    `dictionaries`: the folder of the model's SAEs, for methods that choose their features; by
    default the package's.
    """
    for name in estimators:
        known(name)
    options: dict[str, Any] = {"source": source, "form": form, "dictionaries": dictionaries}
    part = texts.split("estimate")
    if folder is None:
        return fitted(model, part, estimators, layers=layers, **options)
    (folder / "directions").mkdir(parents=True, exist_ok=True)
    made: list[Any] = [model.fingerprint, str(model.dtype), part.hash, list(layers), source, form]
    if any("saes" in METHODS[name].needs for name in estimators if name in METHODS):
        made.append([coder.digest for coder in _coders(model, dictionaries).values()])
    told = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:12]
    names = {name: f"{name.replace(' ', '-')}-{told}.safetensors" for name in estimators}
    files = {name: folder / "directions" / file for name, file in names.items()}
    with FileLock(folder / "directions" / "lock", fallback_to_soft=False):
        if missing := [name for name, file in files.items() if not file.exists()]:
            for name, found in fitted(model, part, missing, layers=layers, **options).items():
                found.save(files[name])
        return {name: Directions.load(file) for name, file in files.items()}


def fitted(
    model: Model,
    texts: Corpus,
    estimators: Sequence[str],
    *,
    layers: Sequence[int],
    source: str,
    form: str = "line",
    dictionaries: str | None = None,
    progress: bool = False,
) -> dict[str, Directions]:
    """Directions at `layers` by the names of estimators, variants and unit methods, from all of the
    texts.

    What chooses neurons, or a window of layers, keeps all layers: it compares them.
    """
    found: dict[str, Directions] = {}
    dense = [name for name in estimators if name not in METHODS]
    if dense:
        chosen = [variant(name) for name in dense]
        read = range(model.n_layers) if any(each.every for each in chosen) else layers
        also = sorted({need for each in chosen for need in each.needs})
        moments = collect(
            model, texts, layers=read, source=source, form=form, also=also, progress=progress
        )
        found = {name: variant(name).fit(moments, source=source).at(*layers) for name in dense}
    units = [name for name in estimators if name in METHODS]
    if units:
        needs = {need for name in units for need in METHODS[name].needs}
        readings = read_units(
            model, texts, needs, source=source, form=form, dictionaries=dictionaries
        )
        found |= {name: METHODS[name].fit(readings) for name in units}
    return {name: found[name] for name in estimators}


def read_units(
    model: Model,
    texts: Corpus,
    needs: set[str],
    *,
    source: str,
    form: str = "line",
    dictionaries: str | None = None,
) -> Readings:
    """Everything that unit methods need of a model, each read once; `needs` are fields of
    `Readings`.

    The lift is measured for the most selective features of each layer and language, on some of the
    source's sentences.
    """
    texts[source]
    coders = (
        _coders(model, dictionaries)
        if needs & {"saes", "latents", "random", "shuffled", "lift", "pairs"}
        else {}
    )
    latents = collect_units(model, texts, coders) if coders else None
    noise = {
        kind: collect_units(model, texts, coders, noise=kind)
        for kind in ("random", "shuffled")
        if kind in needs
    }
    neurons = collect_units(model, texts) if "neurons" in needs else None
    gradients = None
    if "gradients" in needs:
        items, control = contrast(model, texts, source, form)
        gradients = collect_gradients(model, items, control=control, site="mlp_post")
    lift = pairs = None
    if latents is not None and needs & {"lift", "pairs"}:
        words = lexicon(model, texts.drop(PROMPTS))  # and tested on the others
        some = candidates(latents, source=source, pool=LIFTED)
        lift = causal_lift(
            model,
            texts.take(PROMPTS),
            coders,
            some,
            words,
            firing=latents,
            source=source,
            form=form,
        )
        features = foxp2_features(latents, lift)
        pairs = latent_pairs(model, texts, coders, features, source=source, form=form)
    return Readings(
        source,
        coders,
        latents,
        noise.get("random"),
        noise.get("shuffled"),
        neurons,
        gradients,
        lift,
        pairs,
    )


def _coders(model: Model, place: str | None) -> Mapping[int, SAE]:
    found = saes() if place is None else saes(place)
    for coder in found.values():
        coder.need(model)
    if not found:
        raise SteerlabError(
            f"there are no SAEs at {place}; give a folder with one subfolder for each layer"
        )
    return found


Items = dict[str, list[tuple[str, str]]]


def contrast(model: Model, texts: Corpus, source: str, form: str) -> tuple[Items, Items]:
    """Labelled items for gradient scores: each source sentence with its translation, by language;
    and a control.

    The control has the same prompts, answered in each of the other languages in turn: what it has
    in common with the items is answering, not the language.
    """
    texts.need_aligned("a contrast of translations")
    prompts = [
        prompt(model.tokenizer, form, line, source=source, target=source) for line in texts[source]
    ]
    items = {iso: list(zip(prompts, texts[iso], strict=True)) for iso in texts.langs}
    control = {}
    for iso in texts.langs:
        others = [items[other] for other in texts.langs if other != iso]
        control[iso] = [others[place % len(others)][place] for place in range(len(prompts))]
    return items, control
