"""Fit directions by the names of estimators and unit methods, and keep them in a run's folder.

The texts are read once for all estimators, and once for all methods that choose units.
"""

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
from steerlab.core.fingerprints import same_weights, unlike
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

Dictionaries = Mapping[int, SAE] | str | Path | None  # SAEs by layer, or their folder
# The causal lift costs a pass for each latent: so many are tried of each layer and language, on so
# many sentences.
LIFTED = 12
PROMPTS = 16


def fit(
    model: Model,
    texts: Corpus,
    estimators: Sequence[str],
    *,
    layers: Sequence[int],
    source: str,
    form: str = "line",
    dictionaries: Dictionaries = None,
    folder: Path | None = None,
    own: Own = NOTHING,
) -> dict[str, Directions]:
    """Fit directions from a corpus' `estimate` split; a folder keeps them, and they are read again.

    Args:
        model: the model that is steered.
        texts: the corpus.
        estimators: names of estimators, variants, methods that choose units, or a user's own.
        layers: where directions are wanted.
        source: the language that they lead from.
        form: the form of prompt that methods on prompts use.
        dictionaries: the folder of the model's SAEs, for methods that choose their features; by
            default the package's.
        folder: where directions are kept; None keeps none.
        own: a user's own directions, estimators and operators.
    """
    for name in estimators:
        known(name, own)  # raises before any work
    given = {name: own.directions[name] for name in estimators if name in own.directions}
    missing = [name for name in estimators if name not in given]
    part = texts.split("estimate")
    options: dict[str, Any] = {
        "layers": layers,
        "source": source,
        "form": form,
        "dictionaries": dictionaries,
        "own": own,
    }
    if folder is None:
        fits = fitted(model, part, missing, **options)
    else:
        (folder / "directions").mkdir(parents=True, exist_ok=True)
        # Of several processes in one folder the first fits, and the others read what it made.
        with FileLock(folder / "directions" / "lock", fallback_to_soft=False):
            _save_given(folder, given)
            fits = _read_or_fit(model, part, missing, folder=folder, **options)
    return {name: given[name] if name in given else fits[name] for name in estimators}


def _save_given(folder: Path, given: Mapping[str, Directions]) -> None:
    """Save directions that were given, beside those that are fitted."""
    for name, directions in given.items():
        file = _file_of(folder, name, directions.digest[:12])
        if not file.exists():
            directions.save(file)


def _read_or_fit(
    model: Model,
    part: Corpus,
    names: Sequence[str],
    *,
    folder: Path,
    layers: Sequence[int],
    own: Own,
    **options: Any,
) -> dict[str, Directions]:
    """Read the directions that the folder has, and fit the others into it.

    A file's name holds a hash of all that decides its directions, so that others of the same name
    stand beside it.
    """
    settings: list[Any] = [model.fingerprint, str(model.dtype), part.hash, list(layers)]
    settings += [options["source"], options["form"]]
    if any("saes" in METHODS[name].needs for name in names if name in METHODS):
        coders = _load_saes(model, options["dictionaries"])
        settings.append([coder.digest for coder in coders.values()])
    functions = own.digests()
    files = {}
    for name in names:
        # Another function under the name is another file; the package's own have one for good.
        decisive = [*settings, functions[name]] if name in functions else settings
        digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]
        files[name] = _file_of(folder, name, digest)
    missing = [name for name, file in files.items() if not file.exists()]
    if missing:
        for name, fit in fitted(model, part, missing, layers=layers, own=own, **options).items():
            keep(fit, files[name])
    return {name: kept(file, model) for name, file in files.items()}


def keep(directions: Directions, file: Path) -> None:
    """Save directions in a run's folder, with the name of their file, which says what decided
    them."""
    replace(directions, provenance={**directions.provenance, "kept_as": file.name}).save(file)


def kept(file: Path, model: Model) -> Directions:
    """The directions that `keep` saved; raises where the file is another one's under this name."""
    found = Directions.load(file)
    name = found.provenance.get("kept_as")
    need_directions(file.name, found, model)
    if name not in (None, file.name):  # None where an older version kept them
        raise SteerlabError(
            f"{file} holds the directions of {name}, which were put in its place; delete it and "
            "run again"
        )
    return found


def _file_of(folder: Path, name: str, digest: str) -> Path:
    return folder / "directions" / f"{name.replace(' ', '-')}-{digest}.safetensors"


