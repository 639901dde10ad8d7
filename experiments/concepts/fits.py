"""Every method's directions of a case, in each language, and those of the controls: all with the true
gaps, so that equal strength is equal dose."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from cases import SEEDS, Case

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.estimate import controls
from steerlab.estimate.crossed import crossed
from steerlab.estimate.units.shared import SharedFeatures, shared_features

TOP = 40  # features of a language and layer
METHODS = ("own language", "all languages", "other languages", "lda", "probe", "shared features")
CONTROLS = ("random isotropic", "shuffled", "wrong")
Fits = dict[str, dict[str, list[Directions]]]  # method, language, seeds


def fitted(case: Case, other: Case) -> Fits:
    """Directions by method and language; `other` is the case whose concept is the wrong one."""
    own = {lang: case.cross.within(lang) for lang in case.langs}
    fits: Fits = {
        "own language": {lang: [own[lang]] for lang in case.langs},
        "all languages": {lang: [case.cross.directions()] for lang in case.langs},
        "other languages": {lang: [_without(case, lang)] for lang in case.langs},
        "lda": _of_labels(case, sl.lda(case.at)),
        "probe": _of_labels(case, sl.probe(case.at)),
    }
    features = shared(case)
    if features is not None:
        found, firing, saes = features
        made = found.directions(firing, saes)
        fits["shared features"] = {lang: [made] for lang in case.langs}
    fits["random isotropic"] = {
        lang: [controls.random(own[lang], seed=seed, source=case.concepts[0]) for seed in SEEDS]
        for lang in case.langs
    }
    fits["shuffled"] = {
        lang: [one.within(lang).at(*case.layers) for one in case.dealt] for lang in case.langs
    }
    wrong = replace(other.cross.directions(), langs=case.concepts)
    fits["wrong"] = {lang: [wrong] for lang in case.langs}
    return {
        name: {
            lang: [replace(one, means=own[lang].means, source=None) for one in some]
            for lang, some in by_lang.items()
        }
        for name, by_lang in fits.items()
    }


def _without(case: Case, lang: str) -> Directions:
    return crossed(case.at, languages=[one for one in case.langs if one != lang]).directions()


def from_language(case: Case, source: str, lang: str) -> Directions:
    """The concept as it is in one language, with the gaps of another."""
    fit = crossed(case.at, languages=[source]).directions()
    return replace(fit, means=case.cross.within(lang).means)


def _of_labels(case: Case, fit: Directions) -> dict[str, list[Directions]]:
    """Of directions between all labels those between the two of each language."""
    made = {}
    for lang in case.langs:
        index = [fit.langs.index(f"{concept}@{lang}") for concept in case.concepts]
        vectors = fit.vectors[index]
        centred = vectors - vectors.mean(0, keepdim=True)
        basis = torch.nn.functional.normalize(centred, dim=-1)[:, :, None]
        made[lang] = [
            replace(
                fit,
                vectors=vectors,
                basis=basis,
                means=fit.means[index],
                langs=case.concepts,
                source=None,
                extra={},
            )
        ]
    return made


def shared(case: Case) -> tuple[SharedFeatures, Any, Mapping[int, Any]] | None:
    """The features that languages share, and what they were chosen from; None where the model has no
    autoencoders here."""
    if case.model.name != "polyglot":
        return None  # autoencoders of other models come from elsewhere
    saes = {layer: sae for layer, sae in sl.units.saes().items() if layer in case.layers}
    firing = sl.collect_units(case.model, case.corpus.split("estimate"), saes=saes, progress=False)
    try:
        return shared_features(firing, case.concepts[1], top=TOP), firing, saes
    except SteerlabError as error:
        print(f"no shared features: {error}", flush=True)
        return None
