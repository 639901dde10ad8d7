"""Fit directions by the names of estimators, unit methods and trainings, and keep them in a run's
folder.

The texts are read once for all estimators, and once for all methods that choose units; what is
trained reads them by itself. What each took is in its provenance, under "cost".
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from steerlab.core.corpus import Corpus
from steerlab.core.costs import Cost
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.engine.collect import collect
from steerlab.estimate import variant
from steerlab.models.counting import counted
from steerlab.models.model import Model
from steerlab.sweeps.kept import keep, kept, need_directions
from steerlab.sweeps.methods import METHODS, NOTHING, known
from steerlab.sweeps.own import Own
from steerlab.sweeps.readings import Dictionaries, load_saes, read_units
from steerlab.sweeps.trainings import TRAINED, Trainer

UNTOLD = Trainer()


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
    trainer: Trainer = UNTOLD,
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
        trainer: how directions are trained that have no other way to be found.
    """
    for name in estimators:
        known(name, own)  # raises before any work
    given = {name: own.directions[name] for name in estimators if name in own.directions}
    missing = [name for name in estimators if name not in given]
    options: dict[str, Any] = {
        "layers": layers,
        "source": source,
        "form": form,
        "dictionaries": dictionaries,
        "own": own,
        "trainer": trainer,
    }
    part = texts.split("estimate")
    if folder is None:
        fits = fitted(model, part, missing, **options)
    else:
        (folder / "directions").mkdir(parents=True, exist_ok=True)
        # Of several processes in one folder the first fits, and the others read what it made.
        with FileLock(folder / "directions" / "lock", fallback_to_soft=False):
            _save_given(folder, given)
            fits = read_or_fit(model, part, missing, folder=folder, **options)
    return {name: given[name] if name in given else fits[name] for name in estimators}


def _save_given(folder: Path, given: Mapping[str, Directions]) -> None:
    """Save directions that were given, beside those that are fitted."""
    for name, directions in given.items():
        file = _file_of(folder, name, directions.digest[:12])
        if not file.exists():
            directions.save(file)


def read_or_fit(
    model: Model,
    part: Corpus,
    names: Sequence[str],
    *,
    folder: Path,
    layers: Sequence[int],
    own: Own = NOTHING,
    trainer: Trainer = UNTOLD,
    **options: Any,
) -> dict[str, Directions]:
    """Read the directions that the folder has, and fit the others into it.

    A file's name holds a hash of all that decides its directions, so that others of the same name
    stand beside it.

    Args:
        model: the model that is steered.
        part: what is read.
        names: of estimators, variants, unit methods or trainings.
        folder: of the run.
        layers: where directions are wanted.
        own: a user's own estimators.
        trainer: how directions are trained.
        options: source, form and dictionaries, as `fitted` takes them.
    """
    settings: list[Any] = [model.fingerprint, str(model.dtype), part.hash, list(layers)]
    settings += [options["source"], options["form"]]
    if any("saes" in METHODS[name].needs for name in names if name in METHODS):
        coders = load_saes(model, options["dictionaries"])
        settings.append([coder.digest for coder in coders.values()])
    functions = own.digests()
    files = {}
    for name in names:
        decisive = list(settings)
        if name in functions:
            # Another function under the name is another file; the package's own have one for good.
            decisive.append(functions[name])
        elif name in TRAINED:
            decisive.append(trainer.metadata(part, options["source"]))
            if TRAINED[name].sae:
                coders = load_saes(model, options["dictionaries"])
                decisive.append([coders[layer].digest for layer in layers if layer in coders])
        digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]
        files[name] = _file_of(folder, name, digest)
    missing = [name for name, file in files.items() if not file.exists()]
    if missing:
        options |= {"own": own, "trainer": trainer, "trained": folder / "directions" / "trained"}
        for name, fit in fitted(model, part, missing, layers=layers, **options).items():
            keep(fit, files[name])
    return {name: kept(file, model) for name, file in files.items()}


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
    trainer: Trainer = UNTOLD,
    trained: Path | None = None,
    progress: bool | None = None,
) -> dict[str, Directions]:
    """Fit directions from all of the texts, by the names of estimators, variants, unit methods and
    trainings.

    What each took is in its provenance: {"cost": {"seconds", "tokens"}}. A reading that several
    share counts in full for each of them, as if it were alone. Methods that choose neurons, or a
    window of layers, compare layers: their directions are at all of the model's, whatever `layers`
    says.

    Args:
        model: the model that is steered.
        texts: what is read.
        estimators: the names.
        layers: where the estimators' directions are wanted.
        source: the language that they lead from.
        form: the form of prompt that methods on prompts use.
        dictionaries: the folder of the model's SAEs; by default the package's.
        own: a user's own estimators.
        trainer: how directions are trained.
        trained: the folder that keeps each training as it is done; None keeps none.
        progress: show how far the reading is; by default in a terminal and in a notebook.
    """
    fits: dict[str, Directions] = {}
    units = [name for name in estimators if name in METHODS]
    trainings = [name for name in estimators if name in TRAINED and name not in own.estimators]
    dense = [name for name in estimators if name not in (*units, *trainings)]
    if dense:
        fits |= _dense(model, texts, dense, layers, source, form, own, progress=progress)
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
            with counted(model) as count:
                made = METHODS[name].fit(readings)
            fits[name] = with_cost(made, readings.cost_of(METHODS[name].needs) + count.cost)
    for name in trainings:
        fits[name] = trainer.train(
            model,
            texts,
            name,
            layers=layers,
            source=source,
            saes=load_saes(model, dictionaries) if TRAINED[name].sae else {},
            folder=trained,
        )
    return {name: fits[name] for name in estimators}  # in the order in which they were asked for


def _dense(
    model: Model,
    texts: Corpus,
    names: Sequence[str],
    layers: Sequence[int],
    source: str,
    form: str,
    own: Own,
    *,
    progress: bool | None,
) -> dict[str, Directions]:
    """Directions of estimators, from one reading."""
    records = {name: own.estimators.get(name) or variant(name) for name in names}
    every_layer = any(record.every for record in records.values())
    needs: set[str] = set()
    for record in records.values():
        needs |= set(record.needs)
    with counted(model) as reading:
        moments = collect(
            model,
            texts,
            layers=range(model.n_layers) if every_layer else layers,
            source=source,
            form=form,
            also=sorted(needs),
            progress=progress,
        )
    fits = {}
    for name, record in records.items():
        with counted(model) as count:
            fit = record.fit(moments, source=source)
            if name in own.estimators:
                fit = _checked(name, fit, model, moments)
        fits[name] = with_cost(fit, reading.cost + count.cost).at(*layers)
    return fits


def with_cost(directions: Directions, cost: Cost) -> Directions:
    """The directions, with what they took in their provenance."""
    return replace(directions, provenance={**directions.provenance, "cost": cost.record})


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
