"""Statistics of rows: intervals, paired tests, choices made on dev, scores against the dose, a
strength that is found."""

from steerlab.analysis.calibration import Calibrated, calibrate
from steerlab.analysis.choices import choice_stability, choose, choose_each
from steerlab.analysis.dose import dose_curve, equal
from steerlab.analysis.intervals import by_sentence, paired_difference
from steerlab.analysis.matched_pairs import matched_by
from steerlab.analysis.scaling import (
    PowerLaw,
    gap_at_one,
    power_law,
    token_efficiency,
    transferability,
)
from steerlab.analysis.tests import holm, paired_test, sentences_needed

__all__ = [
    "Calibrated",
    "PowerLaw",
    "by_sentence",
    "calibrate",
    "choice_stability",
    "choose",
    "choose_each",
    "dose_curve",
    "equal",
    "gap_at_one",
    "holm",
    "matched_by",
    "paired_difference",
    "paired_test",
    "power_law",
    "sentences_needed",
    "token_efficiency",
    "transferability",
]
