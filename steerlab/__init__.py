"""steerlab finds, measures and steers the language of a language model."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerlab.clas import questions
    from steerlab.cluster import Ray
    from steerlab.collection import collect
    from steerlab.confusion import label_agreement, pass_rates, script_mixing, side_effects
    from steerlab.corpora import corpus, texts
    from steerlab.directions import Directions
    from steerlab.edits import Edit, ablate, add, affine, conceptor, detour, erase, overwrite, push, rotate, stack
    from steerlab.effects import asymmetry, dominance, effect_matrix, language_effects, random_like
    from steerlab.estimate import (
        diffmean,
        disentangle,
        eigengap,
        ellipsoid,
        lda,
        leace,
        pca,
        probe,
        sparse,
        spectra,
        spectrum_table,
        window,
    )
    from steerlab.evaluation import cross_entropy
    from steerlab.figures import cosines, dendrogram, dose_curves, heatmap, separation
    from steerlab.generation import generate
    from steerlab.grids import Grid
    from steerlab.importers import clas_bench, language_means
    from steerlab.inference import holm, paired_test
    from steerlab.judges import Embeddings, Endpoint, Instruct, Likelihood, Retrieval, judge_from, rejudge
    from steerlab.judges.agreement import agreement
    from steerlab.langid import identifier, lingua
    from steerlab.masses import gold_masses, language_masses, lexicon, mass_shift, mass_summary
    from steerlab.model import load
    from steerlab.stats import Moments
    from steerlab.study import run
    from steerlab.summaries import choose, choose_each, dose_curve
    from steerlab.sweeps import sweep
    from steerlab.terms import SteerlabError
    from steerlab.translation import acc_bleu

__version__ = "0.1.0"

_HOME = {
    "questions": "clas",
    "Ray": "cluster",
    "collect": "collection",
    "label_agreement": "confusion",
    "pass_rates": "confusion",
    "script_mixing": "confusion",
    "side_effects": "confusion",
    "corpus": "corpora",
    "texts": "corpora",
    "Directions": "directions",
    "Edit": "edits",
    "ablate": "edits",
    "add": "edits",
    "affine": "edits",
    "conceptor": "edits",
    "detour": "edits",
    "erase": "edits",
    "overwrite": "edits",
    "push": "edits",
    "rotate": "edits",
    "stack": "edits",
    "asymmetry": "effects",
    "dominance": "effects",
    "effect_matrix": "effects",
    "language_effects": "effects",
    "random_like": "effects",
    "diffmean": "estimate",
    "disentangle": "estimate",
    "eigengap": "estimate",
    "ellipsoid": "estimate",
    "lda": "estimate",
    "leace": "estimate",
    "pca": "estimate",
    "probe": "estimate",
    "sparse": "estimate",
    "spectra": "estimate",
    "spectrum_table": "estimate",
    "window": "estimate",
    "cross_entropy": "evaluation",
    "cosines": "figures",
    "dendrogram": "figures",
    "dose_curves": "figures",
    "heatmap": "figures",
    "separation": "figures",
    "generate": "generation",
    "Grid": "grids",
    "clas_bench": "importers",
    "language_means": "importers",
    "holm": "inference",
    "paired_test": "inference",
    "Embeddings": "judges",
    "Endpoint": "judges",
    "Instruct": "judges",
    "Likelihood": "judges",
    "Retrieval": "judges",
    "agreement": "judges.agreement",
    "judge_from": "judges",
    "rejudge": "judges",
    "identifier": "langid",
    "lingua": "langid",
    "gold_masses": "masses",
    "language_masses": "masses",
    "lexicon": "masses",
    "mass_shift": "masses",
    "mass_summary": "masses",
    "load": "model",
    "Moments": "stats",
    "run": "study",
    "choose": "summaries",
    "choose_each": "summaries",
    "dose_curve": "summaries",
    "sweep": "sweeps",
    "SteerlabError": "terms",
    "acc_bleu": "translation",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'steerlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"steerlab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
