"""What an edit does to every language, not only to its own: rises of cross-entropy, and which way round is harder."""

from steerlab.effects.diagonals import Dissociated, Dominance, dissociated, dissociation, dominance
from steerlab.effects.matching import doses, random_like
from steerlab.effects.rises import effect_matrix, language_effects
from steerlab.effects.ways import asymmetry

__all__ = [
    "Dissociated",
    "Dominance",
    "asymmetry",
    "dissociated",
    "dissociation",
    "dominance",
    "doses",
    "effect_matrix",
    "language_effects",
    "random_like",
]
