"""What an edit, or training, does to every language, not only to its own."""

from steerlab.analysis.effects.asymmetry import asymmetry
from steerlab.analysis.effects.dominance import dissociated, dissociation, dominance
from steerlab.analysis.effects.learning import (
    abilities_changed,
    conflict,
    few_shot_curve,
    forgetting,
)
from steerlab.analysis.effects.matrix import effect_matrix
from steerlab.analysis.effects.transfer import transfer, transfer_matrix, transfer_regression
from steerlab.core.abilities import Item, ability_items
from steerlab.engine.abilities import abilities
from steerlab.engine.language_effects import language_effects
from steerlab.engine.random_edits import random_like

__all__ = [
    "Item",
    "abilities",
    "abilities_changed",
    "ability_items",
    "asymmetry",
    "conflict",
    "dissociated",
    "dissociation",
    "dominance",
    "effect_matrix",
    "few_shot_curve",
    "forgetting",
    "language_effects",
    "random_like",
    "transfer",
    "transfer_matrix",
    "transfer_regression",
]
