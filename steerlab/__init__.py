"""steerlab finds, measures and steers the language of a language model."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerlab.collection import collect
    from steerlab.corpora import corpus, texts
    from steerlab.directions import Directions
    from steerlab.edits import Edit, ablate, add, rotate, stack
    from steerlab.estimate import diffmean, eigengap, lda, pca, probe
    from steerlab.evaluation import cross_entropy
    from steerlab.figures import cosines, dendrogram, dose_curves, heatmap, separation
    from steerlab.generation import generate
    from steerlab.langid import identifier
    from steerlab.model import load
    from steerlab.stats import Moments
    from steerlab.study import run
    from steerlab.sweeps import sweep
    from steerlab.terms import SteerlabError

__version__ = "0.1.0"

_HOME = {
    "collect": "collection",
    "corpus": "corpora",
    "texts": "corpora",
    "Directions": "directions",
    "Edit": "edits",
    "ablate": "edits",
    "add": "edits",
    "rotate": "edits",
    "stack": "edits",
    "diffmean": "estimate",
    "eigengap": "estimate",
    "lda": "estimate",
    "pca": "estimate",
    "probe": "estimate",
    "cross_entropy": "evaluation",
    "cosines": "figures",
    "dendrogram": "figures",
    "dose_curves": "figures",
    "heatmap": "figures",
    "separation": "figures",
    "generate": "generation",
    "identifier": "langid",
    "load": "model",
    "Moments": "stats",
    "run": "study",
    "sweep": "sweeps",
    "SteerlabError": "terms",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'steerlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"steerlab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
