"""Directions by their names: one pass over texts for what reads activations, and one for what
reads single units."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.engine.causal_lift import causal_lift
from steerlab.engine.collect import collect
from steerlab.engine.collect_gradients import collect_gradients
from steerlab.engine.collect_units import collect_units
from steerlab.engine.language_mass import lexicon
from steerlab.engine.latent_pairs import latent_pairs
from steerlab.engine.prompts import prompt
from steerlab.estimate import variant
from steerlab.estimate.units.foxp2 import candidates, foxp2_features
from steerlab.models.model import Model
from steerlab.sae import SAE, saes
from steerlab.sweeps.methods import METHODS, NOTHING, Readings, known
from steerlab.sweeps.own import Own

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
    own: Own = NOTHING,
) -> dict[str, Directions]:
    """Directions by estimator name, from the `estimate` split; in a folder they are kept, and found
    again.

    `dictionaries`: the folder of the model's SAEs, for methods that choose their features; by
    default the package's.
    """
    for name in estimators:
        known(name, own)
    given = {name: own.directions[name] for name in estimators if name in own.directions}
    asked = [name for name in estimators if name not in given]
    part = texts.split("estimate")
    options: dict[str, Any] = {
        "layers": layers,
        "source": source,
        "form": form,
        "dictionaries": dictionaries,
        "own": own,
    }
    if folder is None:
        fits = fitted(model, part, asked, **options)
    else:
        (folder / "directions").mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "directions" / "lock", fallback_to_soft=False):
            _keep(folder, given)
            fits = _kept(model, part, asked, folder=folder, **options)
    return {name: given[name] if name in given else fits[name] for name in estimators}


def _keep(folder: Path, given: Mapping[str, Directions]) -> None:
    """Directions that were given, beside those that are fitted."""
    for name, directions in given.items():
        file = _file_of(folder, name, directions.digest[:12])
        if not file.exists():
            directions.save(file)


def _kept(
    model: Model,
    part: Corpus,
    names: Sequence[str],
    *,
    folder: Path,
    layers: Sequence[int],
    own: Own,
    **options: Any,
) -> dict[str, Directions]:
    """Directions that the folder has, and others fitted into it."""
    settings: list[Any] = [model.fingerprint, str(model.dtype), part.hash, list(layers)]
    settings += [options["source"], options["form"]]
    if any("saes" in METHODS[name].needs for name in names if name in METHODS):
        coders = _coders(model, options["dictionaries"])
        settings.append([coder.digest for coder in coders.values()])
    functions = own.digests()
    files = {}
    for name in names:
        # Another function under the name is another file; the package's own have one for good.
        made = [*settings, functions[name]] if name in functions else settings
        told = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:12]
        files[name] = _file_of(folder, name, told)
    if missing := [name for name, file in files.items() if not file.exists()]:
        for name, fit in fitted(model, part, missing, layers=layers, own=own, **options).items():
            fit.save(files[name])
    return {name: Directions.load(file) for name, file in files.items()}


def _file_of(folder: Path, name: str, told: str) -> Path:
    return folder / "directions" / f"{name.replace(' ', '-')}-{told}.safetensors"


def fitted(
    model: Model,
    texts: Corpus,
    estimators: Sequence[str],
    *,
    layers: Sequence[int],
    source: str,
    form: str = "line",
    dictionaries: str | None = None,
    own: Own = NOTHING,
    progress: bool = False,
) -> dict[str, Directions]:
    """Directions at `layers` by the names of estimators, variants and unit methods, from all of the
    texts.

    What chooses neurons, or a window of layers, keeps all layers: it compares them.
    """
    found: dict[str, Directions] = {}
    dense = [name for name in estimators if name not in METHODS]
    if dense:
        chosen = {name: own.estimators.get(name) or variant(name) for name in dense}
        every = any(each.every for each in chosen.values())
        read = range(model.n_layers) if every else layers
        also = sorted({need for each in chosen.values() for need in each.needs})
        moments = collect(
            model, texts, layers=read, source=source, form=form, also=also, progress=progress
        )
        for name, record in chosen.items():
            fit = record.fit(moments, source=source)
            if name in own.estimators:
                fit = _checked(name, fit, model, moments)
            found[name] = fit.at(*layers)
    units = [name for name in estimators if name in METHODS]
    if units:
        needs = {need for name in units for need in METHODS[name].needs}
        readings = read_units(
            model, texts, needs, source=source, form=form, dictionaries=dictionaries
        )
        found |= {name: METHODS[name].fit(readings) for name in units}
    return {name: found[name] for name in estimators}


def _checked(name: str, fit: Directions, model: Model, moments: Moments) -> Directions:
    """What a user's function made, with what it was made from in its provenance."""
    need_directions(name, fit, model)
    for lang in moments.langs:
        if lang not in fit.langs:
            raise SteerlabError(
                f"{name} made directions of {' '.join(fit.langs)} and none of {lang!r}; an "
                "estimator keeps the languages of its moments"
            )
    provenance = {**moments.provenance, **fit.provenance, "estimator": name}
    return replace(fit, provenance=provenance)


def need_directions(name: str, directions: Directions, model: Model) -> None:
    """Raise where directions are of another model, of another width or at layers that it has
    not."""
    made = directions.provenance.get("model", {})
    if made.get("fingerprint") not in (None, model.fingerprint):
        raise SteerlabError(
            f"directions {name!r} were made with {made.get('name')} ({made['fingerprint']}), not "
            f"with {model.name} ({model.fingerprint}); directions of one model mean nothing in "
            "another: collect and fit again"
        )
    width = model.width_of(directions.site)
    if directions.width != width:
        raise SteerlabError(
            f"directions {name!r} have width {directions.width}, and {model.name} has {width} at "
            f"{directions.site}; they are of another model: collect and fit again"
        )
    for layer in directions.layers:
        model.need_layer(layer)


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
