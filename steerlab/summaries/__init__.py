"""From tidy rows to what a table says: the choice on dev, the scores on test, comparisons, scores along the dose."""

from steerlab.summaries.choices import SETTING, Setting, at, at_each, choose, choose_each, held_out, ranking
from steerlab.summaries.comparisons import against, by_language, comparisons, together
from steerlab.summaries.doses import ENOUGH, DoseCurve, Least, along, common_range, dose_curve, equal
from steerlab.summaries.results import curve, difference, outputs, result, stronger
from steerlab.summaries.words import markdown, spelled

__all__ = [
    "ENOUGH",
    "SETTING",
    "DoseCurve",
    "Least",
    "Setting",
    "against",
    "along",
    "at",
    "at_each",
    "by_language",
    "choose",
    "choose_each",
    "common_range",
    "comparisons",
    "curve",
    "difference",
    "dose_curve",
    "equal",
    "held_out",
    "markdown",
    "outputs",
    "ranking",
    "result",
    "spelled",
    "stronger",
    "together",
]
