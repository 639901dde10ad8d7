"""Judges: whether an output is in its language, and how well it says its own thing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from steerlab.core.columns import score_records
from steerlab.scores.confusion import columns
from steerlab.scores.judges.agreement import agreement, rejudge
from steerlab.scores.judges.answers import Answer, Judge
from steerlab.scores.judges.choice import JUDGES, judge_from
from steerlab.scores.judges.embeddings import Embeddings
from steerlab.scores.judges.endpoint import Endpoint
from steerlab.scores.judges.instruct import Instruct
from steerlab.scores.judges.likelihood import Likelihood
from steerlab.scores.judges.retrieval import DISTRACTORS, Retrieval
from steerlab.scores.langid import Identifier

__all__ = [
    "DISTRACTORS",
    "JUDGES",
    "Answer",
    "Embeddings",
    "Endpoint",
    "Instruct",
    "Judge",
    "Likelihood",
    "Retrieval",
    "agreement",
    "judge_from",
    "rejudge",
    "score",
]


def score(answers: Sequence[Answer], *, identifier: Identifier, judge: Judge) -> dict[str, Any]:
    """Columns of scores, one value for each answer.

    `in_language`: the identifier's first label is the target. `relevant`: the judge gives the full
    rating, 1. `joint`: both, so that the output is in the target language and says its own thing.
    Then every score whose record computes it from an answer.
    """
    languages = identifier.identify([answer.output for answer in answers])
    read = [
        replace(answer, language=found) for answer, found in zip(answers, languages, strict=True)
    ]
    rated = dict(judge.rate(read))
    in_language = np.array([answer.language == answer.target for answer in read], dtype=bool)
    relevant = np.asarray(rated["rating"], dtype=float) >= 1
    computed = {
        name: [record.compute(answer) for answer in read]
        for name, record in score_records().items()
        if record.compute
    }
    return {
        "output": [answer.output for answer in read],
        "language": languages,
        "in_language": in_language,
        "relevant": relevant,
        "joint": in_language & relevant,
        **rated,
        **computed,
        **columns(
            [answer.output for answer in read],
            [answer.target for answer in read],
            languages=languages,
        ),
    }
