"""Judges: whether an output is in its target language, and whether it is about its own prompt."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from steerlab.core.columns import score_records
from steerlab.core.labels import language_of
from steerlab.scores.confusion import columns
from steerlab.scores.judges.agreement import agreement, rejudge
from steerlab.scores.judges.answers import Answer, Judge
from steerlab.scores.judges.choice import JUDGES, judge_from
from steerlab.scores.judges.choice import source_of as source_of
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

    `in_language`: the identified language is the target's; a label without a language asks for
    none, so that it is true there. `relevant`: the judge gives the full
    rating, 1. `joint`: both, so that the output is in the target language and about its own prompt.
    Beside them stand the judge's own columns, every score whose record computes it from an answer,
    and those of `confusion.columns`.

    Args:
        answers: the outputs, and what they came from.
        identifier: what names the language of an output.
        judge: what rates the outputs.
    """
    outputs = [answer.output for answer in answers]
    languages = identifier.identify(outputs)
    # A judge may compare an output with sentences of the language that it is in.
    identified = [
        replace(answer, language=lang) for answer, lang in zip(answers, languages, strict=True)
    ]
    judged = dict(judge.rate(identified))
    in_language = np.array(
        [language_of(answer.target) in (answer.language, None) for answer in identified], dtype=bool
    )
    relevant = np.asarray(judged["rating"], dtype=float) >= 1  # a rating of NaN is not relevant
    computed = {
        name: [record.compute(answer) for answer in identified]
        for name, record in score_records().items()
        if record.compute
    }
    targets = [answer.target for answer in identified]
    return {
        "output": outputs,
        "language": languages,
        "in_language": in_language,
        "relevant": relevant,
        "joint": in_language & relevant,
        **judged,
        **computed,
        **columns(outputs, targets, languages=languages),
    }
