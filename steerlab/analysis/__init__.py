"""Rows to numbers: intervals, tests, choices, comparisons, effects, geometry. No model is seen
here."""
