"""Whether a judge can rate anything, asked before a run: its model is there, its server answers,
there are enough sentences to compare with."""

from steerlab.scores.chrf import rivals, twins
from steerlab.scores.judges.answers import Judge
from steerlab.scores.judges.endpoint import Endpoint
from steerlab.scores.judges.instruct import Instruct


def need_ready(judge: Judge, distractors: int) -> None:
    """Raise `SteerlabError` where a judge could rate nothing.

    A judge that compares with other sentences says itself with how many, or takes `distractors`. A
    server whose replies are kept may be gone.
    """
    references = getattr(judge, "references", None)
    if references is not None:
        count = getattr(judge, "distractors", distractors)
        rivals(len(references), count, getattr(judge, "seed", 0), twins(references.lines))
    judge.name  # noqa: B018 -- what has a model loads it for its name
    if isinstance(judge, Instruct):
        judge.need_template()
    if isinstance(judge, Endpoint):
        judge.need_server()
