"""CLaS-Bench (Gurgurov et al. 2026) with held-out choice, controls, item-level results and
intervals."""

from steerlab.studies.clas.languages import LABELS
from steerlab.studies.clas.plan import Settings
from steerlab.studies.clas.protocol import run
from steerlab.studies.clas.reading import questions
from steerlab.studies.clas.scoring import differences, scores, table

__all__ = ["LABELS", "Settings", "differences", "questions", "run", "scores", "table"]
