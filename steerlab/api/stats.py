"""Statistics of rows: intervals, paired tests, choices made on dev, scores against the dose."""

from steerlab.analysis.choices import choice_stability, choose, choose_each
from steerlab.analysis.dose import dose_curve, equal
from steerlab.analysis.intervals import by_sentence, paired_difference
from steerlab.analysis.tests import holm, paired_test, sentences_needed

__all__ = [
    "by_sentence",
    "choice_stability",
    "choose",
    "choose_each",
    "dose_curve",
    "equal",
    "holm",
    "paired_difference",
    "paired_test",
    "sentences_needed",
]