def fitted(
    model: Model,
    texts: Corpus,
    estimators: Sequence[str],
    *,
    layers: Sequence[int],
    source: str,
    form: str = "line",
    dictionaries: Dictionaries = None,
    own: Own = NOTHING,
    progress: bool | None = None,
) -> dict[str, Directions]:
    """Fit directions from all of the texts, by the names of estimators, variants and unit methods.

    Methods that choose neurons, or a window of layers, compare layers: their directions are at all
    of the model's, whatever `layers` says.

    Args:
        model: the model that is steered.
        texts: what is read.
        estimators: the names.
        layers: where the estimators' directions are wanted.
        source: the language that they lead from.
        form: the form of prompt that methods on prompts use.
        dictionaries: the folder of the model's SAEs; by default the package's.
        own: a user's own estimators.
        progress: show how far the reading is; by default in a terminal and in a notebook.
    """
    fits: dict[str, Directions] = {}
    dense = [name for name in estimators if name not in METHODS]
    if dense:
        records = {name: own.estimators.get(name) or variant(name) for name in dense}
        every_layer = any(record.every for record in records.values())
        needs: set[str] = set()
        for record in records.values():
            needs |= set(record.needs)
        moments = collect(
            model,
            texts,
            layers=range(model.n_layers) if every_layer else layers,
            source=source,
            form=form,
            also=sorted(needs),
            progress=progress,
        )
        for name, record in records.items():
            fit = record.fit(moments, source=source)
            if name in own.estimators:
                fit = _checked(name, fit, model, moments)
            fits[name] = fit.at(*layers)
    units = [name for name in estimators if name in METHODS]
    if units:
        unit_needs: set[str] = set()
        for name in units:
            unit_needs |= set(METHODS[name].needs)
        readings = read_units(
            model,
            texts,
            unit_needs,
            source=source,
            form=form,
            dictionaries=dictionaries,
            progress=progress,
        )
        for name in units:
            fits[name] = METHODS[name].fit(readings)
    return {name: fits[name] for name in estimators}  # in the order in which they were asked for


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
    """Raise where directions are of another model, of another width, or at layers that the model
    does not have."""
    maker = directions.provenance.get("model", {})
    # Released directions have no fingerprint, and are checked by their width alone.
    if maker.get("processing") not in (None, model.processing):
        raise SteerlabError(
            f"directions {name!r} were made with {maker['processing']}, and {model.name} has "
            f"{model.processing}: their activations are not the same; collect and fit again"
        )
    made_with = maker.get("fingerprint")
    if made_with is not None and not same_weights(made_with, model.fingerprint):
        raise SteerlabError(
            f"directions {name!r} were made with {maker.get('name')} ({made_with}), not "
            f"with {model.name} ({model.fingerprint}); directions of one model mean nothing in "
            f"another: collect and fit again{unlike(made_with, model.fingerprint)}"
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
    dictionaries: Dictionaries = None,
    prompts: int = PROMPTS,
    progress: bool | None = None,
) -> Readings:
    """Read everything that unit methods need of a model, each once.

    The causal lift is measured for the most selective features of each layer and language, on some
    of the source's sentences.

    Args:
        model: the model that is read.
        texts: the corpus.
        needs: fields of `Readings`.
        source: the language that directions lead from.
        form: the form of prompt.
        dictionaries: the model's SAEs by layer, or their folder; by default the package's.
        prompts: on how many sentences the causal lift is measured.
        progress: show how far the reading is; by default in a terminal and in a notebook.
    """
    texts[source]  # raises where the corpus has no such language
    of_saes = {"saes", "latents", "random", "shuffled", "lift", "pairs"}
    coders: Mapping[int, SAE] = _load_saes(model, dictionaries) if needs & of_saes else {}
    latents = collect_units(model, texts, coders, progress=progress) if coders else None
    noise = {}
    for kind in ("random", "shuffled"):
        if kind in needs:
            noise[kind] = collect_units(model, texts, coders, noise=kind, progress=progress)
    neurons = None
    if "neurons" in needs:
        neurons = collect_units(model, texts, progress=progress)
    gradients = None
    if "gradients" in needs:
        items, control = contrast(model, texts, source, form)
        gradients = collect_gradients(model, items, control=control, site="mlp_post")
    lift = None
    pairs = None
    if latents is not None and needs & {"lift", "pairs"}:
        # The words of a language are learnt on other sentences than the lift is measured on.
        words = lexicon(model, texts.drop(prompts))
        some = candidates(latents, source=source, pool=LIFTED)
        lift = causal_lift(
            model,
            texts.take(prompts),
            coders,
            some,
            words,
            firing=latents,
            source=source,
            form=form,
            progress=progress,
        )
        features = foxp2_features(latents, lift)
        pairs = latent_pairs(model, texts, coders, features, source=source, form=form)
    return Readings(
        source=source,
        saes=coders,
        latents=latents,
        random=noise.get("random"),
        shuffled=noise.get("shuffled"),
        neurons=neurons,
        gradients=gradients,
        lift=lift,
        pairs=pairs,
    )


def _load_saes(model: Model, folder: Dictionaries) -> Mapping[int, SAE]:
    """The model's SAEs by layer, as they are given, of a folder or of the package; raises where
    there are none, or of another model."""
    coders = folder if isinstance(folder, Mapping) else saes(folder)
    for coder in coders.values():
        coder.need(model)
    if not coders:
        raise SteerlabError(
            f"there are no SAEs at {folder}; give a folder with one subfolder for each layer"
        )
    return coders


Items = dict[str, list[tuple[str, str]]]  # by language, prompts with their answers


def contrast(model: Model, texts: Corpus, source: str, form: str) -> tuple[Items, Items]:
    """(items, control) for gradient scores: source sentences answered in each language.

    An item is a source sentence as a prompt with its translation as the answer, by the answer's
    language. The control of a language has the same prompts, answered in each of the other
    languages in turn: what it has in common with the items is answering, not the language.

    Args:
        model: its tokenizer makes the prompts.
        texts: an aligned corpus.
        source: the language of the prompts.
        form: the form of prompt.
    """
    texts.need_aligned("a contrast of translations")
    prompts = [
        prompt(model.tokenizer, form, line, source=source, target=source) for line in texts[source]
    ]
    items = {lang: list(zip(prompts, texts[lang], strict=True)) for lang in texts.langs}
    control = {}
    for lang in texts.langs:
        others = [items[other] for other in texts.langs if other != lang]
        control[lang] = [others[index % len(others)][index] for index in range(len(prompts))]
    return items, control
