"""CLaS-Bench (Gurgurov et al. 2026) with held-out choice, controls, item-level results and
intervals."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerlab.studies.clas.languages import LABELS
    from steerlab.studies.clas.reading import questions
    from steerlab.studies.clas.scoring import differences, scores, table
    from steerlab.studies.clas.settings import Settings
    from steerlab.studies.clas.study import run

_HOME = {  # where each name lives, imported at its first use: `settings` must not import torch
    "LABELS": "languages",
    "Settings": "settings",
    "differences": "scoring",
    "questions": "reading",
    "run": "study",
    "scores": "scoring",
    "table": "scoring",
}

__all__ = ["LABELS", "Settings", "differences", "questions", "run", "scores", "table"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
