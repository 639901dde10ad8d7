"""CLaS-Bench (Gurgurov et al. 2026) with held-out choice, controls, item-level results and
intervals."""

from steerlab.studies.clas.languages import LABELS
from steerlab.studies.clas.plan import Settings
from steerlab.studies.clas.reading import Questions, questions
from steerlab.studies.clas.scoring import differences, scores, table
from steerlab.studies.clas.study import run

__all__ = ["LABELS", "Questions", "Settings", "differences", "questions", "run", "scores", "table"]
