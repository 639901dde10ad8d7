"""steerlab finds, measures and steers the language of a language model.

Five kinds of things, each made from the one before:

- load: `load` a model, `corpus`, `texts` or `contrast` to read with it;
- collect: `collect`, `collect_units` read the texts once and give statistics, such as `Moments`;
  `collect_texts` and `collect_words` keep a vector for each text, or word;
- estimate: `diffmean`, `lda`, `pca`, `probe`, `eigengap` turn statistics into `Directions`; more in
  `estimate`, and in `units` of latents and neurons; `fit` takes any method by its name and reads
  what it needs; `learn` trains a direction on `preferences`, `grains` makes one of the tokens with
  the largest `attribution`; what a direction has to beat in `controls`;
- edit: `add`, `rotate`, `ablate`, `affine`, `clamp` turn a direction into an `Edit`, and so does
  `edit` a function of yours; more in `edits`; `stack` gives each row of a batch an edit of its own,
  `fit_controller` a network that says when and how far one acts, and `amplify` weighs one against
  the plain model; `bake` writes one into the weights, and `steer2edit` finds one there;
- judge: `generate`, `stream` and `cross_entropy` run a model under an edit; `sweep` does so for a
  grid, `run` for the main study, `clas` for CLaS-Bench. More in `scores`, `judges`, `mass` and
  `effects`, which measure outputs, and `stats` and `geometry`, which compare; `concepts` has
  contrasts across languages; `figures` draws.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerlab import edits as edits
    from steerlab import estimate as estimate
    from steerlab import figures as figures
    from steerlab import scores as scores
    from steerlab.analysis import geometry as geometry
    from steerlab.analysis.written import table
    from steerlab.api import concepts as concepts
    from steerlab.api import effects as effects
    from steerlab.api import mass as mass
    from steerlab.api import stats as stats
    from steerlab.api import units as units
    from steerlab.core.contrast import contrast
    from steerlab.core.corpus import Corpus, corpus, texts
    from steerlab.core.directions import Direction, Directions
    from steerlab.core.errors import SteerlabError
    from steerlab.core.exchange import read
    from steerlab.core.languages import add_language
    from steerlab.core.moments import Moments
    from steerlab.edits.edit import Edit, edit, stack
    from steerlab.edits.latents import clamp
    from steerlab.edits.operators import ablate, add, affine, rotate
    from steerlab.engine.amplify import amplify
    from steerlab.engine.attribution import attribution
    from steerlab.engine.collect import collect
    from steerlab.engine.collect_texts import collect_texts
    from steerlab.engine.collect_units import collect_units
    from steerlab.engine.collect_words import collect_words
    from steerlab.engine.controller import Controller, fit_controller
    from steerlab.engine.cross_entropy import cross_entropy
    from steerlab.engine.decoding import generate
    from steerlab.engine.grains import grains
    from steerlab.engine.learn import learn
    from steerlab.engine.lens import lens
    from steerlab.engine.preferences import preferences
    from steerlab.engine.token_stream import stream
    from steerlab.engine.weights.bake import bake
    from steerlab.engine.weights.steer2edit import steer2edit
    from steerlab.engine.weights.weight_edit import WeightEdit
    from steerlab.estimate import controls as controls
    from steerlab.estimate.diffmean import diffmean
    from steerlab.estimate.eigengap import eigengap
    from steerlab.estimate.lda_and_probe import lda, probe
    from steerlab.estimate.pca import pca
    from steerlab.estimate.units.selection import Selection
    from steerlab.figures.printed import save
    from steerlab.models.loading import load
    from steerlab.models.model import Model
    from steerlab.sae.autoencoder import SAE
    from steerlab.scores import judges as judges
    from steerlab.studies import clas as clas
    from steerlab.studies.citing import cite
    from steerlab.studies.explore.explorer import explore as explore
    from steerlab.studies.main.run import run
    from steerlab.sweeps.grid import Grid
    from steerlab.sweeps.one_fit import fit
    from steerlab.sweeps.ray import Ray
    from steerlab.sweeps.sweep import sweep

__version__ = "0.1.0"

_HOME = {  # where each name lives, imported at its first use
    "Controller": "engine.controller",
    "Corpus": "core.corpus",
    "Direction": "core.directions",
    "Directions": "core.directions",
    "Edit": "edits.edit",
    "Grid": "sweeps.grid",
    "Model": "models.huggingface",
    "Moments": "core.moments",
    "Ray": "sweeps.ray",
    "SAE": "sae.autoencoder",
    "Selection": "estimate.units.selection",
    "SteerlabError": "core.errors",
    "WeightEdit": "engine.weights.weight_edit",
    "ablate": "edits.operators",
    "add": "edits.operators",
    "add_language": "core.languages",
    "affine": "edits.operators",
    "amplify": "engine.amplify",
    "attribution": "engine.attribution",
    "bake": "engine.weights.bake",
    "cite": "studies.citing",
    "clamp": "edits.latents",
    "collect": "engine.collect",
    "collect_texts": "engine.collect_texts",
    "collect_units": "engine.collect_units",
    "collect_words": "engine.collect_words",
    "contrast": "core.contrast",
    "corpus": "core.corpus",
    "cross_entropy": "engine.cross_entropy",
    "diffmean": "estimate.diffmean",
    "edit": "edits.edit",
    "eigengap": "estimate.eigengap",
    "explore": "studies.explore.explorer",
    "fit": "sweeps.one_fit",
    "fit_controller": "engine.controller",
    "generate": "engine.decoding",
    "grains": "engine.grains",
    "lda": "estimate.lda_and_probe",
    "learn": "engine.learn",
    "lens": "engine.lens",
    "load": "models.loading",
    "pca": "estimate.pca",
    "preferences": "engine.preferences",
    "probe": "estimate.lda_and_probe",
    "read": "core.exchange",
    "rotate": "edits.operators",
    "run": "studies.main.run",
    "save": "figures.printed",
    "stack": "edits.edit",
    "steer2edit": "engine.weights.steer2edit",
    "stream": "engine.token_stream",
    "sweep": "sweeps.sweep",
    "table": "analysis.written",
    "texts": "core.corpus",
}
_GROUPS = {  # and each group of names
    "clas": "studies.clas",
    "concepts": "api.concepts",
    "controls": "estimate.controls",
    "edits": "edits",
    "effects": "api.effects",
    "estimate": "estimate",
    "figures": "figures",
    "geometry": "analysis.geometry",
    "judges": "scores.judges",
    "mass": "api.mass",
    "scores": "scores",
    "stats": "api.stats",
    "units": "api.units",
}

__all__ = [*_HOME, *_GROUPS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _GROUPS:
        return importlib.import_module(f"steerlab.{_GROUPS[name]}")
    if name in _HOME:
        return getattr(importlib.import_module(f"steerlab.{_HOME[name]}"), name)
    raise AttributeError(f"module 'steerlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
