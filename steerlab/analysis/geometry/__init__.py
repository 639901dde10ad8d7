"""How languages lie to one another: how far apart, who is next to whom, what explains it, what
is chance."""

from steerlab.analysis.geometry.family_neighbours import (
    Beyond,
    FamilyNeighbours,
    beyond,
    family_neighbours,
    have_relatives,
    neighbours,
    scripts,
    within_script,
)
from steerlab.analysis.geometry.layers import by_layer, cosine_matrices, effective_rank
from steerlab.analysis.geometry.maps import layout
from steerlab.analysis.geometry.matrices import mantel, regression
from steerlab.analysis.geometry.tokens import separation, unigrams
from steerlab.analysis.geometry.trees import (
    clades,
    classification,
    entanglement,
    resampled,
    support,
    untangle,
)

__all__ = [
    "Beyond",
    "FamilyNeighbours",
    "beyond",
    "by_layer",
    "clades",
    "classification",
    "cosine_matrices",
    "effective_rank",
    "entanglement",
    "family_neighbours",
    "have_relatives",
    "layout",
    "mantel",
    "neighbours",
    "regression",
    "resampled",
    "scripts",
    "separation",
    "support",
    "unigrams",
    "untangle",
    "within_script",
]
