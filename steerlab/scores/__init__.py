"""Outputs to columns of rows: languages, chrF, confusion, translation, judges."""

from steerlab.scores.chrf import ChrfIndex, relevance
from steerlab.scores.confusion import label_agreement, pass_rates, script_mixing
from steerlab.scores.costs import side_effects
from steerlab.scores.langid import identifier, lingua
from steerlab.scores.text import compression, first_line, repetition
from steerlab.scores.translation import acc_bleu

__all__ = [
    "ChrfIndex",
    "acc_bleu",
    "compression",
    "first_line",
    "identifier",
    "label_agreement",
    "lingua",
    "pass_rates",
    "relevance",
    "repetition",
    "script_mixing",
    "side_effects",
]
