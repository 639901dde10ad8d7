"""CLaS-Bench (Gurgurov et al. 2026) with held-out choice, controls, item-level results and intervals."""

from steerlab.clas.languages import LABELS
from steerlab.clas.plan import Settings
from steerlab.clas.protocol import run
from steerlab.clas.reading import Questions, questions
from steerlab.clas.scoring import differences, scores, table

__all__ = ["LABELS", "Questions", "Settings", "differences", "questions", "run", "scores", "table"]
