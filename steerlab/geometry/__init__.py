"""How languages lie to one another: how far apart, who is next to whom, what explains it, what is chance."""

from steerlab.geometry.kin import Kinship, have_kin, kinship, neighbours, within_script
from steerlab.geometry.layers import by_layer, cosine_matrices, effective_rank
from steerlab.geometry.maps import layout
from steerlab.geometry.matrices import mantel, regression
from steerlab.geometry.tokens import separation, unigrams
from steerlab.geometry.trees import clades, classification, entanglement, resampled, support, untangle

__all__ = [
    "Kinship",
    "by_layer",
    "clades",
    "classification",
    "cosine_matrices",
    "effective_rank",
    "entanglement",
    "have_kin",
    "kinship",
    "layout",
    "mantel",
    "neighbours",
    "regression",
    "resampled",
    "separation",
    "support",
    "unigrams",
    "untangle",
    "within_script",
]
