"""What an edit does to every language, not only to its own."""

from steerlab.analysis.effects.asymmetry import asymmetry
from steerlab.analysis.effects.dominance import dissociated, dissociation, dominance
from steerlab.analysis.effects.matrix import effect_matrix
from steerlab.engine.language_effects import language_effects
from steerlab.engine.random_edits import random_like

__all__ = [
    "asymmetry",
    "dissociated",
    "dissociation",
    "dominance",
    "effect_matrix",
    "language_effects",
    "random_like",
]
