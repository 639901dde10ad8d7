"""Outputs to columns of rows: languages, chrF, confusion, translation, restarts, judges."""

from steerlab.scores.chrf import ChrfIndex, relevance
from steerlab.scores.confusion import label_agreement, pass_rates, script_mixing
from steerlab.scores.costs import side_effects
from steerlab.scores.langid import identifier, lingua
from steerlab.scores.restarts import attempts, restarts
from steerlab.scores.text import compression, first_line, repetition
from steerlab.scores.translation import acc_bleu

__all__ = [
    "ChrfIndex",
    "acc_bleu",
    "attempts",
    "compression",
    "first_line",
    "identifier",
    "label_agreement",
    "lingua",
    "pass_rates",
    "relevance",
    "repetition",
    "restarts",
    "script_mixing",
    "side_effects",
]
