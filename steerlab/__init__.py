"""steerlab finds, measures and steers the language of a language model."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerlab.cards import feature_card
    from steerlab.clas import questions
    from steerlab.cluster import Ray
    from steerlab.collection import collect, collect_firing, collect_gradients
    from steerlab.confusion import label_agreement, pass_rates, script_mixing, side_effects
    from steerlab.corpora import corpus, texts
    from steerlab.directions import Directions
    from steerlab.edits import (
        Edit,
        ablate,
        add,
        affine,
        clamp,
        conceptor,
        detour,
        erase,
        gate,
        neuron_add,
        neuron_set,
        neuron_zero,
        overwrite,
        push,
        rotate,
        signed_shift,
        stack,
    )
    from steerlab.effects import (
        asymmetry,
        dissociated,
        dissociation,
        dominance,
        effect_matrix,
        language_effects,
        random_like,
    )
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
    from steerlab.figures import cosines, dendrogram, dose_curves, heatmap, selectivity, separation
    from steerlab.firing import Firing
    from steerlab.generation import generate
    from steerlab.grids import Grid
    from steerlab.importers import clas_bench, language_means
    from steerlab.inference import holm, paired_test
    from steerlab.judges import Embeddings, Endpoint, Instruct, Likelihood, Retrieval, judge_from, rejudge
    from steerlab.judges.agreement import agreement
    from steerlab.langid import identifier, lingua
    from steerlab.lift import causal_lift, latent_pairs, least_kl, trace
    from steerlab.masses import gold_masses, language_masses, lexicon, mass_shift, mass_summary
    from steerlab.model import load
    from steerlab.sae import SAE, saes
    from steerlab.selection import (
        Selection,
        candidates,
        culnig,
        decoded,
        foxp2_features,
        gated,
        langfir,
        langfir_counts,
        langfir_stability,
        lape,
        masked,
        matched,
        monolinguality,
        nju,
        sae_diffmean,
        sae_lape,
        signed,
    )
    from steerlab.stats import Moments
    from steerlab.study import run
    from steerlab.summaries import choose, choose_each, dose_curve
    from steerlab.sweeps import sweep
    from steerlab.terms import SteerlabError
    from steerlab.translation import acc_bleu

__version__ = "0.1.0"

_HOME = {
    "feature_card": "cards",
    "questions": "clas",
    "Ray": "cluster",
    "collect": "collection",
    "collect_firing": "collection",
    "collect_gradients": "collection",
    "label_agreement": "confusion",
    "pass_rates": "confusion",
    "script_mixing": "confusion",
    "side_effects": "confusion",
    "corpus": "corpora",
    "texts": "corpora",
    "Directions": "directions",
    "ablate": "edits",
    "add": "edits",
    "affine": "edits",
    "clamp": "edits",
    "conceptor": "edits",
    "detour": "edits",
    "Edit": "edits",
    "erase": "edits",
    "gate": "edits",
    "neuron_add": "edits",
    "neuron_set": "edits",
    "neuron_zero": "edits",
    "overwrite": "edits",
    "push": "edits",
    "rotate": "edits",
    "signed_shift": "edits",
    "stack": "edits",
    "asymmetry": "effects",
    "dissociated": "effects",
    "dissociation": "effects",
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
    "selectivity": "figures",
    "separation": "figures",
    "Firing": "firing",
    "generate": "generation",
    "Grid": "grids",
    "clas_bench": "importers",
    "language_means": "importers",
    "holm": "inference",
    "paired_test": "inference",
    "Embeddings": "judges",
    "Endpoint": "judges",
    "Instruct": "judges",
    "judge_from": "judges",
    "Likelihood": "judges",
    "rejudge": "judges",
    "Retrieval": "judges",
    "agreement": "judges.agreement",
    "identifier": "langid",
    "lingua": "langid",
    "causal_lift": "lift",
    "latent_pairs": "lift",
    "least_kl": "lift",
    "trace": "lift",
    "gold_masses": "masses",
    "language_masses": "masses",
    "lexicon": "masses",
    "mass_shift": "masses",
    "mass_summary": "masses",
    "load": "model",
    "SAE": "sae",
    "saes": "sae",
    "candidates": "selection",
    "culnig": "selection",
    "decoded": "selection",
    "foxp2_features": "selection",
    "gated": "selection",
    "langfir": "selection",
    "langfir_counts": "selection",
    "langfir_stability": "selection",
    "lape": "selection",
    "masked": "selection",
    "matched": "selection",
    "monolinguality": "selection",
    "nju": "selection",
    "sae_diffmean": "selection",
    "sae_lape": "selection",
    "Selection": "selection",
    "signed": "selection",
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
