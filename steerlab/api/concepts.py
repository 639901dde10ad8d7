"""Concepts across languages: register, gender and whatever else piles of text are told apart by."""

from steerlab.analysis.held_out import held_out_probe
from steerlab.core.contrast import contrast
from steerlab.core.packaged import (
    occupation_groups,
    occupation_prompts,
    occupations,
    register,
    register_prompts,
)
from steerlab.engine.collect import text_means
from steerlab.estimate.crossed import Crossed, crossed
from steerlab.estimate.units.shared import SharedFeatures, shared_features
from steerlab.scores.counted import formal_share, she_share, word_counts

__all__ = [
    "Crossed",
    "SharedFeatures",
    "contrast",
    "crossed",
    "formal_share",
    "held_out_probe",
    "occupation_groups",
    "occupation_prompts",
    "occupations",
    "register",
    "register_prompts",
    "shared_features",
    "she_share",
    "text_means",
    "word_counts",
]
